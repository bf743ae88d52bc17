import json

import pytest

from benchmarks import report


def test_the_readmes_say_what_the_committed_results_say():
    found = report.results()
    assert found
    for path, make in report.BLOCKS.items():
        text = path.read_text()
        assert report.replaced(text, make(found)) == text, "run python -m benchmarks.report"


def test_every_result_that_names_its_benchmark_is_told_in_both(tmp_path):
    found = report.results()
    for name, result in found.items():
        assert result["command"].startswith(f"python -m benchmarks.{result['benchmark']}")
        assert f"`benchmarks/results/{name}`" in report.summary(found) and f"## results/{name}" in report.details(found)
    (tmp_path / "old.json").write_text(json.dumps({"rounds": 1}))
    assert report.results(tmp_path) == {}


def test_only_what_stands_between_the_marks_changes():
    text = f"before\n{report.BEGIN}\n\nold\n\n{report.END}\nafter\n"
    assert report.replaced(text, "| new |") == f"before\n{report.BEGIN}\n\n| new |\n\n{report.END}\nafter\n"
    for wrong in ("no marks", report.BEGIN, f"{report.END}{report.BEGIN}", f"{text}{report.BEGIN}"):
        with pytest.raises(ValueError, match="expected one"):
            report.replaced(wrong, "")


def test_a_stale_block_is_written_or_told(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.BEGIN}\nold\n{report.END}\n")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "BLOCKS", {readme: lambda found: "figures"})
    with pytest.raises(SystemExit, match="README.md: not what benchmarks/results says"):
        report.main(["--check"])
    assert "old" in readme.read_text()
    report.main([])
    assert readme.read_text() == f"{report.BEGIN}\n\nfigures\n\n{report.END}\n" and "written: README.md" in capsys.readouterr().err
    report.main(["--check"])
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="README.md: expected one"):
        report.main([])


def test_a_figure_names_its_sizes_and_its_clock():
    result = {"benchmark": "search_step", "environment": {"device": "cuda", "gpu": "A GPU", "threads": 1}, "space": "s1",
              "relaxation": "softmax", "backend": "plain", "reference": "edge by edge", "sizes": {"cells": 8, "channels": 16, "batch": 4},
              "steps": {"w": {"ours": {"kernels": 1000}, "reference": {"kernels": 4000},
                              "ratio": {"wall": 5.0, "cpu": 3.0, "memory": 2.0, "kernels": 4.0}}}}
    ((what, came_out),) = report.module(result).figures(result)
    assert what == "search step, s1, plain backend, against edge by edge (8 cells, C=16, batch 4, A GPU)"
    assert came_out == "weight step 5.00x, 50 % of the memory, 1,000 of 4,000 kernels"
    ((_, came_out),) = report.module(result).figures(result | {"backend": "native"})
    assert came_out == "weight step 5.00x, 50 % of the memory, 1,000 of 4,000 kernels dispatched by PyTorch"
