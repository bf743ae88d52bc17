import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import compare, final, prepared, processes, scaling, search_step, shared_weights, sides, startup
from benchmarks.counting import kernels, launches_of
from ops.kernels import Backend
from tests import reference

CPU, THREADS = torch.device("cpu"), str(torch.get_num_threads())
TOY = ["--cells", "3", "--channels", "4", "--batch", "4", "--image-size", "8", "--rounds", "1"]


def test_search_step_writes_what_it_measures(tmp_path, capsys):
    path = tmp_path / "result.json"
    search_step.main([*TOY, "--threads", THREADS, "--only", "alpha", "--json", str(path)])
    result = json.loads(path.read_text())
    assert result["benchmark"] == "search_step" and "--json" not in result["command"] and str(tmp_path) not in result["command"]
    assert result["sizes"] == {"cells": 3, "channels": 4, "batch": 4, "image_size": 8}
    assert result["environment"]["threads"] == torch.get_num_threads()
    assert result["losses"]["ours"] == pytest.approx(result["losses"]["reference"], rel=1e-4)
    assert list(result["steps"]) == ["alpha"]
    for step in result["steps"].values():
        assert set(step["ratio"]) == {"wall", "cpu", "memory", "kernels"}
        shares = [op["share"] for op in step["hottest"]]
        assert len(shares) == 8 and shares == sorted(shares, reverse=True) and 0.2 < sum(shares) <= 1
        for side in compare.SIDES:
            assert set(step[side]) == {"wall_s", "cpu_s", "peak_bytes", "kernels", "rounds"}
            assert step[side]["rounds"]["wall_s"] == [step[side]["wall_s"]]
    printed = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in printed[2:]] == ["alpha"]


def test_the_kernels_are_those_of_the_device(monkeypatch):
    asked = []
    monkeypatch.setattr(compare, "resolve_device", torch.device)
    monkeypatch.setattr(compare, "prepare", lambda *args, **options: None)
    monkeypatch.setattr(compare.kernels, "use", lambda backend, **options: (asked.append((backend, options)), Backend("triton", ""))[1])
    parser = compare.parser_for("", rounds=1)
    options = parser.parse_args(["--device", "cuda:1", "--backend", "native"])
    assert compare.prepared(parser, options) == torch.device("cuda:1")
    assert asked == [("native", {"device": "cuda"})] and options.backend == "triton"


@pytest.mark.parametrize("space, method, cells", [("darts", "softmax", 3), ("darts", "pc_darts", 3), ("nasbench201", "softmax", 5),
                                                  ("s1", "softmax", 3)])
def test_both_sides_take_the_same_steps(space, method, cells):
    """Every kind of step in float64: the alphas' gradients, then the weights."""
    channels = 4 if method == "pc_darts" else 2
    made = sides.make_sides(sides.Sizes(cells, channels, 4, 8), CPU, torch.float64, space=space, method=method)
    take_the_same_steps(made, lambda: reference.parameters_side_by_side(made["ours"].net, made["reference"].net))


@pytest.mark.parametrize("space, cells", [("nasbench_macro", 8), ("layerwise", 6)])
def test_where_there_is_no_published_network_the_other_side_is_ours_op_by_op(space, cells):
    made = sides.make_sides(sides.Sizes(cells, 2, 4, 8), CPU, torch.float64, space=space)
    take_the_same_steps(made, lambda: zip(made["ours"].net.parameters(), made["reference"].net.parameters(), strict=True))


def take_the_same_steps(made, weights):
    ours, published = made["ours"], made["reference"]
    for step, tolerance in (("w", 1e-9), ("alpha", 1e-9), ("second", 1e-6)):
        for side in made.values():
            side.steps[step]()
        if step != "w":
            for mine, theirs in zip(ours.alpha, published.alpha, strict=True):
                reference.close(mine.grad, theirs.grad, tolerance)
        for mine, theirs in weights():
            reference.close(mine, theirs, 1e-9)


def test_gdas_is_compared_with_our_softmax_step():
    made = sides.make_sides(sides.Sizes(3, 2, 4, 8), CPU, method="gdas")
    assert type(made["ours"].net) is type(made["reference"].net)
    run = {name: kernels(side.steps["w"]) for name, side in made.items()}
    assert run["ours"]["convolution"] < 0.5 * run["reference"]["convolution"]


def test_both_final_networks_take_the_same_steps():
    """Drop path and the auxiliary head included: the same generator draws the same masks."""
    made = final.make_sides("darts_v2", sides.Sizes(3, 4, 4, 32), CPU, torch.float64)
    losses = compare.check_losses(made)
    assert losses["ours"]["train"] == pytest.approx(losses["reference"]["train"], rel=1e-12)
    final.set_drop_path(made, 0.5)
    for _ in range(3):
        for side in made.values():
            side.steps["train"]()
        for mine, theirs in reference.parameters_side_by_side(made["ours"].net, made["reference"].net):
            reference.close(mine, theirs, 1e-9)


def test_different_losses_stop_the_benchmark():
    made = sides.make_sides(sides.Sizes(3, 2, 2, 8), CPU)
    with torch.no_grad():
        made["ours"].net.classifier.bias[0] += 1
    with pytest.raises(RuntimeError, match="train losses must agree to 0.0001"):
        compare.check_losses(made)


def test_a_final_step_is_measured(tmp_path):
    path = tmp_path / "result.json"
    final.main(["--cells", "3", "--channels", "4", "--batch", "2", "--rounds", "1", "--threads", THREADS, "--json", str(path)])
    result = json.loads(path.read_text())
    assert result["genotype"] == "darts_v2" and result["steps"]["train"]["ratio"]["kernels"] > 1
    (what, came_out), = final.figures(result)
    assert "darts_v2" in what and "% of the memory" in came_out


@pytest.mark.parametrize("space", ["nasbench201", "nasbench_macro"])
def test_shared_weights_are_measured_where_all_sides_agree(space, tmp_path, capsys):
    path = tmp_path / "result.json"
    shared_weights.main(["--space", space, "--cells", "3", "--channels", "2", "--batch", "2", "--calibration", "1",
                         "--batches", "1", "--architectures", "2", "--rounds", "1", "--threads", THREADS, "--json", str(path)])
    result = json.loads(path.read_text())
    assert result["ours"]["architectures_per_s"] > 0 and result["ratio"]["cpu"] > 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ours", "one", "reference", "architectures"]
    assert (result["chain"]["steps"] > result["chain"]["different"]) == (space == "nasbench_macro")


def test_exponents_are_those_of_a_power():
    assert scaling.exponent((2, 4, 8), (3 * 2**1.5, 3 * 4**1.5, 3 * 8**1.5)) == pytest.approx(1.5)
    base = scaling.Point()
    lines = {"batch": (4, 8), "layers": (3, 6)}
    assert scaling.points(base, lines) == [scaling.Point(batch=4), base, scaling.Point(layers=3)]

    def point(at):
        numbers = {key: at.batch * at.layers**2 for key in ("wall_s", "cpu_s", "peak_bytes", "kernels")}
        return vars(at) | {"steps": {step: dict.fromkeys(compare.SIDES, numbers) for step in scaling.STEPS_HERE}}

    found = scaling.exponents([point(at) for at in scaling.points(base, lines)], base, lines)
    assert found["batch"]["w"]["ours"]["cpu"] == pytest.approx(1) and found["layers"]["alpha"]["reference"]["memory"] == pytest.approx(2)


def test_a_point_of_the_scaling_is_measured_with_its_nodes_and_ops():
    few, many = (scaling.measure_point(scaling.Point(2, 2, nodes, ops, 3), 1, CPU, image_size=8) for nodes, ops in ((1, 2), (2, 4)))
    assert many["nodes"] == 2 and many["ops"] == 4
    assert few["steps"]["w"]["ours"]["kernels"] < many["steps"]["w"]["ours"]["kernels"]


@pytest.mark.slow
def test_the_way_to_the_first_step_is_told_by_phase_and_needs_nothing_heavy():
    done = subprocess.run([sys.executable, "-m", "benchmarks.startup", startup.CHILD, "threads=1"], cwd=startup.ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["phases"])[-2:] == ["first step", "second step"] and all(spent["cpu_s"] > 0 for spent in found["phases"].values())
    assert not {"matplotlib", "torchvision", "wandb", "torch._dynamo"} & set(found["unasked"])


def test_start_up_is_told_by_package():
    assert startup.seconds(["-c", "pass"])[0] > 0
    found = startup.imports("import decimal")
    assert found["decimal" if "decimal" in found else "others"] > 0


@pytest.mark.slow
def test_start_up_is_told_by_phase_and_asks_for_nothing_heavy():
    """Neither Matplotlib nor torchvision, W&B or PIL before the first step."""
    child = [sys.executable, "-m", "benchmarks.startup", startup.CHILD, "threads=1", "layers=3", "channels=2", "batch_size=2"]
    done = subprocess.run(child, cwd=startup.ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert list(result["phases"])[-2:] == ["first step", "second step"] and result["unasked"] == []


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


def test_launches_of_lists_are_what_pytorch_cuts_them_into():
    """By hand: 110 tensors a launch of one list, 64 of two, 48 of three; 320 pieces of 65,536 numbers; norms begin and end with another."""
    small, large = [torch.ones(2)] * 221, [torch.empty(65_536 * 321, device="meta")]
    assert launches_of("_foreach_mul_", (small, 0.9)) == 3 and launches_of("_foreach_add_", (small, small)) == 4
    assert launches_of("_foreach_add", (small, small)) == 5 and launches_of("_fused_sgd_", (small, small, small)) == 5
    assert launches_of("_fused_sgd_", (small, small, [])) == 4 and launches_of("_foreach_mul_", (large, 0.9)) == 2
    assert launches_of("_foreach_norm", (small,)) == 3 + 2 and launches_of("cat", (small,)) == 2
    assert launches_of("convolution", (torch.ones(2), torch.ones(2), None, [1, 1])) == 1


def test_what_prepared_choices_save_is_written_as_it_is_counted(tmp_path, capsys):
    path, tiny = tmp_path / "result.json", {"nasbench201": sides.Sizes(5, 4, 2, 8)}
    pytest.importorskip("triton", reason="its launches are counted")
    prepared.main(["--rounds", "1", "--json", str(path)], tiny)
    result = json.loads(path.read_text())
    rows = {(row["part"], row["case"]): row for row in result["rows"]}
    assert len(rows) == 3 + 1 + 1 + 1 == len(capsys.readouterr().out.splitlines())
    for row in rows.values():
        if row["part"] in ("images", "checkpointed"):
            assert row["after"]["launches"] < row["before"]["launches"]
        if row["part"] == "update":
            assert row["after"]["launches"] < row["before"]["launches"] < row["before"]["step"]["launches"]
            assert (row["tensors"] < row["parameters"]) == ("gdas" in row["case"])
    few = rows["sampled", "nasbench201, GDAS"]["replayed"]
    assert [step["64"] for step in few] == sorted(step["64"] for step in few) and few[0]["64"] < 0.05 and few[-1]["1024"] > 0.9
    assert len(prepared.table(result)[1]) == len(rows) and len(prepared.figures(result)) == 1


def test_a_draw_is_taken_by_a_graph_once_its_ops_were_drawn_often_enough():
    assert prepared.replayed([2], 1.0, 4) == 1 - (prepared.WARM_UP + prepared.EPOCHS - 1) / (prepared.EPOCHS * prepared.STEPS)


def test_what_two_processes_came_to_is_told_part_by_part_and_what_was_not_measured_is_left_out(capsys):
    kill = {"killed": 1, "after_s": 0.5, "ended_s": 0.25, "code": 2, "said": "error: lost", "same_bits": True}
    result = {"environment": {"device": "cpu", "threads": 1}, "batch": 16, "differences": {"softmax": 2e-15, "gdas": 1e-16},
              "steps": None, "search": None, "kills": [kill, kill | {"ended_s": 0.75, "same_bits": False}]}
    (_, largest), (what, came_out) = processes.figures(result)
    assert largest == "2e-15 (softmax 2e-15, GDAS 1e-16)"
    assert what == "one of two processes killed, 2 times"
    assert came_out == "the other has ended within 0.75 s (median 0.50 s); 1 went on to the same bits"
    assert processes.table(result)[1] == [] and processes.notes(result) == [
        "Process 1 killed, 2 times; the other ended with 2 and said: error: lost."]
    with pytest.raises(SystemExit):
        processes.main(["--only", "stepps"])
    assert "--only must be some of differences,steps,search,kills, got 'stepps'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_is_measured():
    (kill,) = processes.kills(1)
    assert kill["same_bits"] and kill["code"] == 2 and 0 <= kill["ended_s"] < 120
