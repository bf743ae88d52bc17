"""Cells whose authors train them by a protocol of their own."""

import json
import random

import pytest

from supernet.app.retraining import retraining_note, retraining_of
from supernet.spaces import darts
from tests.helpers import run


def test_published_cells_and_files_name_the_protocol_that_trains_them(tmp_path):
    named = {"pc_darts_cifar": "pc_darts", "GAEA_PC_DARTS": "pc_darts", "pdarts": "p_darts", "darts_v2": None}
    assert {name: retraining_of(name) for name in named} == named
    genotype = darts.make().sample(random.Random(0))
    genotype.save(tmp_path / "a.json", retrain="p_darts")
    assert retraining_of(str(tmp_path / "a.json")) == "p_darts"
    for name, text in (("no.json", None), ("list.json", "[]"), ("number.json", json.dumps({"retrain": 3})), ("text.txt", "Genotype(")):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert retraining_of(str(tmp_path / name)) is None


def test_the_note_names_both_protocols_in_one_line():
    assert retraining_note("pdarts", "p_darts") == retraining_note("darts_v2", "cifar10") == []
    (line,) = retraining_note("darts_v2", "cifar10", "modern")
    assert "recipe=darts" in line and "recipe=modern" in line
    (line,) = retraining_note("pdarts", "cifar10")
    assert "protocol=p_darts" in line and "protocol=cifar10" in line and "\n" not in line


def test_a_training_by_another_protocol_says_so_and_a_search_says_which_is_meant(tmp_path):
    done = run("train_search", "dataset=digits", "retrain=p_darts", "epochs=0", "layers=3", "channels=4", "batch_size=16",
               "split.max_train=16", "split.max_val=16", "space.nodes=1", cwd=tmp_path, report=False)
    assert done.code == 0 and "protocol=p_darts" in done.out.splitlines()[-1]
    (found,) = tmp_path.glob("runs/*_search_*/genotype.json")
    final = ["dataset=digits", "epochs=1", "layers=3", "channels=4", "batch_size=16", "split.max_train=16", "task.auxiliary_weight=0"]
    done = run("train_final", f"genotype={found}", *final, cwd=tmp_path, report=False)
    assert done.code == 0 and "train it by protocol=p_darts, this training follows protocol=digits" in done.err
    assert json.loads(next(tmp_path.glob("runs/*_final_*/genotype.json")).read_text())["retrain"] == "p_darts"
    done = run("train_final", f"genotype={found}", "protocol=p_darts", "dataset.augment.cutout=0", *final, cwd=tmp_path, report=False)
    assert done.code == 0 and "note: the authors" not in done.err


@pytest.mark.parametrize("name", ["pc_darts_cifar", "pdarts"])
def test_a_protocol_exists_for_every_name_that_a_published_cell_gives(name):
    from supernet.app.options import CONF

    assert (CONF / "protocol" / f"{retraining_of(name)}.yaml").exists()
