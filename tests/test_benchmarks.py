import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import search_step
from tests import backends, reference

TOY = ["--cells", "3", "--channels", "4", "--batch", "4", "--image-size", "8", "--rounds", "1"]


def test_search_step_writes_what_it_measures(tmp_path, capsys):
    path = tmp_path / "result.json"
    search_step.main([*TOY, "--threads", str(torch.get_num_threads()), "--only", "alpha", "--backend", "plain", "--json", str(path)])
    result = json.loads(path.read_text())
    assert set(result) == {"sizes", "parameters", "backends", "rounds", "environment", "losses", "steps"}
    assert result["sizes"] == {"cells": 3, "channels": 4, "batch": 4, "image_size": 8}
    assert result["environment"]["threads"] == torch.get_num_threads()
    assert result["losses"]["plain"] == pytest.approx(result["losses"]["reference"], rel=1e-4)
    assert list(result["steps"]) == ["alpha"]
    for step in result["steps"].values():
        assert set(step["plain"].pop("ratio")) == {"wall", "cpu", "memory"}
        for side in ("reference", "plain"):
            assert set(step[side]) == {"wall_s", "cpu_s", "peak_bytes", "rounds"}
            assert step[side]["rounds"]["wall_s"] == [step[side]["wall_s"]]
    printed = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in printed[1:]] == [["alpha", "reference"], ["alpha", "plain"]]


@pytest.mark.parametrize("backend", ["plain", "native"])
def test_both_sides_take_the_same_steps(backend):
    """Every kind of step in float64: the alphas' gradients, then the weights."""
    with backends.using(backend):
        pass
    sides = search_step.make_sides(search_step.Sizes(3, 2, 4, 8), torch.device("cpu"), torch.float64, (backend,))
    ours, published = sides[backend], sides["reference"]
    for step, tolerance in (("w", 1e-9), ("alpha", 1e-9), ("second", 1e-6)):
        for side in sides.values():
            side.steps[step]()
        if step != "w":
            for mine, theirs in zip(ours.alpha, published.alpha, strict=True):
                reference.close(mine.grad, theirs.grad, tolerance)
        for mine, theirs in reference.parameters_side_by_side(ours.net, published.net):
            reference.close(mine, theirs, 1e-9)


def test_different_losses_stop_the_benchmark():
    sides = search_step.make_sides(search_step.Sizes(3, 2, 2, 8), torch.device("cpu"))
    with torch.no_grad():
        sides["plain"].net.classifier.bias[0] += 1
    with pytest.raises(RuntimeError, match="train losses must agree to 0.0001"):
        search_step.check_losses(sides)


def test_outside_the_repository_root_one_line_says_where_to_run_it(tmp_path):
    script = Path(search_step.__file__)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "run from the repository root" in done.stderr


@pytest.mark.parametrize("options, message", [(["--only", "w,beta"], "must be some of w,alpha,second, got 'w,beta'"),
                                              (["--rounds", "0"], "--rounds must be at least 1, got 0"),
                                              (["--device", "tpu"], "device must be auto, cpu, cuda or cuda:N")])
def test_wrong_options_are_named(options, message, capsys):
    with pytest.raises(SystemExit):
        search_step.main(options)
    assert message in capsys.readouterr().err
