"""No reader fails otherwise than in one line, whatever it is given: a few inputs for each, made by hypothesis (`make fuzz` makes many).

HYPOTHESIS_PROFILE=long tries fifty times as many, and other ones each time.
"""

import os
import tempfile
from pathlib import Path
from random import Random

import pytest

from tests.fuzzing.mutations import KINDS, mutated
from tests.fuzzing.oracle import CANARY, Finding, Target, check_message, held
from tests.fuzzing.targets import TARGETS

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the extra test")
given, strategies = hypothesis.given, hypothesis.strategies

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SLOW = ("page", "drawing", "picture of a run", "run with", "sweep", "command line", "options of a script", "network",
        "weights over")  # 10 to 40 ms each


def examples(target: Target) -> int:
    few = 2 if any(target.name.startswith(word) or word in target.name for word in SLOW) else 8
    return few * 50 if LONG else few


def settings(target: Target):
    """The same inputs at every start; how long one takes decides nothing."""
    return hypothesis.settings(max_examples=examples(target), derandomize=not LONG, database=None, deadline=None,
                               suppress_health_check=list(hypothesis.HealthCheck), print_blob=False)


@pytest.mark.filterwarnings("ignore")  # of libraries, about what they are given; a reader that warns in a way of its own is no fault
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_a_reader_refuses_in_one_line_or_accepts_what_reads_again_as_the_same(target):
    seeds = target.seeds()

    @settings(target)
    @given(strategies.sampled_from(range(len(seeds))), strategies.randoms(use_true_random=False))
    def tried(n: int, rng: Random) -> None:
        data = mutated(target.of, seeds[n], rng)
        with tempfile.TemporaryDirectory() as folder:
            held(target, data, Path(folder))

    tried()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_every_seed_is_an_input_that_its_reader_accepts(target, tmp_path):
    for n, data in enumerate(target.seeds()[:2]):
        (tmp_path / str(n)).mkdir()
        assert held(target, data, tmp_path / str(n)), n


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_cannot_be_taken_apart_is_changed_all_the_same(kind):
    made = {mutated(kind, b"no such thing", Random(n)) for n in range(40)}
    assert len(made) > 5


# ---- the oracle itself: each kind of fault is one that it finds

def _reader(read, **more):
    return Target("a reader", "bytes", lambda: [b""], lambda folder, data: folder, read, **more)


def _raises(error):
    def read(folder):
        raise error

    return read


def _runs_code(folder):
    __import__(CANARY)


def _never_ends(folder):
    while True:
        pass


FAULTS = {
    "another error": (_reader(_raises(KeyError("a"))), "KeyError"),
    "an end of the process": (_reader(_raises(SystemExit(3))), "SystemExit"),
    "a line end in the message": (_reader(_raises(ValueError("a\nb")), raises=(ValueError,)), "message"),
    "a terminal's escape in the message": (_reader(_raises(ValueError("\x1b[2J")), raises=(ValueError,)), "message"),
    "no message": (_reader(_raises(ValueError()), raises=(ValueError,)), "no message"),
    "a message without end": (_reader(_raises(ValueError("a" * 9999)), raises=(ValueError,)), "long message"),
    "a file that is written": (_reader(lambda folder: (folder / "a").write_text("")), "side effect"),
    "a folder that is made": (_reader(lambda folder: (folder / "a").mkdir()), "side effect"),
    "a process": (_reader(lambda folder: os.system("true")), "side effect"),
    "code that an input names": (_reader(_runs_code), "side effect"),
    "memory without end": (_reader(lambda folder: bytearray(2**33)), "MemoryError"),
    "what is accepted, and another one when read again": (_reader(lambda folder: 1, check=lambda value, folder: 1 / 0), "check"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_oracle_finds(fault, tmp_path):
    target, key = FAULTS[fault]
    with pytest.raises(Finding) as found:
        held(target, b"", tmp_path)
    assert found.value.key.startswith(key)


def test_the_oracle_finds_a_reader_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzzing.oracle.CPU_S", 0.2)
    with pytest.raises(Finding, match="processor time"):
        held(_reader(_never_ends), b"", tmp_path)


def test_a_reader_may_write_only_below_its_own_folder(tmp_path):
    (tmp_path / "in").mkdir()
    assert held(_reader(lambda folder: (folder / "a").write_text(""), writes=True), b"", tmp_path / "in")
    with pytest.raises(Finding, match="for writing"):
        held(_reader(lambda folder: (tmp_path / "a").write_text(""), writes=True), b"", tmp_path / "in")


def test_a_message_of_one_plain_line_is_none_of_its_findings():
    check_message(ValueError("runs/a: expected é, got 'b\\n'"))
