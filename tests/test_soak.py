"""`python -m benchmarks.soak`: a few of its cases, and what is made of their results. The whole of it takes half an hour."""

import json

import pytest

from benchmarks import soak
from benchmarks.report import module
from benchmarks.soak.__main__ import JUDGED, main
from benchmarks.soak.cases import Case, Kept


def test_a_case_is_kept_as_soon_as_it_is_known_and_made_once(tmp_path, capsys):
    path = tmp_path / "soak.json"
    made = []

    def make():
        made.append(1)
        return Case("survived", "after epoch 1")

    for _ in range(2):
        assert Kept(path, "python -m benchmarks.soak", dict).case("kill", "search 0", make) == Case("survived", "after epoch 1")
    assert len(made) == 1 and json.loads(path.read_text())["parts"]["kill"]["search 0"]["outcome"] == "survived"
    (tmp_path / "other.json").write_text('{"benchmark": "export"}')
    with pytest.raises(ValueError, match="is no file of this benchmark"):
        Kept(tmp_path / "other.json", "", dict)


def test_figures_count_every_outcome_and_a_wrong_one_is_told():
    cases = [("search 0", "survived"), ("search 1", "wrong"), ("final training 0", "lost")]
    result = {"benchmark": "soak", "parts": {"kill": {name: {"outcome": outcome, "said": ""} for name, outcome in cases}}}
    assert module(result) is soak
    assert soak.figures(result) == [(soak.PARTS["kill"], "3 tried: 1 survived, 0 refused with a line, 1 lost, 1 silently wrong")]
    head, rows = soak.table(result)
    assert head[2:] == ["tried", "survived", "refused with a line", "lost", "silently wrong"]
    assert rows == [["kill", "search", "2", "1", "0", "0", "1"], ["kill", "final training", "1", "0", "0", "1", "0"]]
    assert soak.PARTS.keys() == JUDGED.keys()


def test_what_is_measured_is_a_figure_too():
    seen = {"steps": [500, 2500, 5000], "memory_mib": [100.0, 100.25, 100.5], "descriptors": [4, 4, 5], "threads": [1, 1, 1],
            "journal_bytes": [5000, 25_000, 50_000]}
    (figure,) = soak.figures({"parts": {"memory": {"a search": seen}}})
    assert figure == ("memory of 5,000 steps, a search", "100.0, 100.2, 100.5 MiB at 500, 2,500, 5,000; 4 5 file descriptors, 1 thread(s); "
                      "journals 10 bytes a step")


@pytest.mark.parametrize(("words", "told"), [(["--parts", "kill,kil"], "--parts must be some of"), (["--most", "0"], "--most must be")])
def test_a_wrong_word_is_told_before_any_work(words, told, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "soak.json")])
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("part", "most"), [("kill", 3), ("stop", 3), ("bit", 27), ("cut", 9), ("room", 1), ("together", 1)])
def test_a_small_soak_loses_nothing_and_nothing_is_silently_wrong(tmp_path, part, most):
    path = tmp_path / "soak.json"
    assert main(["--parts", part, "--most", str(most), "--out", str(path)]) == 0, path.read_text()
    assert {case["outcome"] for case in json.loads(path.read_text())["parts"][part].values()} <= {"survived", "told"}
