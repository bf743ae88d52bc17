"""docs/extending.md, run as it stands: its files in an empty folder, its commands one after the other."""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.app.signatures import HANDED, LISTS
from supernet.spaces import toy
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from tests.helpers import ROOT, run

PAGE = ROOT / "docs" / "extending.md"


class Block(NamedTuple):
    section: str
    language: str
    text: str


@functools.cache
def blocks(page: Path = PAGE) -> list[Block]:
    """Those of a page, in order. Fails for one that no test would run."""
    found, section, lines = [], "", iter(page.read_text().splitlines())
    for line in lines:
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if line.startswith("```"):
            language, body = line.removeprefix("```"), []
            while (line := next(lines)) != "```":
                body.append(line)
            assert language in ("python", "yaml", "sh"), f"{section}: no test runs {language!r}"
            found.append(Block(section, language, "\n".join(body) + "\n"))
    return found


def commands(section: str) -> list[list[str]]:
    shown = [block.text for block in blocks() if block.section == section and block.language == "sh"]
    return [shlex.split(line) for text in shown for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return filled(tmp_path_factory.mktemp("extending"), blocks())


def filled(folder: Path, shown: list[Block]) -> Path:
    """The files of a page, each under the name of its first line."""
    for block in shown:
        if block.language != "sh":
            name = re.fullmatch(r"# (\S+\.(py|yaml))", block.text.splitlines()[0])
            assert name, f"{block.section}: the first line must be the file's name, got {block.text.splitlines()[0]!r}"
            path = folder / name.group(1)
            assert not path.exists(), f"{path.name} stands twice on the page"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    return folder


SECTIONS = list(dict.fromkeys(block.section for block in blocks()))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_works_as_it_stands(section, folder):
    """But smaller, in forked processes, and with a table that is not trained for; `test_the_page_in_a_shell` takes nothing away."""
    of_section = commands(section)
    assert of_section, "a section shows how its part is used"
    for program, name, *options in of_section:
        assert program == "python"
        if name == "-m" and options[0] == "supernet.tabulate":
            space = toy.make()
            found = {"test_accuracy": [float(n) for n in range(27)], "val_accuracy": [float(n) for n in range(27)]}
            (folder / "data" / "tables").mkdir(parents=True)
            write_table(folder / "data" / "tables" / "toy.csv.gz", space, [space.text(g) for g in space.enumerate()], found,
                        {"digits": Columns("val_accuracy", "test_accuracy")})
        elif name == "-m":
            done = subprocess.run([sys.executable, name, *options, "threads=1", "resamples=10"], cwd=folder, capture_output=True, text=True,
                                  timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)})
            assert done.returncode == 0, done.stderr
        else:
            script = name.removeprefix("$SUPERNET/").removesuffix(".py")
            smaller = ["epochs=1", "split.max_train=32", "split.max_val=32"] if script == "train_search" else []
            done = run(script, *options, *smaller, cwd=folder, report=False)
            assert done.code == 0, done.err


def test_the_page_has_all_parts_that_can_be_added_and_says_how_they_are_made(folder):
    shown = {path.parent.name: path for path in folder.glob("conf/*/*.yaml")}
    assert set(shown) >= set(HANDED) - {"table", "w_penalty", "passes"}
    table = dict(re.findall(r"^\| `(\w+)` \| `[\w.]+\((.*?)\)", PAGE.read_text(), re.MULTILINE))
    for group, handed in HANDED.items():
        if group in shown and group != "dataset":
            assert table[group].split(", **")[0].removeprefix("**options") == ", ".join(handed), group
            text = shown[group].read_text()
            nested = not re.search("^_target_", text, re.MULTILINE)
            assert nested == (group in LISTS) and ("_partial_: true" in text) == bool(handed), group
            assert re.search(rf"^\| `{group}` .*\| {'nested' if nested else 'flat'}{', `_partial_`' if handed else ''} \|$",
                             PAGE.read_text(), re.MULTILINE), group


def test_sparsemax_on_the_page_is_the_projection_onto_the_simplex(folder, monkeypatch):
    import torch

    monkeypatch.syspath_prepend(folder)
    from my_relaxations import sparsemax

    torch.manual_seed(0)
    z = (3 * torch.randn(200, 5, dtype=torch.float64)).requires_grad_()
    p = sparsemax(z)
    torch.testing.assert_close(p.sum(-1), torch.ones(200, dtype=torch.float64), rtol=0, atol=1e-12)
    gap = z - p  # of a projection: one value, tau, on the support, and no more than it elsewhere
    tau = gap.where(p > 0, -torch.inf).amax(-1, keepdim=True)
    assert (p >= 0).all() and (gap <= tau + 1e-12).all() and ((gap - tau).abs()[p > 0] < 1e-12).all()
    assert (p == 0).any() and (p.detach() > 0).sum(-1).max() > 1
    assert torch.autograd.gradcheck(sparsemax, z[:4].detach().requires_grad_())
    lacking = torch.tensor([[0.3, -torch.inf, 0.1]], requires_grad=True)
    found = sparsemax(lacking)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.0, 0.4]]))
    found[0, 0].backward()
    assert torch.isfinite(lacking.grad).all()


def test_own_parts_mix_with_each_other_and_with_ours(folder, monkeypatch):
    monkeypatch.chdir(folder)
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra_compose("search", overrides=["relaxation=sparsemax", "wrapper=[edge_normalised,sharpened]", "monitor=[flips,skips]",
                                                 "penalty=[op_weight,entropy]", "cost=price_list", "task=focal", "dataset=stripes"])
    assert list(cfg.wrapper) == ["edge_normalised", "sharpened"] and list(cfg.monitor) == ["flips", "skips"]
    assert cfg.epochs == 2 and cfg.batch_size == 32  # the protocol of the same name, begun from that of the digits


@pytest.mark.slow
def test_the_page_in_a_shell(folder):
    """Every command as it is written."""
    text = "set -e\n" + "".join(block.text for block in blocks() if block.language == "sh")
    env = os.environ | {"SUPERNET": str(ROOT), "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                        "WANDB_MODE": "disabled"}
    done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, text=True, env=env, timeout=1800)
    assert done.returncode == 0, done.stderr
