import json
import shutil
import subprocess
import sys

import pytest

from supernet.commands import diff as command
from supernet.genotype import Edge, Genotype, find
from supernet.runs.folder import RunFolder, write_json
from supernet.runs.journal import Journal
from supernet.spaces import nasbench_macro
from tests.helpers import ROOT
from tests.runs import planted_run


@pytest.fixture
def two(tmp_path):
    """Two runs that differ in seed and epochs, in their commit, in one edge, and in what they reached."""
    return (planted_run(tmp_path / "a", job="a", seed=0, accuracy=90.0, genotype=0, validation=80.0),
            planted_run(tmp_path / "b", job="b", seed=1, accuracy=91.5, genotype=1, validation=81.0, epochs=4, commit="b" * 40))


def told(capsys, *arguments, code):
    assert command.main([*map(str, arguments)]) == code, capsys.readouterr().err
    return capsys.readouterr().out


def as_json(capsys, *arguments, code=1):
    return json.loads(told(capsys, *arguments, "--json", code=code))


def error(capsys, *arguments):
    assert command.main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def rows(part):
    return {each["name"]: (each["a"], each["b"]) for each in part}


def test_two_runs_differ_in_what_was_set_where_they_ran_what_they_found_and_what_they_reached(two, capsys):
    found = as_json(capsys, *two)
    assert rows(found["options"]) == {"epochs": (2, 4), "seed": (0, 1)}
    assert rows(found["environment"]) == {"git_commit": ("a" * 40, "b" * 40)}
    assert rows(found["results"]) == {"best": (80.0, 81.0), "val_accuracy": (90.0, 91.5)}
    first, second = (Genotype.load(path / "genotype.json") for path in two)
    same = len(set(first["cell"]) & set(second["cell"]))
    assert found["edges"] == {"a": len(first["cell"]), "b": len(second["cell"]), "both": same} and found["differs"]
    assert sum(len(each["a"].split(" + ")) for each in found["cells"] if each["a"] != "nothing") == len(first["cell"]) - same
    text = told(capsys, *two, code=1)
    assert text.splitlines()[0].startswith(f"a  {two[0]}  (search, finished, genotype ")
    assert "  val_accuracy" in text and text.rstrip().endswith("+1.5") and "  seed" in text


def test_a_run_and_its_copy_do_not_differ_whatever_the_clock_said(two, tmp_path, capsys):
    copy = shutil.copytree(two[0], tmp_path / "copy")
    write_json(copy / "summary.json", {"values": {"val_accuracy": 90.0, "elapsed_s": 99.0}})
    assert not as_json(capsys, two[0], copy, code=0)["differs"]
    assert told(capsys, two[0], copy, code=0).count("the same") == 4


def test_a_choice_from_a_group_stands_for_its_class_and_other_options_for_themselves(tmp_path, capsys):
    for name, choice, rate in (("a", "softmax", 1.0), ("b", "gumbel", 2.0)):
        folder = RunFolder(planted_run(tmp_path / name, job=name, relaxation={"_target_": f"x.{choice}", "temperature": rate}))
        folder._write_status({**folder.status(), "choices": {"relaxation": choice, "space": "toy"}})
    found = as_json(capsys, tmp_path / "a", tmp_path / "b", "--only", "options")
    assert rows(found["options"]) == {"relaxation": ("softmax", "gumbel"), "relaxation.temperature": (1.0, 2.0)}
    assert "cells" not in found


def test_cells_are_compared_edge_by_edge_in_any_notation(tmp_path, capsys):
    (tmp_path / "theirs.txt").write_text(
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
        "('max_pool_3x3', 1)], reduce_concat=range(2, 6))")
    assert as_json(capsys, "darts_v2", tmp_path / "theirs.txt", code=0)["edges"] == {"a": 16, "b": 16, "both": 16}
    found = as_json(capsys, "darts_v1", "darts_v2")
    assert rows(found["cells"])["normal 0 → 3"] == ("skip_connect", "dil_conv_3x3")
    assert rows(found["cells"])["reduce c_{k-1} → 1"] == ("nothing", "max_pool_3x3")
    assert found["edges"]["both"] == len(set(find("darts_v1")["normal"]) & set(find("darts_v2")["normal"])) + \
        len(set(find("darts_v1")["reduce"]) & set(find("darts_v2")["reduce"]))


def test_parallel_edges_layers_and_other_spaces_are_told(tmp_path, capsys):
    for name, ops in (("a", ("x", "x", "y")), ("b", ("x", "y", "z"))):
        Genotype("mine", name, (("cell", tuple(Edge(1 + (n == 2), 0, op) for n, op in enumerate(ops))),)).save(tmp_path / f"{name}.json")
    found = as_json(capsys, tmp_path / "a.json", tmp_path / "b.json")
    assert rows(found["cells"]) == {"space": ("mine a", "mine b"), "cell c_{k-1} → 0": ("x + x", "x + y"), "cell c_{k-1} → 1": ("y", "z")}
    assert found["edges"] == {"a": 3, "b": 3, "both": 1}
    space = nasbench_macro.make()
    for name, text in (("c", "ir_3x3_e3"), ("d", "identity")):
        genotype = next(g for g in space.enumerate() if g["layers"][0].op == text and all(e.op == "identity" for e in g["layers"][1:]))
        genotype.save(tmp_path / f"{name}.json")
    assert rows(as_json(capsys, tmp_path / "c.json", tmp_path / "d.json")["cells"]) == {"layers layer 1": ("ir_3x3_e3", "identity")}
    assert rows(as_json(capsys, tmp_path / "c.json", "darts_v1")["cells"])["space"] == ("nasbench_macro", "darts")


def test_runs_that_are_not_finished_are_compared_by_their_last_epoch(two, capsys):
    for path, loss in zip(two, (1.0, 2.0), strict=True):
        RunFolder(path).set_status("stopped")
        Journal(path / "metrics.jsonl").append({"epoch": 1, "val_accuracy": 85.0, "train_loss": loss, "seconds": loss})
    (two[1] / "genotype.json").unlink()
    found = as_json(capsys, *two)
    assert rows(found["results"]) == {"train_loss": (1.0, 2.0)}
    assert rows(found["cells"])["genotype"][1] == "nothing" and found["edges"]["b"] == 0


@pytest.mark.parametrize(("arguments", "said"), [
    (["darts_v1"], "required: b"),
    (["darts_v1", "darts_v9"], "no published genotype of that name"),
    (["darts_v1", "darts_v2", "--only", "cell"], "did you mean cells"),
    (["darts_v1", "darts_v2", "--only", "results"], "expected the folders of two runs"),
    (["darts_v1", "darts_v2", "--jsn"], "did you mean --json"),
    (["darts_v1", "."], "expected the folder of a run"),
])
def test_a_wrong_argument_is_one_line(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in error(capsys, *arguments)


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "summary.json", "genotype.json"])
def test_a_damaged_file_is_one_line(name, two, capsys):
    (two[1] / name).write_text("[1, 2")
    assert name in error(capsys, *two)


def test_what_a_stranger_wrote_cannot_steer_the_terminal(two, capsys):
    write_json(two[1] / "environment.json", {"gpu\x1b[2J": "\x1b]0;x\x07"})
    assert "\x1b" not in told(capsys, *two, code=1)


def test_the_command_starts_without_pytorch(tmp_path):
    code = ("import sys\nfrom supernet.commands.diff import main\nassert main(['darts_v1', 'darts_v2']) == 1\n"
            "print(sorted({'torch', 'numpy', 'matplotlib', 'hydra'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
