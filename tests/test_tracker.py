"""W&B as a second place for the numbers: what is opened when, what is told, and that nothing of it costs a training."""

import http.server
import math
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from supernet.runs.tracker import (
    HIDDEN,
    MAX_ID,
    MAX_NAME,
    Labels,
    TrackerError,
    WandbTracker,
    is_preemption,
    open_tracker,
    run_id,
    shortened,
    without_secrets,
    word,
)
from tests.helpers import until
from tests.offline_wandb import Offline, read


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """W&B as on a fresh machine: no key, no settings, no session."""
    wandb = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-config"))
    wandb.teardown()
    yield wandb
    wandb.teardown()


def start(tmp_path, mode, warn=pytest.fail, **changes):
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    arguments = {"project": "supernet-test", "folder": folder, "config": {"seed": 1, "space": {"name": "toy"}}, "run_id": "abc123",
                 "warn": warn, "labels": Labels("a run seed 01", "a run", "seed-01", "search", ("toy", "softmax")), "timeout_s": 2}
    return open_tracker(mode, **arguments | changes)


def test_offline_writes_a_run_that_can_be_synced_and_says_nothing(tmp_path, wandb, capfd):
    kept = sys.exit, sys.excepthook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    tracker, text = start(tmp_path, "offline")
    assert (sys.exit, sys.excepthook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == kept
    assert text.startswith("W&B: offline, `wandb sync ") and "\n" not in text
    tracker.log(5, {"loss": 1.5, "nan": math.nan})
    tracker.log(7, {"loss": 1.25})
    tracker.image(7, "cell", lambda: np.zeros((4, 4, 3), np.uint8))
    assert wandb.run.step == 7
    tracker.finish(0)
    [file] = (tmp_path / "run" / "wandb").glob("offline-run-*-abc123/run-abc123.wandb")
    until(lambda: b"loss" in file.read_bytes(), "the records")  # W&B's own process writes them, at times after `finish` returns
    assert str(file.parent) in text
    assert list(file.parent.glob("files/media/images/cell_7_*.png"))
    assert capfd.readouterr() == ("", "")


def test_an_offline_run_goes_on_at_its_step_under_the_same_id(tmp_path, wandb):
    for first in (0, 100):
        tracker, _ = start(tmp_path, "offline")
        tracker.log(first + 1, {"loss": 1.0})
        assert (wandb.run.id, wandb.run.step) == ("abc123", first + 1)
        tracker.finish(0)
        time.sleep(1.1)   # W&B's folders are named by the second


def test_auto_without_a_key_is_offline_at_once(tmp_path, wandb, capfd):
    began = time.monotonic()
    tracker, text = start(tmp_path, "auto")
    assert time.monotonic() - began < 5
    assert text.startswith("W&B: offline, ") and "not online: No API key configured" in text and "\n" not in text
    tracker.finish(0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("variable", "opened"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_auto_does_what_wandb_mode_says(tmp_path, wandb, monkeypatch, variable, opened):
    monkeypatch.setenv("WANDB_MODE", variable)
    tracker, text = start(tmp_path, "auto")
    tracker.finish(0)
    assert text.startswith(f"W&B: {opened}") and "not online" not in text


def test_a_mode_by_name_is_stronger_than_wandb_mode(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert start(tmp_path, "disabled")[1] == "W&B: disabled"


def test_disabled_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker, text = start(tmp_path, "disabled")
    tracker.log(1, {"loss": 1.0})
    tracker.image(1, "cell", lambda: tmp_path / "missing.png")
    tracker.finish(0)
    assert text == "W&B: disabled" and list((tmp_path / "run").iterdir()) == []


def test_auto_without_the_package_is_disabled(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    _, text = start(tmp_path, "auto")
    assert text.startswith("W&B: disabled; not online: the package wandb cannot be imported")
    with pytest.raises(TrackerError, match="the package wandb cannot be imported"):
        start(tmp_path, "offline")


def test_an_unknown_mode_names_the_choices(tmp_path, monkeypatch):
    with pytest.raises(TrackerError, match="auto, online, offline or disabled, got 'cloud'"):
        start(tmp_path, "cloud")


@pytest.mark.parametrize(("key", "says"), [("", "No API key configured"), ("short", "API key must have 40")])
def test_online_without_a_usable_key_is_one_line_at_once(tmp_path, wandb, monkeypatch, capfd, key, says):
    monkeypatch.setenv("WANDB_API_KEY", key)
    began = time.monotonic()
    with pytest.raises(TrackerError, match=says) as error:
        start(tmp_path, "online")
    assert time.monotonic() - began < 5 and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_without_a_server_online_fails_and_auto_falls_back(tmp_path, wandb, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(TrackerError, match="connection refused") as error:
        start(tmp_path, "online", timeout_s=0.5)
    assert "\n" not in str(error.value)
    tracker, text = start(tmp_path, "auto", timeout_s=0.5)
    assert text.startswith("W&B: offline, ") and "connection refused" in text and "\n" not in text
    tracker.log(1, {"loss": 1.0})
    tracker.finish(0)
    assert capfd.readouterr() == ("", "")


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(401)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *arguments):
        pass


def test_a_key_that_the_server_refuses(tmp_path, wandb, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(TrackerError, match="401") as error:
            start(tmp_path, "online", timeout_s=5)
        assert "\n" not in str(error.value)
    finally:
        server.shutdown()
        server.server_close()


class Broken:
    id, summary = "abc123", None

    def log(self, record, step):
        raise ConnectionError("the service\nis gone")

    def define_metric(self, name, step_metric=None):
        pass

    def finish(self, exit_code):
        raise ConnectionError("still gone")


def test_a_failure_in_the_middle_is_told_once_and_stops_nothing(tmp_path):
    told, torn = [], []
    package = SimpleNamespace(Image=str, teardown=lambda exit_code: torn.append(exit_code))
    tracker = WandbTracker(Broken(), package, warn=told.append)
    tracker.log(1, {"loss": 1.0})
    tracker.log(2, {"loss": 1.0})
    tracker.image(2, "cell", lambda: tmp_path / "cell.png")
    tracker.results({"test_accuracy": 1.0})
    tracker.files("genotype", [tmp_path / "genotype.json"], {})
    tracker.preempted()
    tracker.finish(1)
    assert told == ["W&B: the service is gone; training goes on, metrics.jsonl has every number"]
    assert torn == [1]  # no hook of W&B's is left that would print at the end


def test_a_missing_picture_stops_nothing(tmp_path, wandb):
    told = []
    tracker, _ = start(tmp_path, "offline", warn=told.append)
    tracker.image(1, "cell", lambda: tmp_path / "missing.png")
    tracker.finish(0)
    assert len(told) == 1


# ---- what is in the file


def written(tmp_path) -> Offline:
    [file] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    until(lambda: read(file).exit_code is not None, "the last record")  # W&B's own process writes it, at times after `finish` returns
    return read(file)


def test_labels_and_config_are_in_the_first_record_of_the_run(tmp_path, wandb):
    start(tmp_path, "offline")[0].finish(0)
    found = written(tmp_path)
    assert found.kinds[:2] == ["header", "run"]
    assert found.run == {"id": "abc123", "project": "supernet-test", "name": "a run seed 01", "group": "a run", "kind": "search",
                         "tags": ["toy", "softmax"], "sweep": ""}
    assert {key: found.config[key] for key in ("seed", "space")} == {"seed": 1, "space": {"name": "toy"}}


def test_numbers_are_drawn_over_epochs_and_come_back_with_all_their_digits(tmp_path, wandb):
    tracker, _ = start(tmp_path, "offline")
    records = [{"epoch": n, "step": 7 * n, "loss": 0.1 + 0.2 * n, "nothing": None, "genotype": n * 40_000 * "g"} for n in range(3)]
    for record in records:
        tracker.log(record["step"], record)
    tracker.finish(0)
    found = written(tmp_path)
    assert [{key: row[key] for key in records[0]} for row in found.history] == records
    assert all(type(row["epoch"]) is int for row in found.history)
    assert [row["_step"] for row in found.history] == [0, 7, 14] and found.metrics == {
        "epoch": "", "*": "epoch", "trial/number": "", "trial/*": "trial/number"}


def test_results_count_before_the_last_epoch_and_files_are_kept_by_their_paths(tmp_path, wandb):
    tracker, _ = start(tmp_path, "offline")
    file = tmp_path / "genotype.json"
    file.write_text("{}")
    tracker.log(3, {"epoch": 0, "val_accuracy": 50.0, "elapsed_s": 1.0})
    tracker.image(3, "cell", lambda: np.zeros((4, 4, 3), np.uint8))
    tracker.results({"elapsed_s": 2.0, "test_accuracy": 60.0})
    tracker.files("genotype", [file], {"val_accuracy": 50.0})
    tracker.finish(0)
    found = written(tmp_path)
    assert [found.summary[key] for key in ("val_accuracy", "elapsed_s", "test_accuracy")] == [50.0, 2.0, 60.0]
    assert [(row["val_accuracy"], row["cell"]["width"]) for row in found.history] == [(50.0, 4)]
    assert found.artifacts == [{"name": "genotype-a-run", "type": "genotype", "aliases": ["latest", "seed-01"],
                                "about": {"val_accuracy": 50.0}, "files": {"genotype.json": str(file)}}]


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, None])
def test_what_a_scheduler_sends_is_a_preemption(monkeypatch, number):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert is_preemption(number) == (number in (signal.SIGUSR2, signal.SIGTERM))
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")  # whose agent stops runs by SIGTERM, and would begin them again
    assert is_preemption(number) == (number == signal.SIGUSR2)


def test_a_preempted_run_says_so_before_its_end(tmp_path, wandb):
    tracker, _ = start(tmp_path, "offline")
    tracker.preempted()
    tracker.finish(255)
    found = written(tmp_path)
    assert found.kinds.index("preempting") < found.kinds.index("exit") and found.exit_code == 255


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # W&B leaves that file open
def test_under_an_agent_the_sweep_says_which_run_this_is(tmp_path, wandb, monkeypatch, capfd):
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nrelaxation:\n  value: gumbel\n")
    for name, value in (("SWEEP_ID", "sw33p"), ("RUN_ID", "ag3nt"), ("SWEEP_PARAM_PATH", str(parameters)), ("PROJECT", "theirs")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    tracker, _ = start(tmp_path, "offline", config={"seed": 1, "relaxation": {"temperature": 1.0}})
    tracker.finish(0)
    found = written(tmp_path)
    assert {key: found.run[key] for key in ("id", "project", "sweep", "group", "kind")} == {
        "id": "ag3nt", "project": "theirs", "sweep": "sw33p", "group": "a run", "kind": "search"}
    assert found.config["relaxation"] == "gumbel" and found.config["seed"] == 1
    assert capfd.readouterr() == ("", "")


def test_the_project_is_the_option_or_what_the_environment_says(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "of-the-environment")
    start(tmp_path, "offline", project=None)[0].finish(0)
    assert written(tmp_path).run["project"] == "of-the-environment"


# ---- names and secrets


def test_ids_differ_between_runs_of_one_name_and_stay_when_a_run_goes_on():
    first, again, other = (run_id("2026-01-01_00-00-00_search_digits_seed0", "hash", started) for started in ("a", "a", "b"))
    assert first == again != other and first.startswith("2026-01-01_00-00-00_search_digits_seed0-")
    assert len(run_id("x" * 1000)) == MAX_ID and not set(run_id("a:b;c,d#e?f/g'h")) & set(":;,#?/'")


def test_long_names_stay_apart():
    a, b = (shortened("x" * 500 + end) for end in "ab")
    assert a != b and len(a) == len(b) == MAX_NAME and shortened("short") == "short"
    assert word("genotype-darts digits lr=0.1 [a,b]/é") == "genotype-darts-digits-lr-0.1-a-b"


SECRETS = {"seed": 1, "dataset": {"password": "hunter2", "root": "https://me:hunter2@host/data", "api_key": "hunter2", "tokens": 7,
           "vocabulary": ["the", "key"]}, "note": "it is hunter2"}


def test_secrets_are_hidden_and_nothing_else():
    assert without_secrets(SECRETS, ["hunter2"]) == {
        "seed": 1, "dataset": {"password": HIDDEN, "root": f"https://{HIDDEN}@host/data", "api_key": HIDDEN, "tokens": 7,
                               "vocabulary": ["the", "key"]}, "note": f"it is {HIDDEN}"}
    assert without_secrets(["dataset.access_token=hunter2", "split.max_train=3"]) == [f"dataset.access_token={HIDDEN}", "split.max_train=3"]
    harmless = {"secretary": "a", "key": "val_accuracy", "tokens": ["a"], "root": "data/a@b", "seeds": [0, 1], "url": "https://host/a"}
    assert without_secrets(harmless, [""]) == harmless


def test_no_secret_reaches_a_file_of_wandb(tmp_path, wandb, monkeypatch):
    key = "0123456789abcdef" * 2 + "01234567"
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(sys, "argv", ["train_search.py", "dataset.password=hunter2", f"dataset.root=https://me:{key}@host/data"])
    tracker, _ = start(tmp_path, "offline", config={"dataset": {"password": "hunter2", "root": f"{key}/a"}})
    tracker.log(1, {"epoch": 0})
    tracker.finish(0)
    assert sys.argv[1] == "dataset.password=hunter2"
    hidden = [f"dataset.password={HIDDEN}", f"dataset.root=https://{HIDDEN}@host/data"]
    assert written(tmp_path).arguments in (hidden, [])  # W&B leaves them out where it is told to end before it has gathered them
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) >= 3 and not [path for path in files if b"hunter2" in path.read_bytes() or key.encode() in path.read_bytes()]
