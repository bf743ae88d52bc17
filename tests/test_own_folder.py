"""Configs and modules of the folder that a command is started from."""

import json
import shutil
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import ops
from ops.op import Normalisation
from supernet.app.build import build
from supernet.app.command_line import register
from supernet.app.options import CONF, choices
from supernet.app.own_folder import choices_on_disk, own_conf
from supernet.app.own_ops import register_own_ops
from supernet.commands.rank import chosen_proxies
from supernet.errors import UsageError
from supernet.spaces import toy
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from tests.helpers import ROOT, only_error, python, run

SHARP = '''
from supernet.relaxations.softmax import Softmax
from supernet.weights import EdgeWeights, Weights


class Sharp(Softmax):
    def __init__(self, space, generator, *, power: float = 2.0):
        super().__init__(space, generator)
        self.power = power

    def mean(self):
        return EdgeWeights({kind: Weights((self.power * self.logits(kind)).softmax(-1)) for kind in self.alpha})


def edges(net, batch, task, *, factor: float = 1.0):
    return factor * sum(p.numel() for p in net.parameters())
'''
CONFIGS = {"relaxation/sharp": "_target_: my_parts.Sharp\n_partial_: true\npower: 3\n",
           "relaxation/sharper": "defaults: [sharp, _self_]\npower: 9\n",
           "proxy/edges": "edges:\n  _target_: my_parts.edges\n  _partial_: true\n  factor: 2\n",
           "proxy/misnamed": "other:\n  _target_: my_parts.edges\n  _partial_: true\n",
           "experiment/mine": "# @package _global_\ndefaults: [{override /relaxation: sharper}]\nepochs: 3\n"}
TINY = ["space=toy", "layers=3", "channels=2", "epochs=1", "split.max_train=32", "split.max_val=32"]


def filled(folder):
    (folder / "my_parts.py").write_text(SHARP)
    for name, text in CONFIGS.items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("own"))


@pytest.fixture
def composing(monkeypatch):
    """Composes, from a folder, what a script would."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def composed(cwd, *overrides):
        monkeypatch.chdir(cwd)
        register()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("search", overrides=list(overrides)), choices("relaxation")

    yield composed
    GlobalHydra.instance().clear()


def test_own_configs_are_choices_like_any_other(folder, composing):
    cfg, known = composing(folder, "relaxation=sharper")
    assert cfg.relaxation == {"_target_": "my_parts.Sharp", "_partial_": True, "power": 9}
    assert {"sharp", "sharper", "softmax"} <= set(known) and len(known) == len(set(known))
    assert set(choices_on_disk("relaxation")) == set(known)
    cfg, _ = composing(folder, "experiment=mine")
    assert cfg.epochs == 3 and cfg.relaxation.power == 9


def test_they_are_not_seen_from_another_folder_and_nothing_doubles_in_the_project(tmp_path, composing):
    assert "sharp" not in composing(tmp_path)[1]
    assert own_conf() is None
    _, known = composing(ROOT)
    assert own_conf() is None and known == sorted(path.stem for path in (CONF / "relaxation").glob("*.yaml"))


def test_a_name_means_one_thing(tmp_path, monkeypatch):
    shutil.copytree(CONF / "relaxation", tmp_path / "conf" / "relaxation")
    monkeypatch.chdir(tmp_path)
    assert own_conf() == tmp_path / "conf"  # a copy of the package's own is no other choice
    (tmp_path / "conf" / "relaxation" / "gumbel.yaml").write_text("_target_: my_parts.Sharp\n")
    with pytest.raises(UsageError, match="conf/relaxation/gumbel.yaml: the package has a relaxation/gumbel too"):
        own_conf()
    assert "rename yours" in only_error(run("train_search", *TINY, cwd=tmp_path))


def test_an_op_of_ones_own_has_no_name_of_ours_and_is_imported_when_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "op").mkdir(parents=True)
    (tmp_path / "conf" / "op" / "se_conv.yaml").write_text("_target_: no_module_of_mine.op\n_partial_: true\n")
    try:
        register_own_ops(build)
        with pytest.raises(ValueError, match="got 'se_cov'; did you mean se_conv?"):
            ops.make_op("se_cov", 4, 1, Normalisation(True, False))
        with pytest.raises(UsageError, match="there is no module 'no_module_of_mine'"):
            ops.make_op("se_conv", 4, 1, Normalisation(True, False))
        (tmp_path / "conf" / "op" / "skip_connect.yaml").write_text("_target_: no_module_of_mine.op\n")
        with pytest.raises(UsageError, match="conf/op/skip_connect.yaml: there is an op skip_connect already"):
            register_own_ops(build)
    finally:
        ops.OPS.pop("se_conv", None)


@pytest.mark.parametrize("option, words", [
    ("relaxation=sharpe", ["relaxation=sharpe", "sharp, sharper, sigmoid", "did you mean sharper"]),
    ("relaxation.pouer=3", ["there is no option 'relaxation.pouer'", "relaxation.power"]),
])
def test_hints_know_them(folder, option, words):
    line = only_error(run("train_search", *TINY, *([] if "=sharpe" in option else ["relaxation=sharp"]), option, cwd=folder))
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize("options, told", [
    (["by=[edgs]"], "by must list some of shared_weights, edges, .* got \\['edgs'\\]; did you mean edges?"),
    (["by=[misnamed]"], "proxy/misnamed.yaml must have its lines under the name misnamed, got other"),
    (["by=[edges]", "proxy=[edges,snip]"], "chooses snip, which by=.* does not list"),
    (["by=[edges]", "proxy=[edges]", "+proxy.edges.faktor=2"],
     "proxy.edges.faktor: my_parts.edges has no such option.* did you mean factor"),
])
def test_proxies_are_checked_before_any_work(folder, composing, options, told):
    composing(folder)
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(UsageError, match=told):
        chosen_proxies(compose("rank", overrides=options))


def test_a_proxy_has_the_options_of_its_yaml_or_of_the_command(folder, composing):
    composing(folder)
    net = torch.nn.Linear(2, 1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for options, factor in ((["by=[edges]"], 2), (["by=[edges,snip]", "proxy=[edges]", "proxy.edges.factor=5"], 5)):
            assert chosen_proxies(compose("rank", overrides=options))["edges"](net, None, None) == 3 * factor


def test_a_search_with_own_parts_is_ranked_by_an_own_proxy(folder):
    done = run("train_search", *TINY, "relaxation=sharp", "+relaxation.init_scale=1", cwd=folder)
    assert "relaxation.init_scale" in only_error(done) and "takes space, generator, power" in only_error(done)
    done = run("train_search", *TINY, "relaxation=sharp", cwd=folder, report=False)
    assert done.code == 0, done.err
    (found,) = folder.glob("runs/*")
    assert "my_parts.Sharp" in (found / "config.yaml").read_text()
    space = toy.make()
    genotypes = list(space.enumerate())
    truth = {"good": [float(sum("conv" in edge.op for edge in g["cell"])) for g in genotypes]}
    write_table(folder / "toy.csv", space, [space.text(g) for g in genotypes], truth, {"digits": Columns("good", "good")})

    done = python("-m", "supernet.rank", f"run={found}", "table.path=toy.csv", "n=6", "proxy_batch=8", "threads=1",
                  "by=[shared_weights,edges,parameters]", "calibration_batches=1", "resamples=10", cwd=folder)
    assert done.returncode == 0, done.stderr
    scores = json.loads((found / "rank.json").read_text())["scores"]
    assert scores["edges"]["kendall_tau"] == scores["parameters"]["kendall_tau"] == 1
