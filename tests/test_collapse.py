"""The benchmark of collapse: which runs it takes for done, how it goes on, and what it says of runs that are not all there."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import collapse, collapse_page
from supernet.runs.folder import RunFolder
from supernet.spaces import robust
from tests.searches import composed
from tests.shared import DATA

SETTING = collapse.SETTING
OPTIONS = collapse.search_options("darts_minus", 3, SETTING)


def begun(folder, script, options, *, status="finished", name="a_run", **where):
    run = RunFolder(folder / name)
    run.path.mkdir(parents=True)
    words = [f"{key}={value}" for key, value in {**options, "output": folder, "resume": "auto", **where}.items()]
    run.start(script=script, command=shlex.join(["python", f"{script}.py", *words]), config_hash="")
    run.set_status(status)
    if status == "finished":
        run.summary.write_text("{}")
    return run


def searched(folder, method="darts_first_order", seed=0, *, epochs=3, status="finished", gives=-1, name="a_run", setting=SETTING):
    """A search's folder with a random genotype for each epoch, of which the search gives one."""
    run = begun(folder, "train_search", collapse.search_options(method, seed, setting), status=status, name=name)
    rng = random.Random(seed)
    genotypes = [robust.s2().sample(rng) for _ in range(epochs)]
    run.genotypes.write_text("".join(json.dumps({"epoch": n, "genotype": g.to_json()}) + "\n" for n, g in enumerate(genotypes)))
    genotypes[gives].save(run.genotype)
    run.metrics.write_text("".join(json.dumps({
        "epoch": n, "train_accuracy": 30.0 + n, "val_accuracy": 20.0 + n, "skip_share": collapse.skip_share(g), "elapsed_s": 60.0 * (n + 1),
        **({} if n % 2 else {"alpha_eigenvalue": 0.1 * (n + 1)})}) + "\n" for n, g in enumerate(genotypes)))
    run.environment.write_text(json.dumps({"git_commit": "0" * 40, "cpu": "a CPU", "torch": "2"}))
    return run, genotypes


def trained(folder, seed, genotype, accuracy):
    run = begun(folder, "train_final", collapse.final_options(seed, genotype), name=f"final_{genotype.digest}_{seed}")
    run.summary.write_text(json.dumps({"values": {"test_accuracy": accuracy, "parameters": 1000, "elapsed_s": 90.0}}))


@pytest.mark.parametrize("method", collapse.METHODS)
def test_every_method_composes_in_s2_and_of_first_order(method):
    options = collapse.search_options(method, 1, SETTING)
    cfg = composed(*(f"{key}={value}" for key, value in options.items()))
    assert cfg.hypergradient._target_.endswith(".first_order") and dict(cfg.space) == {"_target_": "supernet.spaces.robust.s2"}
    assert cfg.monitor.eigenvalue.stop == (method == "darts_es") and (cfg.epochs, cfg.seed) == (60, 1)
    assert cfg.alpha_optimizer.lr == 3e-3
    remedy = {"darts_first_order": None, "darts_minus": cfg.network.get("auxiliary_skip"), "beta_darts": "beta_decay" in cfg.penalty,
              "sdarts_rs": "random_perturbed" in cfg.wrapper, "r_darts_l2": cfg.w_optimizer.weight_decay > 3e-4,
              "darts_es": cfg.monitor.eigenvalue.stop, "r_darts_dp": cfg.drop_path_prob > 0}
    assert remedy.pop(method) in (None, True)
    assert not any(remedy.values())


def test_a_run_is_known_by_what_it_computes_wherever_its_data_lie(tmp_path):
    runs = collapse.Runs(tmp_path)
    assert runs.finished("train_search", OPTIONS) is None
    run = begun(tmp_path, "train_search", OPTIONS, **{"dataset.root": "elsewhere"})
    assert runs.finished("train_search", dict(reversed(OPTIONS.items()))).path == run.path
    for other in ({"seed": 4}, {"epochs": 3}, {"w_optimizer.lr": 1}):
        assert runs.finished("train_search", OPTIONS | other) is None
    assert runs.finished("train_final", OPTIONS) is None
    run.set_status("stopped")
    assert runs.finished("train_search", OPTIONS) is None and len(runs.of("train_search", OPTIONS)) == 1


def test_a_run_that_a_process_works_on_is_waited_for_and_not_begun_again(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("a second process was started"))
    run, locked, go = begun(tmp_path, "train_search", OPTIONS, status="running"), threading.Event(), threading.Event()

    def other():
        with run.lock():
            locked.set()
            go.wait()
            run.summary.write_text("{}")
            run.set_status("finished")

    works = threading.Thread(target=other)
    works.start()
    locked.wait()
    naps = []
    monkeypatch.setattr(time, "sleep", lambda seconds: (naps.append(seconds), go.set(), works.join()))
    assert collapse.Runs(tmp_path).finish("train_search", OPTIONS).path == run.path and naps


def test_a_run_that_fails_is_told_by_its_last_line(tmp_path):
    runs = collapse.Runs(tmp_path / "runs", root="nowhere")
    with pytest.raises(RuntimeError, match=r"^darts_minus, seed 3: error: .*channels.*\.log\)$"):
        runs.finish("train_search", OPTIONS | {"channels": 0})


def test_one_run_that_fails_keeps_no_other_from_running_and_one_that_is_stopped_does(tmp_path, capsys):
    done = []

    def work(method, seed):
        done.append(method)
        if method == "fails":
            raise RuntimeError("the loss is not a number")
        if method == "stopped":
            runs.stopping.set()
            raise collapse.Stopped
        if runs.stopping.is_set():  # as in Runs.finish
            raise collapse.Stopped

    runs = collapse.Runs(tmp_path)
    assert collapse.run_all(runs, [("fails", 0), ("works", 0)], 1, work) == 1 and done == ["fails", "works"]
    assert "the loss is not a number" in capsys.readouterr().err
    assert collapse.run_all(runs, [("stopped", 0), ("works", 1)], 1, work) == 130
    assert "works, seed 1" not in capsys.readouterr().out


def test_a_search_is_told_with_its_first_cell_and_the_one_it_gives_which_need_not_be_the_last(tmp_path):
    _, genotypes = searched(tmp_path, "darts_es", epochs=5, gives=2)
    runs = collapse.Runs(tmp_path)
    trained(tmp_path, 0, genotypes[2], 44.0)
    found = collapse.gather(runs, "darts_es", 0, SETTING)
    assert found["curves"]["alpha_eigenvalue"] == [0.1, None, 0.3, None, 0.5] and found["curves"]["val_accuracy"][-1] == 24.0
    assert found["first"] == {"skip_share": collapse.skip_share(genotypes[0]), "genotype": genotypes[0].to_json()["cells"]}
    assert found["last"]["skip_share"] == collapse.skip_share(genotypes[2]) and found["last"]["test_accuracy"] == 44.0
    assert not collapse.complete(found)
    trained(tmp_path, 0, genotypes[0], 50.0)
    assert collapse.complete(collapse.gather(runs, "darts_es", 0, SETTING))
    assert collapse.gather(runs, "darts_es", 1, SETTING) is None


def test_a_run_that_is_going_on_is_told_as_far_as_it_is(tmp_path):
    searched(tmp_path, "beta_darts", epochs=2, status="running")
    found = collapse.gather(collapse.Runs(tmp_path), "beta_darts", 0, SETTING)
    assert not found["finished"] and found["epochs"] == 2 and "last" not in found


def test_results_made_elsewhere_count_and_the_run_that_went_further_wins(tmp_path):
    searched(tmp_path, seed=0, epochs=2, status="running")
    here = collapse.gather(collapse.Runs(tmp_path), "darts_first_order", 0, SETTING)
    further = here | {"epochs": 3}
    ended = here | {"epochs": 1, "finished": True}
    trained_too = ended | {"last": {"test_accuracy": 1.0}}
    order = [here, further, ended, trained_too]
    for less, more in zip(order, order[1:]):
        assert collapse.merged([less], [more]) == collapse.merged([more], [less]) == [more]
    other = ended | {"method": "darts_minus"}
    assert collapse.merged([other], [here]) == [here, other]


def test_results_of_other_sizes_are_not_mixed_with_these(tmp_path, capsys):
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"setting": SETTING | {"epochs": 3}, "retraining": collapse.RETRAINING, "runs": []}))
    with pytest.raises(SystemExit):
        collapse.main(["--draw", "--out", str(out), "--folder", str(tmp_path)])
    assert "another setting (epochs: expected 60, got 3)" in capsys.readouterr().err
    assert collapse.main(["--draw", "--out", str(out), "--folder", str(tmp_path), "--epochs", "3"]) == 0
    with pytest.raises(SystemExit):
        collapse.main(["--out", str(out)])
    assert "--root" in capsys.readouterr().err


def test_a_part_of_the_runs_makes_tables_and_a_picture_that_say_of_how_many(tmp_path):
    setting = SETTING | {"epochs": 5}
    for n, seed in enumerate((0, 1)):
        _, genotypes = searched(tmp_path, seed=seed, epochs=5, name=f"darts_{seed}", setting=setting)
        if not n:
            trained(tmp_path, seed, genotypes[0], 50.0), trained(tmp_path, seed, genotypes[-1], 44.5)
    searched(tmp_path, "darts_es", epochs=3, gives=1, name="es", setting=setting)
    searched(tmp_path, "darts_minus", epochs=1, status="stopped", name="minus", setting=setting)
    out, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text("before\n{}\n{}\nafter\n".format(*collapse_page.MARKS))
    told = ["--draw", "--epochs", "5", "--seeds", "0", "1", "--out", str(out), "--page", str(page), "--folder", str(tmp_path)]
    assert collapse.main(told) == 0
    result = json.loads(out.read_text())
    shares, others, *rest = "\n".join(collapse_page.tables(result)).split("\n\n")
    (darts, es), (darts_too, es_too) = (
        [dict(zip(*(map(str.strip, line.split("|")) for line in (head, row)))) for row in rows]
        for head, _, *rows in (shares.splitlines(), others.splitlines()))
    assert (darts["n"], es["n"]) == (darts_too["n"], es_too["n"]) == ("2", "1") and es_too["method"] == "DARTS-ES"
    assert darts_too["first cell, test %"] == "50.00 (n=1)" and darts_too["its gain"] == "-5.50 (n=1)"
    assert es_too["first cell, test %"] == "50.00" and es_too["cell it gives, test %"] == ""  # the same first cell, trained once
    after = [run["curves"]["skip_share"][3] for run in result["runs"] if run["method"] == "darts_first_order"]
    assert darts["after 4 epochs"].startswith(f"{sum(after) / 2:.2f} ± ") and es["after 4 epochs"] == ""
    assert es_too["eigenvalue: first, highest, last"] == "0.100, 0.300, 0.300"
    assert rest == ["Ended by their method: DARTS-ES seed 0 after 3.", "Not finished: DARTS- seed 0, 1 epochs."]
    assert page.read_text().startswith("before\n") and others in page.read_text() and page.with_suffix(".png").stat().st_size > 10_000
    for run in tmp_path.glob("*/run.json"):
        run.unlink()
    assert collapse.main(told) == 0 and json.loads(out.read_text()) == result  # the file alone is enough


def test_the_page_says_what_the_committed_results_say():
    result = json.loads(collapse.OUT.read_text())
    text = (collapse.HERE / "docs/collapse.md").read_text()
    told = collapse_page.replaced(text, collapse_page.block(result), *collapse_page.MARKS)
    assert told == text, "run python -m benchmarks.collapse --draw"


SMALL = """
import sys
from benchmarks import collapse
small = {"layers": 2, "channels": 2, "batch_size": 32, "split.max_train": 64}
collapse.SETTING |= small | {"split.max_val": 64}
collapse.RETRAINING |= small | {"epochs": 1}
sys.exit(collapse.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs shared/data beside the checkout")
def test_a_killed_benchmark_goes_on_to_the_results_of_an_unbroken_one(tmp_path):
    subprocess.run([DATA / "unpack", tmp_path / "data"], check=True, capture_output=True)

    def command(name):
        return [sys.executable, "-c", SMALL, "--root", str(tmp_path / "data"), "--methods", "darts_first_order", "--seeds", "0", "--epochs",
                "6", "--folder", str(tmp_path / name), "--out", str(tmp_path / f"{name}.json")]

    at = {"cwd": collapse.HERE, "stdout": subprocess.DEVNULL}
    subprocess.run(command("unbroken"), check=True, **at)
    # The last but one epoch is in a checkpoint. At first the benchmark alone is killed, and its run goes on; then both.
    for epochs, kill in ((2, os.kill), (4, os.killpg)):
        killed = subprocess.Popen(command("killed"), start_new_session=True, **at)
        while sum(len(path.read_text().splitlines()) for path in (tmp_path / "killed").glob("*_search_*/metrics.jsonl")) < epochs:
            assert killed.poll() is None
            time.sleep(0.02)
        kill(killed.pid, signal.SIGKILL)
        killed.wait()
    subprocess.run(command("killed"), check=True, **at)
    (search,) = (tmp_path / "killed").glob("*_search_*/run.json")
    assert json.loads(search.read_text())["status"] == "finished"
    one, other = (json.loads((tmp_path / f"{name}.json").read_text())["runs"][0] for name in ("unbroken", "killed"))
    assert collapse.complete(one)
    for key in ("curves", "finished", "epochs"):
        assert one[key] == other[key]
    for cell in collapse.CELLS:
        assert {k: v for k, v in one[cell].items() if k != "minutes"} == {k: v for k, v in other[cell].items() if k != "minutes"}
