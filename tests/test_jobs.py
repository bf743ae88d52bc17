"""Which job a run is, and that of many who start one, one works."""

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from supernet import genotype as genotypes
from supernet.app.identity import fitting, job_digest, told_option
from supernet.errors import Elsewhere, LeftAlone, UsageError
from supernet.runs.claim import claim, claimed
from supernet.runs.folder import RunFolder, earlier_runs
from supernet.runs.run import Asked, choose_folder
from supernet.sweeps.jobs import jobs
from tests.helpers import At, contents, only_error, run, start
from tests.runs import finished, folders
from tests.searches import composed

SEARCH = ("layers=3", "channels=2", "space.nodes=1", "batch_size=8", "split.max_train=16", "split.max_val=8", "epochs=1")


def digest(*overrides):
    return job_digest(composed(*overrides))


# ---- what makes a job another one


def test_a_job_is_what_is_computed_wherever_and_however_it_is_watched():
    job = digest(*SEARCH)
    watched = ("output=elsewhere", "name=mine", "threads=2", "wandb.mode=disabled", "log_every=3", "resume=auto", "workers=1")
    assert digest(*SEARCH, *watched) == job and len(job) == 64
    others = [digest(*SEARCH, other) for other in ("seed=1", "epochs=2", "relaxation=gumbel", "w_optimizer.lr=0.1", "device=cpu")]
    assert len({job, *others}) == 6


def test_wrappers_in_another_order_are_another_job():
    assert digest(*SEARCH, "wrapper=[edge_normalised,greedy]") != digest(*SEARCH, "wrapper=[greedy,edge_normalised]")


def test_where_the_files_of_a_published_data_set_lie_makes_no_other_job_and_where_own_files_lie_does():
    for name in ("cifar10", "cifar100", "fashion_mnist"):
        assert digest(f"dataset={name}", "dataset.root=/a") == digest(f"dataset={name}", "dataset.root=/b", "dataset.download=true")
    assert digest("dataset=folder", "dataset.root=/a") != digest("dataset=folder", "dataset.root=/b")
    assert digest("dataset=npz", "dataset.path=/a") != digest("dataset=npz", "dataset.path=/b")
    assert digest("dataset=cifar10") != digest("dataset=cifar100")


def test_of_a_final_training_the_cell_counts_and_not_its_file(tmp_path):
    cells = [genotypes.find("darts_v1"), genotypes.find("darts_v2")]
    cfg = OmegaConf.create({"dataset": {"name": "digits"}, "genotype": "x", "seed": 0})
    other = OmegaConf.create({"dataset": {"name": "digits"}, "genotype": "y", "seed": 0})
    assert job_digest(cfg, cells[0]) == job_digest(other, cells[0]) != job_digest(cfg, cells[1])
    cells[0].save(tmp_path / "cell.json")
    named, filed = (jobs("train_final", [f"genotype={name}"], "x", [0])[0] for name in ("darts_v1", tmp_path / "cell.json"))
    assert named.digest == filed.digest and named.epochs == 30


def test_jobs_are_composed_and_checked_without_data_and_know_what_the_run_will_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = jobs("train_search", SEARCH, "mine", [0, 1])
    assert first.digest != second.digest and (first.seed, second.seed, first.epochs) == (0, 1, 1)
    assert run("train_search", *second.command(Path("runs"))[2:], cwd=tmp_path, report=False).code == 0
    status = finished(tmp_path).status()
    assert status["job"] == second.digest and {"seed=1", "name=mine"} < set(status["overrides"])
    assert status["choices"]["relaxation"] == "softmax" and not [group for group in status["choices"] if group.startswith("hydra")]
    assert status["here"].keys() == {"device", "backend", "split"}
    assert jobs("train_search", ["dataset=cifar10", "dataset.root=/nowhere"], "x", [0])
    for wrong, told in (("epochs=-1", "mine: epochs must be"), ("relaxation=gumbl", "did you mean gumbel"), ("sed=1", "no option 'sed'")):
        with pytest.raises(UsageError, match=told):
            jobs("train_search", [wrong], "mine", [0])


# ---- names


@pytest.mark.parametrize("options, name", [
    (("relaxation=gumbel", "seed=3"), "search_digits_relaxation-gumbel_seed3"),
    (("experiment=gdas_nasbench201", "dataset=digits", "epochs=1", "layers=3"), "search_gdas_nasbench201_digits_epochs-1_layers-3_seed0"),
    (("name=own", "epochs=1"), "search_own_seed0"),
])
def test_a_folder_says_the_method_and_what_was_chosen_beside_it(options, name, tmp_path):
    at = At(1, "config.yaml")  # killed before anything is computed
    assert run("train_search", *options, cwd=tmp_path, at=at, report=False).code == -signal.SIGKILL
    (found,) = folders(tmp_path)
    assert found.path.name.partition("_")[2].partition("_")[2] == name


def test_a_name_stays_short_and_says_how_much_it_leaves_out():
    assert fitting(["a" * 20, "b" * 20, "c" * 20, "d"], 50) == ["a" * 20, "b" * 20, "and-2-more"]
    assert told_option("space.ops", "[none,skip_connect]") == "ops-none-skip_connect"
    assert told_option("optimizer@w_optimizer", "adam") == "w_optimizer-adam"
    assert told_option("~monitor", "") == "monitor" and len(told_option("x", "y" * 100)) == 30


# ---- one works


def asked(job="j", config_hash="h", **here):
    def begin(folder):
        folder.start(script="train_search", command="", config_hash=config_hash, identity={"job": job, "here": here}, status="stopped")

    return Asked("train_search", job, config_hash, {"seed": 0}, (), here, begin)


def test_of_twenty_starters_of_one_job_one_works(tmp_path):
    """Each is a process; they begin together, and whoever works stays at it until all have looked."""
    (begin, write), (leave, end), (looked, tell) = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(20):
        if (pid := os.fork()) == 0:
            code = 3
            try:
                os.read(begin, 1)
                choice = choose_folder("auto", asked(), output=str(tmp_path / "runs"), stem="x")
                code = 0 if choice.held is not None else 4
                os.write(tell, b"w")
                os.read(leave, 1)
            except Elsewhere:
                code = 1
                os.write(tell, b"d")
            finally:
                os._exit(code)
        children.append(pid)
    os.write(write, b"g" * 20)
    for _ in range(20):
        os.read(looked, 1)
    os.write(end, b"e" * 20)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert sorted(codes) == [0] + [1] * 19
    assert len(list((tmp_path / "runs").glob("[!.]*"))) == 1, "a folder of the one that works"


@pytest.mark.slow
def test_of_twenty_searches_of_one_job_one_works(tmp_path):
    processes = [start("train_search", *SEARCH, "resume=auto", cwd=tmp_path, report=False) for _ in range(20)]
    ended = [process.wait(600) for process in processes]
    assert len(folders(tmp_path)) == 1 and finished(tmp_path)
    told = [one.err for one in ended if "left alone" in one.err or "is at work on this run" in one.err]
    assert len(told) == 19 and {one.code for one in ended} <= {0, 75}


def test_a_claim_waits_for_the_one_before_and_leaves_one_small_file(tmp_path):
    entered, leave = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        with claim(tmp_path / "runs", "job"):
            os.write(entered[1], b"x")
            os.read(leave[0], 1)
            (tmp_path / "first").touch()
        os._exit(0)
    os.read(entered[0], 1)
    os.write(leave[1], b"x")
    with claim(tmp_path / "runs", "job"):
        assert (tmp_path / "first").exists()
    os.waitpid(pid, 0)
    (left,) = (tmp_path / "runs").rglob("*.0*")
    assert left.parent.name == ".locks" and left.stat().st_size < 1000 and not claimed(tmp_path / "runs", "job")


# ---- the same job again


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    where = tmp_path_factory.mktemp("done")
    assert run("train_search", *SEARCH, cwd=where, report=False).code == 0
    return where


def test_a_finished_job_is_left_alone_before_data_are_read_wherever_it_was_finished(done, tmp_path):
    folder = finished(done)
    shutil.copytree(done / "runs", tmp_path / "runs")
    (copy,) = folders(tmp_path)
    status = copy.status()
    copy.start(script="train_search", command="", config_hash="that of a GPU", identity={"job": status["job"], "here": {"device": "cuda"}})
    copy.set_status("finished")
    before = contents(tmp_path)
    ended = run("train_search", *SEARCH, "resume=auto", cwd=tmp_path)
    assert ended.code == 0 and "is finished and has the same options: left alone" in ended.err and "images" not in ended.err
    assert contents(tmp_path) == before and folder.path.exists()


def test_a_half_done_job_that_met_another_device_is_named_with_the_reason_and_not_begun_anew(tmp_path):
    assert run("train_search", *SEARCH, cwd=tmp_path, report=False, at=At(2, "metrics.jsonl")).code == -signal.SIGKILL
    assert run("train_search", *SEARCH, "checkpoint_every_s=0", cwd=tmp_path, report=False, at=At(2, ".pt.")).code == -signal.SIGKILL
    folder = folders(tmp_path)[-1]
    known = folder.status()
    folder.start(script="train_search", command="", config_hash="other", identity={"job": known["job"], "here": {"device": "cuda"}})
    before = contents(tmp_path)
    line = only_error(run("train_search", *SEARCH, "resume=auto", cwd=tmp_path), 75)
    assert "is half done and cannot go on here: device 'cuda' there, 'cpu' here" in line
    assert contents(tmp_path) == before


def test_a_run_without_a_job_is_known_by_its_options_as_before(tmp_path):
    folder = RunFolder.create(tmp_path, "old")
    folder.start(script="train_search", command="", config_hash="h")
    folder.set_status("finished")
    with pytest.raises(LeftAlone):
        choose_folder("auto", asked(), output=str(tmp_path), stem="x")
    assert not any(earlier_runs(tmp_path, "train_search", "other", "j"))


def test_what_failed_says_so_in_run_json_until_it_has_worked(tmp_path):
    ended = run("train_search", *SEARCH, "w_optimizer.lr=1e20", "clip_norm=null", cwd=tmp_path, report=False)
    (folder,) = folders(tmp_path)
    assert ended.code == 2 and folder.status()["error"].split(": ", 1)[1] in ended.err
    folder.set_status("finished")
    assert "error" not in folder.status()


def test_a_job_of_a_multirun_says_its_own_command_and_the_same_multirun_does_what_is_left(tmp_path):
    options = (*SEARCH, "seed=1,2")
    assert run("train_search", *options, "--multirun", cwd=tmp_path, report=False).code == 0
    commands = [shlex.split(folder.status()["command"]) for folder in folders(tmp_path)]
    for seed, words in enumerate(commands, 1):
        assert words[:2] == ["python", "train_search.py"] and f"seed={seed}" in words and not {"--multirun", "seed=1,2"} & set(words)
    before = contents(tmp_path)
    ended = run("train_search", *options, "--multirun", cwd=tmp_path, report=False)
    assert ended.code == 0 and ended.err.count("left alone") == 2 and contents(tmp_path) == before
    assert json.loads(folders(tmp_path)[0].run_json.read_text())["overrides"] == commands[0][2:]
