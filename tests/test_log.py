import errno
import fcntl
import hashlib
import io
import math
import os
import select
import struct
import termios

import pytest

from supernet.files import damaged_lines
from supernet.runs.journal import Journal, JournalError, Mark
from supernet.runs.log import Progress
from supernet.runs.progress import Counted, pace, tracked

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
    assert metrics.path.read_text().startswith('{"a": null, "b": [null, {"c": null}], "sum": ')
    assert Journal.read(metrics.path) == [{"a": None, "b": [None, {"c": None}]}]


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


def test_a_line_with_one_flipped_bit_is_known_by_every_reader(tmp_path):
    journal = Journal(tmp_path / "j")
    for n in range(3):
        journal.append({"n": n, "value": 0.125, "word": "skip_connect"})
    whole = journal.path.read_bytes()
    begin, end = (len(b"".join(whole.splitlines(keepends=True)[:n])) for n in (1, 2))
    told = 0
    for bit in range(8 * begin, 8 * end - 8):  # of the second line
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        journal.path.write_bytes(data)
        found = [{key: record.get(key) for key in ("n", "value", "word")} for record in journal.readable(journal.path)]
        if len(found) == 3:  # its digest is known by another name now; what it is of is what was written
            assert found == [{"n": n, "value": 0.125, "word": "skip_connect"} for n in range(3)], data
            continue
        told += 1
        assert [record["n"] for record in found] == [0, 2], data
        with pytest.raises(JournalError):
            Journal.read(journal.path)
        assert damaged_lines(bytes(data))
    assert told > 8 * (end - begin) * 0.9


def test_a_record_that_cannot_be_kept_is_one_line(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    journal.keep({"n": 0})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JournalError, match="j: cannot write .No space left on device.; what it has is kept") as error:
        journal.keep({"n": 1})
    assert "\n" not in str(error.value) and Journal.read(journal.path)[0] == {"n": 0}


def test_a_line_of_an_earlier_version_has_no_digest_and_is_read(tmp_path):
    (tmp_path / "j").write_text('{"n": 0}\n{"n": 1}\n')
    assert Journal.read(tmp_path / "j") == list(Journal.readable(tmp_path / "j")) == [{"n": 0}, {"n": 1}]


def test_a_broken_line_that_is_not_the_last_is_an_error(tmp_path):
    (tmp_path / "m").write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    with pytest.raises(JournalError, match="line 2 is damaged"):
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


def test_without_a_terminal_the_line_is_printed_now_and_then_more_and_more_rarely():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(10_000, 100, stream=stream, clock=clock)
    for step in range(1, 4000):
        clock.now += 1
        progress.update(step, lambda: {}, items=1)
    steps = [int(line.split("step ")[1].split("/")[0]) + 100 * (int(line.split("/")[0].split()[1]) - 1)
             for line in stream.getvalue().splitlines()]
    assert steps == [60, 180, 420, 900, 1500, 2100, 2700, 3300, 3900]
    stream.truncate(0), stream.seek(0)
    for _ in range(100):  # who prints lines of its own needs no others
        clock.now += 59
        progress.update(4000, lambda: {}, items=1)
        progress.line("epoch")
    assert set(stream.getvalue().splitlines()) == {"epoch"}


# ---- pieces of work


def test_pieces_of_work_are_counted_with_their_pace_the_time_left_and_the_last_one(terminal):
    screen, clock = terminal(), Clock()
    with Counted(120, "architectures", stream=screen.stream, clock=clock) as counted:
        for n in range(30):
            clock.now += 2
            counted.add(said=f"cell {n}")
        assert screen.screen() == ["30/120 architectures  30 a minute  03:00 left  cell 29"]
        counted.line("note: one failed")
        assert screen.screen() == ["note: one failed", "30/120 architectures  30 a minute  03:00 left  cell 29"]
    assert screen.screen() == [""], "it is taken away at the end"


def test_where_nothing_is_done_yet_no_time_is_made_up(terminal):
    screen = terminal()
    Counted(3, "cells", stream=screen.stream, clock=Clock()).add(0)
    assert screen.screen() == ["0/3 cells  --:-- left"]


def test_a_log_gets_no_line_of_what_is_done_within_a_minute():
    stream, clock = io.StringIO(), Clock()
    with Counted(100, "frames", stream=stream, clock=clock) as counted:
        for _ in range(59):
            clock.now += 1
            counted.add()
        assert stream.getvalue() == ""
        clock.now += 1
        counted.add(said="the last")
    assert stream.getvalue() == "60/100 frames  1.0 a second  00:40 left  the last\n"


def test_a_pace_has_the_unit_in_which_it_is_at_least_one():
    assert [pace(n, s) for n, s in ((1, 0), (25, 10), (1, 2), (3, 3600), (4000, 2))] == ["", "2.5 a second", "30 a minute", "3.0 an hour",
                                                                                   "2,000 a second"]


def test_work_after_the_steps_has_a_clock_of_its_own(terminal):
    screen, clock = terminal(), Clock()
    progress = Progress(10, 10, stream=screen.stream, clock=clock)
    for n in range(6):
        progress.working(n, 10, "finalists")
        clock.now += 2
    assert screen.screen() == ["5/10 finalists  30 a minute  00:10 left"]
    progress.working(0, 4, "test batches")
    assert screen.screen()[-1].rstrip() == "0/4 test batches  --:-- left"


def test_pieces_are_counted_as_the_next_one_is_asked_for(terminal):
    screen = terminal()
    seen = []
    for n, piece in enumerate(tracked(["a", "b"], "rounds", screen.stream)):
        seen.append(piece)
        assert screen.screen()[-1].startswith(("", "1/2 rounds")[n])
    assert seen == ["a", "b"] and screen.screen()[-1] == ""
