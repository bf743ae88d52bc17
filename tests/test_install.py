"""`pip install .` gives a usable package: configs come along, and the console commands work in any folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.helpers import ROOT

SMALL = ["layers=2", "channels=2", "epochs=1", "split.max_train=32", "split.max_val=32", "space.nodes=1", "threads=1",
         "wandb.mode=disabled"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The commands' folder of an environment that holds the wheel; what the project depends on comes from this environment."""
    where = tmp_path_factory.mktemp("wheel")
    source = where / "source"
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")
    source.mkdir()
    for name in ("conf", "ops", "supernet"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored, symlinks=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(where), str(source)],
                           capture_output=True, text=True, timeout=300)
    if built.returncode and "setuptools" in built.stderr and "from versions: none" in built.stderr:
        pytest.skip("no package registry to take setuptools from")
    assert built.returncode == 0, built.stderr
    (wheel,) = where.glob("*.whl")
    venv.create(where / "env", with_pip=False)
    own = where / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # ignore-installed: else pip takes the running environment's own install away
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", "--prefix", str(where / "env"),
                    str(wheel)], check=True, timeout=300)
    # a line of a path file adds a folder without what that folder itself would add: an editable install of this project
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return where / "env" / "bin"


CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which may lead to this tree


def run(commands: Path, command: str, *options: str, cwd: Path) -> str:
    done = subprocess.run([str(commands / "python"), str(commands / command), *options], cwd=cwd, capture_output=True, text=True,
                          timeout=300, env=CLEAN)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_package_searches_and_trains_in_any_folder(installed, tmp_path):
    where = subprocess.run([str(installed / "python"), "-c", "import supernet; print(supernet.__path__[0])"], cwd=tmp_path, check=True,
                           capture_output=True, text=True, env=CLEAN).stdout
    assert str(installed.parent) in where, "the wheel's package is not the one that was imported"
    printed = run(installed, "supernet-search", *SMALL, cwd=tmp_path)
    (retrain,) = [line for line in printed.splitlines() if line.startswith("retrain ")]
    assert retrain.split()[1] == "supernet-final"
    run(installed, "supernet-final", *SMALL[:4], *SMALL[6:], "batch_size=16", cwd=tmp_path)
    assert list(tmp_path.glob("runs/*_final_*/summary.json"))
    run(installed, "supernet-report", "runs", cwd=tmp_path)
    assert "uPlot" in (tmp_path / "runs" / "report.html").read_text()
    assert "does the supernet rank?" in run(installed, "supernet-rank", "--help", cwd=tmp_path).lower()
    assert "dataset: " in run(installed, "supernet-search", "--help", cwd=tmp_path)
