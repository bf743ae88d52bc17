"""`python -m benchmarks.gpu` without a GPU: every part as the stand-in runs it, and the conductor with parts that do what they must not."""

import dataclasses
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import (
    batches,
    card,
    checkpoints,
    checks,
    compiling,
    conductor,
    determinism,
    fast,
    final,
    graphs,
    kernels,
    loading,
    marked,
    networks,
    page,
    presets,
    searches,
    speed,
    travel,
    truth,
    where,
)
from benchmarks.gpu.checks import Bench, Failed, Report, Skipped, TimeIsUp
from benchmarks.gpu.conductor import Conductor, conduct, with_verdict
from benchmarks.gpu.parts import PARTS, Part
from benchmarks.gpu.variants import BY_NAME, PLAIN, VARIANTS, Variant
from supernet.data.base import DataError
from supernet.errors import UsageError
from supernet.relaxations.base import Relaxation
from supernet.runs import checkpoint_writer
from supernet.runs.journal import Journal
from tests.shared import NB201

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def bench_in(folder: Path, seconds: float = 600.0, data: Path | None = None) -> Bench:
    return Bench("cpu", True, folder, data, Journal(folder / "gpu.jsonl"), time.monotonic() + seconds)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return bench_in(tmp_path)


def records(bench: Bench) -> list[dict]:
    return list(Journal.readable(bench.journal.path))


# ---- the conductor


def conductor_in(folder: Path) -> Conductor:
    """Its parts are those of `parts_of_a_stand_in`, outside `tests`, whose processes would wait for PyTorch."""
    (folder / "misbehaving").mkdir()
    shutil.copy(ROOT / "tests" / "parts_of_a_stand_in.py", folder / "misbehaving" / "parts.py")
    return Conductor(folder, folder, "cpu", True, None, (str(folder),), closing_s=0.5)


@pytest.fixture(scope="module")
def misbehaved(tmp_path_factory):
    """A run of parts that raise, hang, die, lose their device, are late, or need what is not here."""
    folder = tmp_path_factory.mktemp("misbehaved")
    made = conductor_in(folder)
    made.journal.append({"kind": "machine", "stand_in": True})

    def part(name, **limits):
        return Part(name, "parts", "", package="misbehaving", **{"limit_s": 300.0, "least_s": 1.0} | limits)

    own = [part("all", stall_s=5.0), part("broken"), part("slow", limit_s=8.0), part("not here"), part("never", least_s=1e6)]
    printed = []
    verdicts = conduct(made, own, 480.0, set(), say=printed.append)
    return folder, verdicts, printed


def test_a_part_goes_on_past_checks_that_raise_hang_die_and_lose_the_device(misbehaved):
    folder, verdicts, printed = misbehaved
    found = {r["check"]: r for r in Journal.read(folder / "gpu.jsonl") if r.get("kind") == "check" and r["part"] == "all"}
    assert {name: r["verdict"] for name, r in found.items()} == {
        "good": "passed", "raises": "failed", "failed": "failed", "skipped": "skipped", "hangs": "failed", "dies": "failed",
        "gone": "failed", "last": "passed"}
    assert found["good"]["values"] == {"number": 1.5, "endless": None}
    assert "ZeroDivisionError: of a check" in found["raises"]["error"] and str(ROOT) not in found["raises"]["error"]
    assert found["failed"]["values"] == {"off": 3} and found["skipped"]["error"] == "not installed"
    assert "hung" in found["hangs"]["error"] and "SIGKILL" in found["dies"]["error"]
    assert verdicts["all"] == "failed" and printed[0].split()[:2] == ["all", "failed"]


def test_where_a_part_hangs_is_in_the_log_and_its_children_end_with_it(misbehaved):
    folder, _, _ = misbehaved
    assert "in hangs" in (folder / "gpu.log").read_text()
    child = int((folder / "child").read_text())
    assert not Path(f"/proc/{child}").exists() or Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_parts_without_an_end_are_told_apart(misbehaved):
    folder, verdicts, printed = misbehaved
    assert {name: verdicts[name] for name in ("broken", "slow", "not here", "never")} == {
        "broken": "error", "slow": "cut", "not here": "skipped", "never": "no time"}
    last = {r["part"]: r for r in Journal.read(folder / "gpu.jsonl") if r["kind"] == "verdict"}
    assert "this part has no checks" in last["broken"]["why"] and last["not here"]["why"] == "it needs what is not here"
    assert last["slow"]["checks"]["passed"] >= 1 and last["slow"]["seconds"] < 30
    assert with_verdict(Journal.read(folder / "gpu.jsonl")) == {"all", "broken", "not here"}
    assert len(printed) == 5


def test_what_has_a_result_is_not_done_again(misbehaved, tmp_path):
    """The same parts anew: the one that was cut goes on behind its last check, one with a verdict does not start."""
    folder, _, _ = misbehaved
    (tmp_path / "gpu.jsonl").write_bytes((folder / "gpu.jsonl").read_bytes())
    made = conductor_in(tmp_path)
    part = Part("slow", "parts", "", limit_s=6.0, least_s=1.0, package="misbehaving")
    before = [r["check"] for r in made.records() if conductor.is_result(r, "slow")]
    conduct(made, [part, Part("broken", "parts", "", limit_s=9.0, package="misbehaving")], 480.0, {"broken"}, say=lambda line: None)
    after = [r["check"] for r in made.records() if conductor.is_result(r, "slow")]
    assert len(after) > len(before) and len(set(after)) == len(after)
    assert sum(r.get("kind") == "verdict" and r["part"] == "broken" for r in made.records()) == 1


def test_limits_are_shares_of_the_minutes_and_of_what_is_left():
    by_name = {part.name: part for part in PARTS}
    assert by_name["kernels"].limit(480, 480) == by_name["kernels"].limit_s
    assert by_name["kernels"].limit(240, 240) == by_name["kernels"].limit_s / 2 and by_name["kernels"].limit(480, 7) == 7
    assert by_name["nasbench201"].limit(480, 100) == 60 and by_name["cifar10"].limit(480, 40) == 40
    assert len(PARTS) <= 14 and sum(part.limit_s for part in PARTS) <= 480


def test_a_line_that_a_kill_cut_off_stands_alone(tmp_path):
    made = Conductor(tmp_path, tmp_path, "cpu", True, None, ())
    made.journal.append({"kind": "machine"})
    with open(made.journal.path, "ab") as file:
        file.write(b'{"kind": "che')
    made.end_last_line()
    made.journal.append({"kind": "end"})
    assert [r["kind"] for r in made.records()] == ["machine", "end"]


def test_the_worker_ends_with_its_conductor(tmp_path):
    """Killed, it can tell nobody."""
    conductor_in(tmp_path)
    code = ("import time; from benchmarks.gpu.conductor import Conductor; from benchmarks.gpu.parts import Part; from pathlib import Path; "
            f"p = Path({str(tmp_path)!r}); c = Conductor(p, p, 'cpu', True, None, (str(p),)); "
            "print(c.started(Part('slow', 'parts', '', package='misbehaving')).pid, flush=True); time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        worker = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.1)


# ---- checks


def test_a_check_is_begun_ended_and_not_repeated(bench):
    report = Report(bench, "p", ["done before"])
    seen = []
    report.each([checks.Check("done before", lambda: seen.append(1)), checks.Check("new", lambda: seen.append(2))])
    assert seen == [2] and [(r["kind"], r["check"]) for r in records(bench)] == [("begun", "new"), ("check", "new")]


def test_no_check_begins_when_time_is_up(tmp_path):
    bench = bench_in(tmp_path, seconds=-1.0)
    with pytest.raises(TimeIsUp):
        Report(bench, "p", []).each([checks.Check("new", dict)])
    assert not bench.journal.path.exists()


# ---- every part, as the stand-in runs it


def first(found, count=1, matching=""):
    """Runs the first checks of a part: their values."""
    chosen = [check for check in found if matching in check.name][:count]
    assert chosen
    return [check.run() for check in chosen]


def test_kernels(bench):
    pytest.importorskip("triton", reason="the kernels need Triton")
    from ops.kernels import triton_kernels as fused

    found = list(kernels.checks(bench, fused))
    for matching in ("mix of 2 parts of 5 channels, float32", "3 channels of 5x4, bf16", "far from zero", "ties", "2^31"):
        first(found, matching=matching)
    (values,) = first(found, matching="norm by_batch, channels_last, bf16")
    assert 0 < values["forward"] < 2e-2 and values["plain forward"] > 0


def test_every_case_of_the_kernels_is_one_that_plain_pytorch_can_do():
    """Those of a card too, whose channels are 1 to 129; two of the same name would be taken for one."""
    found = kernels.cases(toy=False)
    names = [case.name for case in found]
    assert len(set(names)) == len(names) > 35
    channels = {case.shapes[0][1] for case in found}
    assert {1, 16, 129} <= channels and {case.layout for case in found} == {"channels_last", "contiguous", "sliced", "transposed"}
    for case in found:
        leaves = kernels.leaves_of(case, CPU)
        out, gradients = kernels.computed(kernels.plain, case, leaves, False)
        assert all(torch.isfinite(t).all() for t in (*out, *gradients))


def test_a_kernel_that_is_wrong_is_found(bench):
    class Wrong:
        def __getattr__(self, name):
            return lambda *args, **options: getattr(kernels.plain, name)(*args, **options) * 1.001

    with pytest.raises(Failed, match="forward is off by 0.001 of the largest entry") as error:
        kernels.against_plain(bench, Wrong(), kernels.pool(3, 1, 2, 4, 4), "float32")
    assert error.value.values["forward"] == pytest.approx(1e-3, rel=1e-3)


def test_networks(bench):
    values = first(networks.checks(bench), 4)
    assert all(0 < v["plain float32"]["w"] < 1e-3 for v in values)
    bf16 = values[3]
    assert bf16["off"]["w"] > 10 * values[0]["off"]["w"] and bf16["cosine"]["alpha"] > 0.9


def test_a_network_that_computes_something_else_is_found(bench):
    wrong = Variant("wrong", "", change=lambda search: search.net.classifier.weight.data.mul_(1.01))
    with pytest.raises(Failed, match="is off by"):
        networks.compare(bench, searches.CASES[0], wrong, {})


def test_graphs(bench):
    found = list(graphs.checks(bench))
    first(found, matching="second order, plain")
    with pytest.raises(Skipped, match="compile=graph cannot hold GumbelHard"):
        first(found, matching="gumbel, plain")


def test_a_graph_that_forgets_to_move_is_found(bench, monkeypatch):
    monkeypatch.setattr(card.StandInGraph, "replay", lambda self: None)
    with pytest.raises(Failed, match="after 5 steps the loss differs|after 5 steps the w differs"):
        first(graphs.checks(bench))


def test_every_relaxation_that_claims_it_is_captured():
    """A new one belongs into `graphs.SEARCHES`."""
    from supernet import relaxations

    modules = [importlib.import_module(f"supernet.relaxations.{m.name}") for m in pkgutil.iter_modules(relaxations.__path__)]
    classes = {c for m in modules for c in vars(m).values() if isinstance(c, type) and issubclass(c, Relaxation)}
    claiming = {c.__name__ for c in classes if vars(c).get("static") is True or vars(c).get("keeps_static") is True}
    captured = set()
    for search in graphs.SEARCHES.values():
        made = graphs.make(search, BY_NAME["graph"], CPU)
        captured |= {type(module).__name__ for module in made.relaxation.modules()}
    assert claiming and claiming <= captured


def test_speed_and_what_is_fastest_of_it(bench):
    report = Report(bench, "speed", [])
    report.each([check for check in speed.checks(bench) if check.name == "darts, channels_last"])
    (found,) = [r for r in records(bench) if r["kind"] == "check"]
    assert found["verdict"] == "passed" and set(found["values"]) == {"w", "alpha", "second"}, found
    for step in found["values"].values():
        assert step["wall_s"] > 0 and step["launches"] > 100 and step["peak_bytes"] > 1000 and step["rounds"] >= 3
    for name, wall_s in (("graph", 1e-6), ("graph_bf16", 1e-7), ("plain", 1e6)):
        report.end(f"darts, {name}", "passed", 0.0, {"w": {"wall_s": wall_s}, "alpha": {"wall_s": wall_s}})
    assert speed.best_exact(records(bench), "darts").name == "graph", "bf16 is another precision"
    assert speed.best_exact(records(bench), "darts", allowed=lambda v: not v.graph).name == "channels_last"
    assert speed.best_exact([], "darts") is None and truth.fastest(bench, "darts", True).name == "channels_last"


@pytest.mark.slow
def test_speed_of_graphs_of_the_published_loop_and_of_a_final_network(bench):
    for name, steps in {"darts, published loop": 3, "darts, graph": 3, "final, published loop": 1, "final, channels_last": 1}.items():
        (values,) = first(speed.checks(bench), matching=name)
        assert sum(type(step) is dict and "wall_s" in step for step in values.values()) == steps


def test_where(bench):
    found = list(where.checks(bench))
    (values,) = first(found, matching="timeline of graph")
    assert values["pair"]["busy_ms"] > 0 and len(values["pair"]["top"]) == 10 and values["pair"]["launches"] > 100
    (values,) = first(found, matching="memory of darts, channels_last")
    assert values["ratio"] == pytest.approx(1, abs=0.1)
    (values,) = first(found, matching="on a CPU")
    assert values["ratio"] == pytest.approx(1, abs=1e-3)


def test_loading(bench):
    assert all(values["images_per_s"] > 0 for values in first(loading.checks(bench), 5))


@pytest.mark.slow
def test_checkpoints(bench, monkeypatch):
    found = first(checkpoints.checks(bench), 2)
    assert found[0]["bytes"] > 10_000 and set(found[0]["checkpoint_ms"]) == {"in their midst", "in the background"}
    assert found[1] == {"checkpoints": 2}
    monkeypatch.setattr(checkpoint_writer.Copy, "_tensor", lambda self, value: value)
    monkeypatch.setattr(checkpoint_writer.threading.Thread, "start", lambda thread: None)  # it does its work once it is waited for
    monkeypatch.setattr(checkpoint_writer.threading.Thread, "join", lambda thread: thread.run())
    with pytest.raises(Failed, match="2 of 2 checkpoints are not of their moment"):
        checkpoints.of_the_moment(bench)


def test_two_runs_give_the_same_bits_and_others_do_not(bench, monkeypatch):
    assert first(determinism.checks(bench), matching="twice")[0]["tensors"] > 100
    seeds, usual = iter(range(10)), torch.randint
    monkeypatch.setattr(searches, "noise", lambda sizes, generator, device, dtype, of=searches.noise: of(
        sizes, generator.manual_seed(next(seeds)), device, dtype))
    with pytest.raises(Failed, match="tensors differ after 6 steps"):
        first(determinism.checks(bench), matching="twice")
    assert torch.randint is usual


def test_presets(bench):
    pytest.importorskip("hydra")
    values = first(presets.checks(bench), 3)
    assert all(len(v["losses"]) == 3 and v["moved"] > 0 for v in values)


def test_the_published_training_is_paced_in_every_way(bench):
    pytest.importorskip("hydra")
    report = Report(bench, "final", [])
    report.each(list(final.checks(bench, report)))
    found = {r["check"]: r for r in records(bench) if r["kind"] == "check"}
    assert list(found) == [*final.OF_A_STAND_IN, final.WHOLE] and {r["verdict"] for r in found.values()} == {"passed"}, found
    for name in final.OF_A_STAND_IN:
        v = found[name]["values"]
        assert v["steps"] >= 6 and v["epoch_s"] == pytest.approx(v["flowing_s"] * 3125) and v["images_per_s"] > 0 and v["peak_bytes"] > 0
    whole = found[final.WHOLE]["values"]
    assert whole["way"] == final.fastest(records(bench)) and whole["images"] == 64 and whole["steps"] == 4
    assert "### Final training: DARTS_V2 as published" in page.block(records(bench)) and "64 images: " in page.block(records(bench))
    published = final.options(dataclasses.replace(bench, toy=False), "compiled_bf16")
    assert {"compile=inductor", "amp=bf16", "channels_last=true"} <= set(published) and "compile=none" not in published


def test_fast_is_trained_to_the_mark_and_told_either_way(bench, monkeypatch):
    pytest.importorskip("hydra")
    report = Report(bench, "fast", [])
    reached, missed = list(fast.checks(bench, report))
    monkeypatch.setattr(fast, "MARK", 0.0)
    report.one(reached)
    monkeypatch.setattr(fast, "MARK", 101.0)
    report.one(missed)
    one, other = (r["values"] for r in records(bench) if r["kind"] == "check")
    assert one["reached"]["epoch"] == 1 and other["reached"] is None and one["epochs"] == other["epochs"] == fast.LEAST
    assert one["held_out"] > 0 and one["complete"] and one["reached"]["seconds"] <= one["training_s"]
    text = page.block(records(bench))
    assert "not reached" in text and "epoch 1 |" in text
    with pytest.raises(Skipped, match="4 epochs of .* do not fit into"):
        fast.to_the_mark(bench, report, "x", fast.OPTIONS, time.monotonic())


@pytest.mark.parametrize("part", ["presets", "nasbench201", "cifar10", "final", "fast"])
def test_what_needs_hydra_says_so_without_it(bench, part, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Skipped, match="hydra-core is not installed"):
        importlib.import_module(f"benchmarks.gpu.{part}").run(bench, Report(bench, part, []))


def test_a_search_without_images_says_so(tmp_path):
    pytest.importorskip("hydra")
    bench = dataclasses.replace(bench_in(tmp_path), toy=False)
    with pytest.raises(Skipped, match="no data came along"):
        truth.search(bench, Report(bench, "cifar10", []), "darts_first_order_cifar10", PLAIN, time.monotonic())


def test_a_search_of_full_size_is_written_down_epoch_by_epoch(bench):
    pytest.importorskip("hydra")
    report = Report(bench, "nasbench201", [])
    values = truth.search(bench, report, "gdas_nasbench201", PLAIN, time.monotonic() + 600)
    assert values["epochs"] == 2 and values["complete"] and values["text"].startswith("|") and values["split"] == [64, 64]
    notes = [r for r in records(bench) if r["kind"] == "note"]
    assert [r["epoch"] for r in notes] == [0, 1] and notes[1]["genotype"] == values["genotype"]
    stopped = truth.search(bench, report, "gdas_nasbench201", PLAIN, time.monotonic())
    assert stopped["epochs"] == 0 and not stopped["complete"]


def test_a_published_search_reads_the_images_and_the_table_that_came_along(tmp_path):
    """As on a card, but for its size."""
    pytest.importorskip("hydra")
    official(tmp_path / "data", 1)
    if NB201.exists():
        shutil.copy(NB201, tmp_path / "data" / truth.TABLE)
    bench = dataclasses.replace(bench_in(tmp_path, data=tmp_path / "data"), toy=False)
    small = ["layers=5", "channels=4", "batch_size=8", "split.max_train=20", "split.max_val=20", "epochs=1", "threads=1"]
    values = truth.search(bench, Report(bench, "nasbench201", []), "darts_first_order_nasbench201", BY_NAME["channels_last"],
                          time.monotonic() + 600, small)
    assert values["split"] == [20, 20] and values["epochs"] == 1 and values["complete"]
    assert ("table/cifar10/regret" in values) == NB201.exists()


def test_marked_tests_are_found_where_they_stand():
    assert {"tests/test_triton.py", "tests/test_graphed.py"} <= set(marked.files())
    assert all(re.search(r"mark\.cuda", (ROOT / name).read_text()) for name in marked.files())


@pytest.mark.slow
def test_kernels_are_compiled_beside_the_checks(tmp_path, monkeypatch):
    pytest.importorskip("triton", reason="the kernels need Triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    helpers = compiling.start(torch.device("cuda"))
    end = time.monotonic() + 300
    while not list(tmp_path.glob("*/*.cubin")):
        assert time.monotonic() < end and any(helper.poll() is None for helper in helpers)
        time.sleep(0.5)
    compiling.end(helpers)
    assert all(helper.returncode is not None for helper in helpers)


@pytest.mark.slow
def test_the_whole_command_comes_to_its_end(tmp_path):
    """Without a GPU: every part, at toy sizes; then again, where nothing is left to do."""
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"),
             "--minutes", "60"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    found = Journal.read(tmp_path / "out" / "gpu.jsonl")
    verdicts = {r["part"]: r["verdict"] for r in found if r["kind"] == "verdict"}
    assert list(verdicts) == [part.name for part in PARTS] and set(verdicts.values()) <= {"passed", "skipped"}
    assert len(list((tmp_path / "out").iterdir())) <= 8
    again = subprocess.run([*words, "--resume"], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert again.returncode == 0 and "passed" not in again.stdout


# ---- the command


@pytest.mark.parametrize("words, message", [
    (["--parts", "kernels,speeds"], "must be some of kernels,networks"), (["--minutes", "0"], "must be above 0"),
    (["--minutes", "soon"], "must be above 0"), (["--pack", "6"], "must be some of 1,2,3,4,5"), (["--pack", "1", "--page"], "not allowed"),
])
def test_wrong_words_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit):
        command.main(words)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("words, message", [
    (["--device", "tpu"], "device must be auto, cpu, cuda"), (["--resume", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
    (["--data", "nowhere"], "--data must be a folder"), (["--page", "nowhere.jsonl"], "there is no file"),
    (["--pack", "1", "--source", "nowhere"], "data_batch_1.bin.xz: there is none"),
])
def test_what_cannot_be_done_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line and list(tmp_path.iterdir()) == []


def test_results_are_never_written_over(tmp_path, capsys):
    (tmp_path / "gpu.jsonl").write_text('{"kind": "machine"}\n')
    assert command.main(["--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "pass --resume to go on" in capsys.readouterr().err and (tmp_path / "gpu.jsonl").read_text() == '{"kind": "machine"}\n'


def test_a_call_may_go_on_with_the_results_of_another_folder(tmp_path, monkeypatch, capsys):
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text(json.dumps({"kind": "verdict", "part": "loading", "verdict": "passed", "seconds": 1.0, "checks": {}}) + "\n")
    words = ["--device", "cpu", "--out", str(tmp_path / "out"), "--work", str(tmp_path), "--parts", "loading", "--resume", str(earlier)]
    assert command.main(words) == 0
    kinds = [r["kind"] for r in Journal.read(tmp_path / "out" / "gpu.jsonl")]
    assert kinds == ["verdict", "machine", "end"] and earlier.exists()


def test_a_signal_ends_the_command_and_its_parts(tmp_path, monkeypatch, capsys):
    made = conductor_in(tmp_path)
    code = ("from benchmarks.gpu.conductor import Conductor, conduct; from benchmarks.gpu.parts import Part; from pathlib import Path; "
            f"p = Path({str(tmp_path)!r}); c = Conductor(p, p, 'cpu', True, None, (str(p),)); "
            "conduct(c, [Part('slow', 'parts', '', limit_s=400, package='misbehaving')], 480.0, set())")
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        end = time.monotonic() + 120
        while not (made.journal.path.exists() and '"passed"' in made.journal.path.read_text()):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    size = made.journal.path.stat().st_size
    time.sleep(1)  # in which the part would have written three lines
    assert made.journal.path.stat().st_size == size

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(conductor, "conduct", interrupted)
    assert command.main(["--device", "cpu", "--out", str(tmp_path / "out"), "--work", str(tmp_path)]) == 130
    assert "--resume goes on" in capsys.readouterr().err


# ---- what travels


def test_packages_travel_without_an_installer(tmp_path):
    pytest.importorskip("hydra")
    for name in travel.PACKAGES:
        travel.copy_package(name, tmp_path)
    code = "import hydra, omegaconf, antlr4; print(hydra.__file__); from importlib.metadata import version; version('hydra-core')"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert travel.size_of(tmp_path) < 4 * 2**20
    with pytest.raises(UsageError, match="nonesuch-package must be installed here"):
        travel.copy_package("nonesuch-package", tmp_path)


def official(folder: Path, number: int) -> bytes:
    """A file of CIFAR-10's form, packed as it travels."""
    import lzma

    import numpy as np

    rows = np.random.default_rng(number).integers(0, 256, (batches.RECORDS, 1 + batches.PIXELS), np.uint8)
    rows[:, 0] %= 10
    rows[:, 1:] = rows[:, 1:2]  # so that it packs well
    path = folder / batches.FOLDER / f"data_batch_{number}.bin.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(rows.tobytes(), preset=0))
    return rows.tobytes()


def test_data_that_travels_in_several_calls_adds_up(tmp_path):
    """The tree of the second call no longer holds the first file; a gap hides what lies behind it."""
    wanted = [official(tmp_path / f"call{n}" / "data", n) for n in (1, 2)]
    for n in (1, 2):
        found = travel.unpack(tmp_path / "there", tmp_path / f"call{n}")
        assert found == [f"data_batch_{m}.bin" for m in range(1, n + 1)]
    source = batches.Batches(str(tmp_path / "there"))
    source.check()
    images = source.train()
    assert len(images) == 20_000 and images.labels[:3].tolist() == [wanted[0][3073 * k] for k in range(3)]
    assert images.pixels[10_000].flatten().tolist() == list(wanted[1][1:3073])
    packed = batches.Batches(str(tmp_path / "call1" / "data"))
    assert torch.equal(packed.train().pixels, images.pixels[:10_000])
    with pytest.raises(DataError, match="data_batch_1.bin or data_batch_1.bin.xz"):
        batches.Batches(str(tmp_path / "call2" / "data")).check()
    (tmp_path / "there" / batches.FOLDER / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(DataError, match="must have 30,730,000 bytes, got 5"):
        source.train()


def test_what_is_too_much_for_a_call_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("hydra")
    source = tmp_path / "source"
    official(source, 1)
    (source / batches.FOLDER).rename(source / "cifar-10-batches-bin")
    pieces = dict(travel.pack([1], source, tmp_path / "carried"))
    assert set(pieces) == {"the tree", "site", "data"} and pieces["the tree"] > 10**6
    assert (tmp_path / "carried" / "commit.json").exists()
    monkeypatch.setattr(travel, "MOST_BYTES", pieces["the tree"])
    with pytest.raises(UsageError, match="MiB would travel"):
        travel.pack([1], source, tmp_path / "carried")


# ---- the page


def test_the_page_says_what_the_results_say():
    text = page.PAGE.read_text()
    found = list(Journal.readable(page.RESULTS)) if page.RESULTS.exists() else []
    assert page.replaced(text, page.block(found), page.BEGIN, page.END) == text, "run python -m benchmarks.gpu --page"


def test_a_page_is_made_of_a_journal(misbehaved, bench, tmp_path):
    folder, _, _ = misbehaved
    report = Report(bench, "speed", [])
    step = {"wall_s": 0.5, "peak_bytes": 2**20, "launches": 7}
    for name, factor in (("darts, published loop", 4), ("darts, channels_last", 1)):
        report.end(name, "passed", 1.0, {"w": step | {"wall_s": 0.5 * factor}, "alpha": step, "second": step})
    Report(bench, "loading", []).each(list(loading.checks(bench))[:1])
    Report(bench, "networks", []).each(list(networks.checks(bench))[:2])
    line = {"launches": 5, "span_ms": 2.0, "busy_ms": 1.0, "median_gap_us": 3.0, "top": [{"name": "conv", "share": 0.5, "calls": 4}]}
    of_where = Report(bench, "where", [])
    of_where.end("timeline of native", "passed", 1.0, {"w": line})
    of_where.end("memory of darts, native", "passed", 1.0, {"predicted_bytes": 2**20, "taken_bytes": 2**21, "ratio": 2.0})
    journal = [{"kind": "machine", "stand_in": True, "environment": {"torch": "2"}, "smi": {}}, *records(bench),
               *({**r, "part": "kernels"} for r in Journal.read(folder / "gpu.jsonl") if r.get("part") == "all")]
    text = page.block(journal)
    assert "A stand-in on a CPU: the numbers mean nothing" in text
    assert "| `kernels` | hangs | it hung, and was killed" in text
    for head in ("How far from float64", "Speed: darts", "Where the time goes", "Memory", "The data path"):
        assert f"### {head}" in text
    assert "| `channels_last` | 500.0 (4.00x), 7, 1 | 500.0 (1.00x), 7, 1 | 500.0 (1.00x), 7, 1 |" in text
    (tmp_path / "page.md").write_text(f"before\n{page.BEGIN}\n{page.END}\nafter\n")
    source = tmp_path / "gpu.jsonl"
    assert page.write(source, tmp_path / "page.md") and not page.write(source, tmp_path / "page.md")
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(UsageError, match="expected one"):
        page.write(source, tmp_path / "page.md")


def test_variants_have_names_of_their_own_and_the_first_is_plain():
    assert len(BY_NAME) == len(VARIANTS) and VARIANTS[0] is PLAIN and PLAIN.exact and not BY_NAME["bf16"].exact
    for variant in VARIANTS:
        words = truth.options_of(variant, "cuda")
        assert f"amp={variant.amp}" in words and ("compile=graph" in words) == variant.graph


def test_computing_leaves_the_process_as_it_was():
    before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark,
              torch.are_deterministic_algorithms_enabled())
    with BY_NAME["tf32"].computing(CPU, deterministic=True):
        pass
    with pytest.raises(Skipped, match="backend must be one of"), Variant("x", "", backend="nonesuch").computing(CPU):
        pass
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark,
                      torch.are_deterministic_algorithms_enabled())


def test_what_nvidia_smi_says_is_read(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '" + ", ".join(f"value {n}" for n in range(len(card.QUERIES))) + "'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert card.smi()["name"] == "value 0" and list(card.smi()) == list(card.QUERIES)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert card.smi() == {}
