import fcntl
import hashlib
import http.server
import io
import math
import os
import select
import signal
import struct
import sys
import termios
import threading
import time

import numpy as np
import pytest

from supernet.runs.journal import Journal, JournalError, Mark
from supernet.runs.log import Progress, TrackerError, WandbTracker, open_tracker
from tests.helpers import until

# ---- metrics


def test_records_come_back_with_all_their_digits(tmp_path):
    metrics = Journal(tmp_path / "metrics.jsonl")
    records = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 1e-300, "op": "sep_conv é\n", "row": [1, 2.5]}]
    for record in records:
        metrics.append(record)
    assert Journal.read(metrics.path) == records
    assert metrics.path.read_bytes().count(b"\n") == 2


def test_nan_and_infinities_become_null(tmp_path):
    metrics = Journal(tmp_path / "m")
    metrics.append({"a": math.nan, "b": [math.inf, {"c": -math.inf}]})
    assert metrics.path.read_text() == '{"a": null, "b": [null, {"c": null}]}\n'


def test_cut_goes_back_to_a_position(tmp_path):
    metrics = Journal(tmp_path / "m")
    start = metrics.mark()
    assert start.size == 0
    metrics.append({"step": 1})
    mark = metrics.mark()
    metrics.append({"step": 2})
    metrics.path.write_bytes(metrics.path.read_bytes()[:-3])   # killed in the middle of a line
    assert Journal.read(metrics.path) == [{"step": 1}]
    metrics.cut(mark)
    metrics.append({"step": 2, "again": True})
    assert Journal.read(metrics.path) == [{"step": 1}, {"step": 2, "again": True}]
    metrics.cut(start)
    assert Journal.read(metrics.path) == []


def test_cut_beyond_the_end_is_an_error(tmp_path):
    metrics = Journal(tmp_path / "m")
    metrics.append({})
    with pytest.raises(JournalError, match="made at byte 100, but the file has only 3"):
        metrics.cut(Mark(100, ""))


def test_a_digit_that_changed_before_the_mark_is_an_error(tmp_path):
    metrics = Journal(tmp_path / "m")
    metrics.append({"loss": 1.5})
    mark = metrics.mark()
    metrics.append({"loss": 2.5})
    metrics.path.write_bytes(metrics.path.read_bytes().replace(b"1.5", b"1.4"))
    with pytest.raises(JournalError, match="sha256 differs"):
        metrics.cut(mark)
    assert metrics.path.read_bytes().count(b"\n") == 2


def test_the_digest_that_is_kept_is_that_of_the_file(tmp_path):
    metrics = Journal(tmp_path / "m")
    for n in range(5):
        metrics.append({"n": n})
    metrics.path.write_bytes(metrics.path.read_bytes() + b"by another\n")
    metrics.append({"n": 5})
    data = metrics.path.read_bytes()
    assert metrics.mark() == Journal(metrics.path).mark() == (len(data), hashlib.sha256(data).hexdigest())


def test_a_journal_is_held_by_one_process_and_its_torn_line_is_ended(tmp_path):
    journal = Journal(tmp_path / "j")
    (tmp_path / "j").write_bytes(b'{"a": 1}\n{"a": ')
    with journal.held():
        journal.append({"a": 2}, sync=True)
        with pytest.raises(JournalError, match="another process is working on this"), Journal(tmp_path / "j").held():
            pass
    assert list(journal.readable(journal.path)) == [{"a": 1}, {"a": 2}]


def test_a_broken_line_that_is_not_the_last_is_an_error(tmp_path):
    (tmp_path / "m").write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    with pytest.raises(JournalError, match="line 2 is not JSON"):
        Journal.read(tmp_path / "m")


# ---- progress


class Terminal:
    """Both ends of a pseudo terminal of a given width."""

    def __init__(self, columns):
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(slave, "w")

    def written(self):
        text = b""
        while select.select([self.master], [], [], 0.05)[0]:   # the kernel hands it over in pieces, a little later
            text += os.read(self.master, 100_000)
        return text.decode()

    def screen(self):
        """The lines as a reader sees them: a carriage return goes back and later letters replace earlier ones."""
        lines = []
        for raw in self.written().replace("\r\n", "\n").split("\n"):
            line = ""
            for piece in raw.split("\r"):
                line = piece + line[len(piece):]
            lines.append(line.rstrip())
        return lines

    def close(self):
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def terminal():
    made = []

    def make(columns=200):
        made.append(Terminal(columns))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_the_line_says_where_how_fast_and_how_long(terminal):
    screen, clock = terminal(), Clock()
    progress = Progress(3 * 391, 391, start_step=2 * 391, stream=screen.stream, clock=clock)
    for step in range(1, 121):
        clock.now += 0.25
        progress.update(2 * 391 + step, lambda: {"loss": 1.234, "acc %": 45.6}, items=64)
    text = screen.screen()[0]
    assert text == "epoch 3/3  step 120/391  loss 1.234  acc 45.6 %  256 images/s  01:08 left"


def test_the_last_step_of_an_epoch_belongs_to_it_and_hours_are_shown(terminal):
    screen, clock = terminal(), Clock()
    progress = Progress(10_000, 10, stream=screen.stream, clock=clock)
    clock.now += 10
    progress.update(10, lambda: {}, items=0)
    assert screen.screen() == ["epoch 1/1000  step 10/10  0 images/s  2:46:30 left"]


def test_nothing_is_divided_by_zero_at_the_first_moment(terminal):
    screen = terminal()
    Progress(10, 10, start_step=3, stream=screen.stream, clock=Clock()).update(3, lambda: {}, items=8)
    assert screen.screen() == ["epoch 1/1  step 3/10  -- images/s  --:-- left"]


def test_draws_at_most_five_times_a_second(terminal):
    screen, clock = terminal(), Clock()
    progress = Progress(1000, 1000, stream=screen.stream, clock=clock)
    for step in range(1, 1001):
        clock.now += 0.001
        progress.update(step, lambda: {}, items=1)
    assert 4 <= screen.written().count("\r") <= 6


def test_a_line_stays_above_the_moving_one_and_close_takes_that_away(terminal):
    screen, clock = terminal(), Clock()
    progress = Progress(10, 10, stream=screen.stream, clock=clock)
    progress.update(1, lambda: {"a_rather_long_name": 1.0}, items=1)
    progress.line("epoch 1 done")
    progress.line("")
    clock.now += 1
    progress.update(2, lambda: {}, items=1)
    progress.line("epoch 2 done")
    assert screen.screen() == ["epoch 1 done", "", "epoch 2 done", "epoch 1/1  step 2/10  2 images/s  00:04 left"]
    progress.update(3, lambda: {}, items=1)
    screen.written()
    progress.close()
    assert screen.screen() == [""]
    progress.close()


@pytest.mark.parametrize("columns", [1, 20, 41, 0])
def test_fits_the_width(terminal, columns):
    screen = terminal(columns)
    Progress(10, 10, stream=screen.stream, clock=Clock()).update(1, lambda: {f"loss{i}": 1.0 for i in range(20)}, items=1)
    columns = columns or 80
    assert columns - 3 <= len(screen.screen()[0]) <= columns - 1   # blanks at the cut are not seen


def test_without_a_terminal_only_lines_are_printed():
    stream = io.StringIO()
    progress = Progress(10, 10, stream=stream)
    progress.update(1, lambda: {"loss": 1.0}, items=1)
    progress.line("epoch 1 done")
    progress.close()
    assert stream.getvalue() == "epoch 1 done\n"


# ---- tracker


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
    arguments = {"project": "supernet-test", "name": "a run", "folder": folder, "config": {"seed": 1, "space": {"name": "toy"}},
                 "run_id": "abc123", "warn": warn, "timeout_s": 2}
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
    def log(self, record, step):
        raise ConnectionError("the service\nis gone")

    def finish(self, exit_code):
        raise ConnectionError("still gone")


def test_a_failure_in_the_middle_is_told_once_and_stops_nothing(tmp_path):
    told = []
    tracker = WandbTracker(Broken(), make_image=str, warn=told.append)
    tracker.log(1, {"loss": 1.0})
    tracker.log(2, {"loss": 1.0})
    tracker.image(2, "cell", lambda: tmp_path / "cell.png")
    tracker.finish(1)
    assert told == ["W&B: the service is gone; training goes on, metrics.jsonl has every number"]


def test_a_missing_picture_stops_nothing(tmp_path, wandb):
    told = []
    tracker, _ = start(tmp_path, "offline", warn=told.append)
    tracker.image(1, "cell", lambda: tmp_path / "missing.png")
    tracker.finish(0)
    assert len(told) == 1
