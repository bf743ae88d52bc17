"""The table of `make coverage`."""

import json

import pytest

from benchmarks import covered


def file(statements, lines, branches, jumps, missing_lines=(), missing_branches=()):
    summary = {"num_statements": statements, "covered_lines": lines, "num_branches": branches, "covered_branches": jumps}
    return {"summary": summary, "missing_lines": list(missing_lines), "missing_branches": [list(pair) for pair in missing_branches]}


REPORT = {"files": {"supernet/costs/base.py": file(10, 7, 4, 2, [3, 4, 9], [(3, 4), (6, -1)]), "supernet/costs/a.py": file(5, 5, 0, 0),
                    "supernet/space.py": file(20, 19, 10, 10, [8]), "ops/conv.py": file(10, 10, 2, 1, [], [(5, 8)]),
                    "supernet/__init__.py": file(0, 0, 0, 0)}}


def test_rooms_are_sums_of_their_files_and_the_share_counts_lines_and_branches():
    found = covered.rooms(REPORT)
    assert list(found) == ["__init__", "costs", "ops", "space"]
    assert found["costs"] == {"num_statements": 15, "covered_lines": 12, "num_branches": 4, "covered_branches": 2}
    assert covered.share(found["costs"]) == pytest.approx(100 * 14 / 19) and covered.share(found["__init__"]) == 100
    assert covered.share(covered.total(found)) == pytest.approx(100 * 54 / 61)


def test_what_no_test_reaches_is_told_by_file_the_most_first():
    assert covered.unreached(REPORT) == ["supernet/costs/base.py: 3-4, 9; branches 6 to the end",  # from line 3 nothing goes on
                                         "ops/conv.py: branches 5 to 8", "supernet/space.py: 8"]


def test_the_command_ends_below_its_floor_and_its_result_is_told(tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps(REPORT))
    words = [str(tmp_path / "c.json"), "--json", str(tmp_path / "out.json")]
    covered.main([*words, "--floor", "88"])
    assert "88.5 %" in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(SystemExit, match="88.52 % of lines and branches are reached, and 95 % is the floor"):
        covered.main(words)
    result = json.loads((tmp_path / "out.json").read_text())
    assert covered.figures(result)[0][1] == "88.5 %: 91.1 % of 45 lines, 81.2 % of 16 branches"
    assert covered.table(result)[1][-1] == ("all", "45", "4", "16", "3", "88.5 %")


def test_what_is_no_report_is_one_line(tmp_path, capsys):
    for text in ("[]", "{", "{}"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(SystemExit):
            covered.main([str(tmp_path / "c.json")])
        assert "expected what `coverage json` writes" in capsys.readouterr().err.splitlines()[-1]
