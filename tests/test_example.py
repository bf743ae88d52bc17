"""The documented example of a user's own space, and one from YAML alone, searched and retrained from a folder outside the project."""

import json
import shutil

from supernet.genotype import Genotype
from tests.helpers import ROOT, run

SIZES = ["layers=3", "channels=4", "split.max_train=64"]


def test_the_example_is_searched_and_retrained_from_another_folder(tmp_path):
    shutil.copy(ROOT / "examples" / "my_space.py", tmp_path)
    space = ["space=custom", "space._target_=my_space.make", *SIZES, "epochs=1"]
    done = run("train_search", *space, "split.max_val=64", cwd=tmp_path)
    assert done.code == 0, done.err
    (found,) = tmp_path.glob("runs/*/genotype.json")
    assert Genotype.load(found).space == "my_space"
    done = run("train_final", *space, cwd=tmp_path)
    assert done.code == 0 and "test accuracy" in done.out, done.err
    done = run("train_final", *SIZES, "epochs=1", cwd=tmp_path)  # the genotype alone does not say where the space is
    assert done.code == 2 and "pass space=custom space._target_=" in done.err


def test_a_space_from_the_command_line_alone(tmp_path):
    cell = "{edges:[[0,1,[skip_connect,nor_conv_3x3]],[1,2,[nor_conv_1x1,avg_pool_3x3]]],keep:null,outputs:[2]}"
    done = run("train_search", "space=listed", f"space.cells.cell={cell}", *SIZES, "split.max_val=64", "epochs=1", cwd=tmp_path)
    assert done.code == 0, done.err
    (found,) = tmp_path.glob("runs/*/genotype.json")
    assert [len(edges) for edges in json.loads(found.read_text())["cells"].values()] == [2]
    done = run("train_final", *SIZES, "epochs=1", cwd=tmp_path)
    assert done.code == 0, done.err
