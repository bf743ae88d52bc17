"""Inputs that were found by fuzzing (`make fuzz`), and what has become of them: each is now refused in one line, or read."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from supernet.errors import MOST, Mendable, UsageError
from supernet.genotype import Genotype, GenotypeError
from supernet.runs import weights as weights_file
from supernet.spaces import toy
from supernet.tables.files import read_table
from supernet.tables.table import TableError
from supernet.torch_file import MAX_DEPTH, load_plain
from tests.fuzzing import seeds
from tests.fuzzing.oracle import held
from tests.fuzzing.targets import BY_NAME, Refused, command_line
from tests.fuzzing.targets import swept as read_sweep

DEEP = b"[" * 100_000


def saved(state) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def changed(data: bytes, *path, to) -> bytes:
    """JSON with another value at a path."""
    tree = json.loads(data)
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return json.dumps(tree).encode()


def weights(**parts) -> bytes:
    """A sealed file of weights, with other parts."""
    state = torch.load(io.BytesIO(seeds.weights()[0]), weights_only=True) | parts
    return saved(state | {"sha256": weights_file._digest(state)})


def one_tensor(change) -> bytes:
    own = torch.load(io.BytesIO(seeds.weights()[0]), weights_only=True)["state_dict"]
    name = next(iter(own))
    state = torch.load(io.BytesIO(seeds.weights()[0]), weights_only=True)
    state["state_dict"][name] = change(own[name])
    try:
        return saved(state | {"sha256": weights_file._digest(state)})
    except (RuntimeError, TypeError, NotImplementedError):
        return saved(state)


def search(change) -> bytes:
    """The checkpoint of a search, what it says of itself changed."""
    state = torch.load(io.BytesIO(seeds.checkpoints()[0]), weights_only=True)
    change(state["state"]["about"])
    return saved(state)


def program(opcodes: bytes) -> bytes:
    """A file of PyTorch that is made by these opcodes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + opcodes + b".")
        file.writestr("archive/version", b"3\n")
    return out.getvalue()


def lines(name: str, **to) -> bytes:
    return b"".join(json.dumps(json.loads(line) | to).encode() + b"\n" for line in seeds.planted_files()[name].splitlines())


TUPLES = b")" + b"q\x01h\x01h\x01\x86" * 60  # each holds the one before it twice
LISTS = b"]" + b"q\x01](h\x01h\x01e" * 60
STATUS, SUMMARY = seeds.planted_files()["run.json"], seeds.planted_files()["summary.json"]
FAIR = {"format": "supernet.genotype/1", "space": "toy", "arguments": {}, "fingerprint": "f", "cells": {"cell": [["[a]", 0, 1]]}}

# by what is wrong with it: the reader, the input, and whether it is read
FOUND = {
    "run.json whose digests of files are a text": ("run with run.json", changed(STATUS, "files", to="none").replace(
        json.loads(STATUS)["sha256"].encode(), b""), True),
    "options whose names are numbers": ("run with config.yaml", b"epochs: 2\n1.5: a\nnull: b\n", True),
    "options that name a class with a line end": ("run with config.yaml", b'relaxation: {_target_: "a\\nb\\u2028c\\0"}\n', True),
    "options that name a class of 5,000 letters": ("run with config.yaml", b"relaxation: {_target_: " + b"a" * 5000 + b"}\n", True),
    "an epoch that is a text": ("run with metrics.jsonl", lines("metrics.jsonl", epoch="{"), True),
    "seconds that are a list": ("run with metrics.jsonl", lines("metrics.jsonl", elapsed_s=[1]), True),
    "an epoch beyond all floats": ("run with metrics.jsonl", lines("metrics.jsonl", epoch=10**400), True),
    "a record nested without end": ("run with metrics.jsonl", DEEP + b"\n", True),
    "a job that ended in a list": ("run with jobs.jsonl", lines("jobs.jsonl", kind=[]), True),
    "a name of a value with a line separator": ("run with summary.json", json.dumps({"values": {"a\u2028b": 1.0}}).encode(), True),
    "a name of a value of 4,000 letters": ("run with summary.json", json.dumps({"values": {"é" * 4000: 1.0}}).encode(), True),
    "an explanation nested without end": ("run with explanation.json", DEEP, True),
    "an op whose name has brackets": ("genotype", json.dumps(FAIR).encode(), True),
    "an op whose name has brackets and quotes": ("genotype", changed(json.dumps(FAIR).encode(), "cells", "cell", to=[['"[\\', 0, 1]]),
                                                 True),
    "a node beyond all cells": ("drawing of a genotype", changed(json.dumps(FAIR).encode(), "cells", "cell", to=[["a", 0, 10**12]]), False),
    "an op whose name divides the text of a genotype": ("genotype in words", seeds.notations()[0].replace(b"sep_conv_3x3", b";a|b"), False),
    "an op whose name has a line end": ("genotype in words", seeds.notations()[0].replace(b"sep_conv_3x3", b"a\\nb"), False),
    "a latency beyond all floats": ("table of latencies", seeds.latencies()[0].replace(b"1.5", b"1" * 400), False),
    "an accuracy beyond single precision": ("page of a table", seeds.tables()[0].replace(b"91.5", b"1e300"), True),
    "what NATS-Bench knows is a text": ("import of NATS-Bench", changed(seeds.nats_answers()[0], 1, "cost", "params", to="many"), False),
    "what NATS-Bench knows is missing": ("import of NATS-Bench", changed(seeds.nats_answers()[0], 0, "info", to={}), False),
    "what NATS-Bench knows is a list": ("import of NATS-Bench", changed(seeds.nats_answers()[0], 0, "cost", to=[1]), False),
    "a checkpoint whose program is a text of no code": ("checkpoint", program(b"\xff\xfe\x00"), False),
    "a checkpoint without a program": ("checkpoint", program(b""), False),
    "a checkpoint of tuples that unfold": ("checkpoint", program(TUPLES), False),
    "a checkpoint with such a tuple for a key": ("checkpoint", program(b"}" + TUPLES + b"Ns"), False),
    "a checkpoint of lists that unfold": ("checkpoint", program(LISTS), False),
    "a checkpoint that holds itself": ("checkpoint", program(b"]q\x00h\x00a"), False),
    "a checkpoint nested too deep": ("checkpoint", program(b"]" * (MAX_DEPTH + 5) + b"a" * (MAX_DEPTH + 4)), False),
    "sparse weights": ("weights", one_tensor(torch.Tensor.to_sparse), False),
    "weights of one number that stands for many": ("weights", one_tensor(lambda own: torch.zeros(1).expand(10**6, 10**6)), False),
    "weights without numbers": ("weights", one_tensor(lambda own: own.to("meta")), False),
    "weights that are a parameter": ("weights", one_tensor(torch.nn.Parameter), True),
    "weights of complex numbers": ("network from weights", one_tensor(lambda own: own.to(torch.complex64)), False),
    "weights of double precision": ("network from weights", one_tensor(torch.Tensor.double), False),
    "data that are a text": ("network from a search", search(lambda about: about.update(data="images")), False),
    "data of a kind that is a list": ("network from weights", weights(data={"kind": []}), False),
    "data of a kind of 4,000 letters": ("network from weights", weights(data={"kind": "é" * 4000}), False),
    "a checkpoint that is a list": ("network from a search", program(b"]"), False),
    "normalisation that is a tensor": ("network from a search", search(lambda about: about.update(network=torch.ones(2))), False),
    "candidates that are a table": ("network from a search", search(lambda about: about["network"].update(
        candidates={"cell": torch.ones(3, 3, 2)})), False),
    "too few active ops": ("network from a search", search(lambda about: about["mean"]["cell"].update(active=[[True]] * 3)), False),
    "edge weights of another shape": ("network from a search", search(lambda about: about["mean"]["cell"].update(
        edges=torch.ones(2))), False),
    "edge weights of truth values": ("network from a search", search(lambda about: about["mean"]["cell"].update(
        ops=torch.ones(3, 3, dtype=torch.bool))), False),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about sparse tensors
@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_is_refused_in_one_line_or_read(what, tmp_path):
    name, data, is_read = FOUND[what]
    assert held(BY_NAME[name], data, tmp_path) == is_read


@pytest.mark.parametrize("words, told", [
    (["space=na\nch201"], "must be quoted"), (["epochs=" + "9" * 5000], "more digits"), (["relaxation=1.5"], "got a number"),
    (["relaxation=null"], "got null"), (["experiment=--"], r"and \d+ more"), (["name=" + "\x1b[2J"], "must be quoted"),
])
def test_a_command_line_is_refused_in_one_line(words, told):
    with pytest.raises(Refused, match=told):
        command_line(words)


def test_a_message_shows_what_it_tells_in_one_line_of_a_length_that_can_be_read():
    assert str(UsageError("a\nb\x1b[2J\u2028\ud800é")) == "a\\nb\\x1b[2J\\u2028\\ud800é"
    assert len(str(UsageError("a" * 10_000))) < MOST and str(UsageError("a" * 10_000 + "the end")).endswith("the end")
    assert issubclass(GenotypeError, Mendable) and str(GenotypeError("a\tb")) == "a\\tb"


def test_a_row_of_a_table_that_is_none_is_told_when_it_is_asked_for(tmp_path):
    head, names, first, *rest = seeds.tables()[0].decode().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([head, names, first, "|oops~0|,1,1,1", *rest]) + "\n")
    table = read_table(tmp_path / "t.csv", toy.make())
    with pytest.raises(TableError, match="t.csv: holds architectures of another space"):
        table.genotype(1)
    with pytest.raises(TableError, match="t.csv: holds architectures of another space"):
        table.value(table.genotype(0), "val_accuracy", isomorphic="mean")


def test_a_genotype_is_written_an_edge_a_line_whatever_its_ops_are_called(tmp_path):
    genotype = Genotype.from_json(FAIR | {"cells": {"cell": [['a"b', 0, 1], ["[c]", 0, 2], ["d", 1, 2]]}})
    genotype.save(tmp_path / "g.json", text="[not, a list]")
    written = (tmp_path / "g.json").read_text()
    assert Genotype.load(tmp_path / "g.json") == genotype and json.loads(written)["text"] == "[not, a list]"
    assert '   ["[c]", 0, 2]' in written and '   ["a\\"b", 0, 1]' in written


def test_what_a_file_of_pytorch_holds_is_read_as_it_was_saved():
    shared = [1, 2]
    state = {"a": torch.arange(6.0).reshape(2, 3), (1, "b"): [shared, shared], 3: (None, True, 2.5, "é"),
             "t": torch.nn.Parameter(torch.ones(2)),
             "deep": [[[[[]]]]], "transposed": torch.arange(6).reshape(2, 3).T}
    file = io.BytesIO(saved(state))
    found = load_plain(file, len(file.getvalue()))
    assert list(found) == list(state) and found[(1, "b")] == [[1, 2], [1, 2]] and found[3] == (None, True, 2.5, "é")
    np.testing.assert_array_equal(found["transposed"], state["transposed"])


def test_a_file_of_pytorch_is_no_zip_file_that_unpacks_to_more(tmp_path):
    whole = saved({"a": torch.zeros(1000)})
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as file, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in file.infolist():
            out.writestr(entry.filename, file.read(entry))
    with pytest.raises(ValueError, match="unpacks to more"):
        load_plain(packed, len(packed.getvalue()))
    with pytest.raises(ValueError, match="zip file"):
        load_plain(io.BytesIO(b"no"), 2)


def test_a_sweep_that_chooses_a_group_by_a_number_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("launcher: .inf\n")
    with pytest.raises(Refused, match="got a number"):
        read_sweep(tmp_path / "s.yaml")
