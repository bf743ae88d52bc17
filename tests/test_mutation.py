"""The mutants of `python -m benchmarks.mutation`, how one is tried, and what is said of them."""

import ast
import os
import random
import signal
import sys
import time

import pytest

from benchmarks import mutation
from benchmarks.mutation import __main__ as command
from benchmarks.mutation import child, touched
from benchmarks.mutation.operators import mutants, mutated

SOURCE = '''"""1 + 1 in a docstring."""

import torch

SIZE: int | None = 3
__all__ = ["f"]


def f(x: "torch.Tensor | None", scale: float = 0.5, *, flip: bool = False):
    """x < 0"""
    if x is None or scale <= 0:
        raise ValueError(f"scale must be above 0, got {scale - 0}")
    rows = x.detach().softmax(-1)[1:]
    with torch.no_grad():
        rows.clamp_(0)
    for row in rows:
        if flip:
            continue
        scale += torch.add(scale, rows) + row.sum(0, keepdim=True)
    return [-y for y in rows if not y] + sorted(rows), rows.log()
'''


@pytest.fixture
def found(tmp_path):
    (tmp_path / "m.py").write_text(SOURCE)
    return mutants(tmp_path / "m.py", "m")


def test_every_kind_of_change_is_found_where_it_stands(found):
    there = [(m.line, m.operator, m.before, m.after) for m in found]
    for expected in [
            (5, "constant", "3", "4"), (9, "default", "0.5", "1.0"), (9, "default", "False", "True"),
            (11, "condition", "x is None or scale <= 0", "not (x is None or scale <= 0)"),
            (11, "boolean", "x is None or scale <= 0", "x is None and scale <= 0"), (11, "comparison", "x is None", "x is not None"),
            (11, "comparison", "scale <= 0", "scale < 0"), (11, "comparison", "scale <= 0", "scale >= 0"), (11, "constant", "0", "1"),
            (12, "removed", "raise ValueError(f'scale must be above 0, got {scale - 0}')", "pass"),
            (13, "detach removed", "x.detach()", "x"), (13, "slice", "1:", "1 + 1:"), (13, "constant", "-1", "-2"),
            (13, "reduction", "x.detach().softmax(-1)", "x.detach().log_softmax(-1)"),
            (14, "removed", "with torch.no_grad(): ...", "..."), (15, "removed", "rows.clamp_(0)", "pass"),
            (17, "condition", "flip", "not flip"), (18, "loop", "continue", "break"),
            (19, "removed", "scale += torch.add(scale, rows) + row.sum(0, keepdim=True)", "pass"),
            (19, "keepdim", "row.sum(0, keepdim=True)", "row.sum(0)"),
            (19, "reduction", "row.sum(0, keepdim=True)", "row.mean(0, keepdim=True)"),
            (20, "detach added", "rows.log()", "rows.log().detach()"),
            (19, "arguments", "torch.add(scale, rows)", "torch.add(rows, scale)"),
            (20, "sign", "-y", "y"), (20, "condition", "not y", "not not y"), (20, "boolean", "not y", "y"),
            (20, "order", "sorted(rows)", "sorted(rows, reverse=True)")]:
        assert expected in there, expected


def test_nothing_is_changed_in_texts_annotations_imports_and_what_is_raised(found):
    assert {m.line for m in found} == {5, 9, 11, 12, 13, 14, 15, 17, 18, 19, 20}
    assert not any("|" in m.before for m in found)  # of types
    assert [m.after for m in found if m.line == 12] == ["pass"]


def test_each_changes_one_place_and_has_a_name_of_its_own(found):
    tree = ast.parse(SOURCE)
    texts = [ast.unparse(mutated(tree, mutant)) for mutant in found]
    assert ast.unparse(tree) == ast.unparse(ast.parse(SOURCE)), "the tree itself stays"
    assert len({m.name for m in found}) == len(found) and ast.unparse(tree) not in texts
    for mutant, text in zip(found, texts):
        compile(mutated(tree, mutant), "m.py", "exec")
        if "..." not in mutant.before + mutant.after:
            assert mutant.after in text or mutant.operator == "slice", mutant


def test_the_lines_of_a_mutant_are_those_of_its_statement(found):
    at = {(m.operator, m.before): m for m in found}
    assert at["constant", "3"].at_import and not at["sign", "-y"].at_import
    assert at["condition", "flip"].lines == (17, 17) and at["default", "0.5"].lines == (10, 20)
    known = touched.Touched(["tests/test_m.py::a", "tests/test_b.py::b", "tests/test_b.py::c", "tests/test_b.py::d"], [2.0, 1.0, 0.5, 99.0],
                            {"m": {13: [0, 1, 2, 3], 17: [1], 18: [2]}}, "")
    assert known.batches(at["condition", "flip"]) == [("tests/test_b.py", ["tests/test_b.py::b"])]
    # named after the module first, then the quick ones; none that takes too long
    assert known.batches(at["detach removed", "x.detach()"]) == [("tests/test_m.py", ["tests/test_m.py::a"]),
                                                                ("tests/test_b.py", ["tests/test_b.py::c", "tests/test_b.py::b"])]
    assert known.of(at["constant", "3"]) == [0, 1, 2, 3]


def test_a_sample_is_in_proportion_in_order_and_the_same_each_time(found):
    everything = {"m": found, "n": found[:5], "o": []}
    some = command.sample(everything, 16, 3)
    assert some == command.sample(everything, 16, 3) != command.sample(everything, 16, 4)
    assert len({id(m) for m in some}) == len(some) == 16
    whole = command.sample(everything, len(found) + 5, 0)
    assert whole == [*found, *found[:5]]


def test_a_child_answers_is_ended_or_dies(tmp_path):
    printed, rng = tmp_path / "out", random.Random(0)
    assert child.in_child(lambda: ["x" * 200_000, rng.random()], printed, 100.0).answer[0] == "x" * 200_000  # more than a pipe holds

    def endless():
        while True:
            pass

    assert child.in_child(endless, printed, 0.0)[:2] == (None, signal.SIGXCPU)
    assert child.in_child(lambda: time.sleep(100), printed, 100.0, wall_s=0.1)[:2] == (None, signal.SIGKILL)
    assert child.in_child(lambda: 1 / 0, printed, 100.0)[:2] == (None, 0) and "ZeroDivisionError" in printed.read_text()
    assert child.in_child(lambda: os.kill(os.getpid(), signal.SIGTERM), printed, 100.0).signal == signal.SIGTERM


def test_a_mutant_is_met_by_tests_in_a_process_of_its_own_and_the_disk_stays(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    source = "def twice(x):\n    return 2 * x\n"
    (tmp_path / "doubling.py").write_text(source)
    (tmp_path / "test_doubling.py").write_text("from doubling import twice\n\n\ndef test_a():\n    assert twice(0) == 0\n\n\n"
                                               "def test_b():\n    assert twice(3) == 6\n")
    monkeypatch.setattr(child, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def failure(operator, tests):
        (one, *_) = [m for m in mutants(tmp_path / "doubling.py", "doubling") if m.operator == operator]

        def run():
            child.replace_modules({"doubling": mutated(ast.parse(source), one)})
            return child.first_failure([("test_doubling.py", [f"test_doubling.py::{name}" for name in tests])])

        return child.in_child(run, tmp_path / "out", 100.0).answer

    assert failure("arithmetic", ["test_a", "test_b"]) == "test_doubling.py::test_a"  # 2 / 0
    assert failure("constant", ["test_a", "test_b"]) == failure("constant", ["test_b", "test_a"]) == "test_doubling.py::test_b"
    assert failure("constant", ["test_a"]) == ""
    assert failure("constant", ["test_c"]) is None and "1 tests were chosen, and 0 found" in (tmp_path / "out").read_text()
    assert (tmp_path / "doubling.py").read_text() == source and "doubling" not in sys.modules


ROWS = [{"name": "supernet.space:Space.f:constant: 1 -> 2", "room": "space", "line": 7, "outcome": "killed", "by": "tests/test_space.py"},
        {"name": "supernet.space:Space.f:sign: -x -> x #1", "room": "space", "line": 9, "outcome": "survived", "by": "",
         "judged": {"equivalent": True, "reason": "x is 0 here"}},
        {"name": "supernet.weights::removed: a() -> pass", "room": "weights", "line": 3, "outcome": "survived", "by": ""}]


def test_what_is_said_of_a_result():
    result = {"mutants": ROWS, "candidates": 99, "seed": 0, "before": {"space": [0, 2], "weights": [0, 1]}}
    assert mutation.scores(ROWS) == {"space": [1, 2], "weights": [0, 1]}
    ((what, came_out),) = mutation.figures(result)
    assert what.startswith("3 mutants") and came_out.startswith("1 killed, 33.3 % (6.1 to 79.2)")
    assert "without 1 that compute the same 50.0 %" in came_out
    head, cells = mutation.table(result)
    assert head == ("room", "mutants", "killed before", "killed", "compute the same", "share (95 %)")
    assert [row[:5] for row in cells] == [("space", "2", "0", "1", "1"), ("weights", "1", "0", "0", "0"), ("all", "3", "0", "1", "1")]
    assert mutation.notes(result) == ["supernet.space, line 9, sign: `-x -> x #1`: x is 0 here",
                                      "supernet.weights, line 3, removed: `a() -> pass`: not judged yet"]


def test_the_core_is_there_and_every_test_file_that_meets_it():
    rooms = command.modules()
    assert set(rooms.values()) == set(command.ROOMS) and len(rooms) > 40
    assert all((child.ROOT / "tests" / f"test_{name}.py").exists() for name in touched.TESTS)


@pytest.mark.parametrize("words, message", [
    (["--number", "0"], "--number must be 1 to 10,000, got 0"), (["--workers", "0"], "--workers must be 1 to 64, got 0"),
    (["--module", "nothing"], "no module of the core has 'nothing' in its name; there are supernet.relaxations."),
    (["--operator", "nothing"], "no change of a kind 'nothing'"), (["--earlier", "none.json"], "--earlier: cannot read none.json"),
])
def test_wrong_words_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]
