"""Pickles of others: what a published batch needs, and nothing else, is built."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from supernet.data.base import DataError
from supernet.data.cifar import read_batch
from supernet.data.pickled import read_pickle


def batch(rows=3):
    return {b"data": np.arange(rows * 3072).astype(np.uint8).reshape(rows, 3072), b"labels": [n % 10 for n in range(rows)],
            b"filenames": [b"a.png"] * rows}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_a_batch_holds_is_built(tmp_path, protocol):
    (tmp_path / "b").write_bytes(pickle.dumps(batch(), protocol=protocol))
    found = read_pickle(tmp_path / "b")
    assert np.array_equal(found[b"data"], batch()[b"data"]) and found[b"data"].dtype == np.uint8
    assert found[b"labels"] == [0, 1, 2] and found[b"filenames"] == [b"a.png"] * 3


def dtype_with_state(state):
    """A pickle of {b"data": dtype("u1") with this state}."""
    return b"\x80\x03}C\x04datacnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R" + pickle.dumps(state, 2)[2:-1] + b"bs."


def array_with(old, new):
    """A pickle of an array of eight bytes, one thing that it says of itself changed."""
    good = pickle.dumps({b"data": np.zeros(8, np.uint8)}, protocol=3)
    assert old in good
    return good.replace(old, new)


def twice(depth=60):
    """A tuple of a tuple ... of two each: a few bytes that take for ever to walk, to hash and to print."""
    return b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(depth))


HOSTILE = {
    "a type with fields": dtype_with_state((3, "|", ("u1",), ("a",), {"a": 1}, 2**31 - 1, 8, 63)),
    "a type with many names": dtype_with_state((3, "|", None, ("a",) * 2000, {("a",): 2}, -1, -1, 0)),
    "a type with a subarray": dtype_with_state((4, "|", ("u1", (2**30,)), None, None, 2**31 - 1, 2**30, 63, {})),
    "an array that says it holds objects": b"\x80\x03}C\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"(K\x01M\xb8\x0b\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x3ftb\x89](" + b"K\x07" * 3000 + b"etbs.",
    "an array longer than its bytes": array_with(b"K\x08\x85", b"J\xff\xff\xff\x7f\x85"),
    "an array of negative length": array_with(b"K\x08\x85", b"J\xff\xff\xff\xff\x85"),
    "an array without bytes": array_with(b"C\x08" + bytes(8), b"N"),
    "a key that is hashed": b"\x80\x03}" + twice() + b"K\x01s.",
    "labels without end": b"\x80\x03}C\x06labels" + twice() + b"sC\x04data" + twice() + b"s.",
    "an error that lists": b"\x80\x03}C\x04data" + twice() + b"sC\x05other" + twice() + b"s.",
    "no dict": b"\x80\x03" + twice() + b".",
    "a type of tuples": b"\x80\x03cnumpy\ndtype\n" + twice() + b"\x85R.",
    "a text of tuples": b"\x80\x03c_codecs\nencode\n" + twice() + b"\x85R.",
}


def test_hostile_pickles_neither_crash_nor_hang(tmp_path):
    """In a process of its own: what crashes numpy would take pytest with it."""
    for n, content in enumerate(HOSTILE.values()):
        assert len(content) < 25_000
        (tmp_path / f"b{n:02}").write_bytes(content)
    code = ("import sys; from pathlib import Path; from supernet.data.base import DataError; from supernet.data.cifar import read_batch\n"
            "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
            "    try: read_batch(b'labels')(path, 3); print('read')\n"
            "    except DataError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=100,
                          cwd=Path(__file__).parent.parent)
    assert done.returncode == 0 and not done.stderr, done
    lines = dict(zip(HOSTILE, done.stdout.splitlines(), strict=True))
    assert all(f"b{n:02} must " in line and len(line) < 600 for n, line in enumerate(lines.values())), lines


@pytest.mark.parametrize("content", [
    b"\x80\x03cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.", b"\x80\x03cnumpy\nndarray\n)R.", b"\x80\x03cnumpy\ndtype\n)\x81.",
    b"\x80\x03c_codecs\nencode\n}b.", b"\x80\x030.", b"\x80\x03", b"", b"\x80\x03]", b"\x80\x03t.", b"\x80\x03h\x07.",
    b"\x80\x04\x8e" + b"\xff" * 8 + b".", b"\x80\x03]]s.", b"\x80\x03}]K\x01s.", b"cos\nsystem\n(S'true'\ntR.",
])
def test_other_programs_are_refused(tmp_path, content):
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(DataError, match="b must be an undamaged pickle of plain data") as caught:
        read_pickle(tmp_path / "b")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("changes, message", [
    ({b"labels": [0, 1]}, "got list of 2"), ({b"labels": (0, 1, 2)}, "got tuple"), ({b"labels": [0, [1], 2]}, "got list of 3"),
    ({b"labels": [0, 1.5, 2]}, "got list of 3"), ({b"labels": [0, 2**70, 1]}, "got list of 3"), ({b"labels": None}, "got NoneType"),
    ({b"data": [1, 2, 3]}, "got list"), ({b"data": np.zeros((3, 4), np.uint8)}, r"got uint8 \(3, 4\)"),
])
def test_a_batch_is_held_against_its_types_before_use(tmp_path, changes, message):
    (tmp_path / "b").write_bytes(pickle.dumps(batch() | changes, protocol=2))
    with pytest.raises(DataError, match=f"must hold 3 rows of 3072 uint8 pixels .*{message}"):
        read_batch(b"labels")(tmp_path / "b", 3)
