"""Inputs that are nearly right: a valid one, taken apart as its readers take it apart, changed in a few places, put together and sealed.

`mutated(kind, data, rng)` never raises: what cannot be taken apart is changed byte by byte. The same function serves hypothesis, which can
shrink what `rng` draws, and libFuzzer, which hands in a seed.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

from supernet.runs import weights as weights_file
from supernet.runs.folder import _digest as run_digest
from supernet.runs.journal import AFTER, LINK
from tests.fuzzing.oracle import CANARY

CHANGES = (1, 1, 1, 2, 3)  # of one input; more, and hardly one is accepted
HUGE = 200_000  # characters of a long text, entries of a long list
TEXTS = ("", " ", "\n", "a\nb", "\x00", "\x1b[2J", "\u2028", "\ud800", "\U0001f600", "</script><fuzz>", "<!--", "]]>",
         "../../../etc/passwd",
         "/dev/zero", "nan", "-inf", "1e999", "${oc.env:HOME}", "${oops", "=", ",", "'", '"', "\\", "%s%n", "{", "[", "~", "null", "true",
         "0",
         "x" * 300, "é" * 4000, "none", "supernet.genotype/1", "a: b", "- a", "*a", "&a", "!!python/object/apply:os.mkdir [pwned]", CANARY,
         f"{CANARY}.touch", "1" * 5000, "2026-11-29T00:00:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59")
NUMBERS = (0, -1, 1, 2, 7, 255, 256, 65_536, 2**31, -2**31, 2**32, 2**53 + 1, 2**63, -2**63 - 1, 2**64, 10**30, 10**309, 10**5000, 0.0,
           -0.0, 0.5,
           1e-320, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"))
RAW = "@raw@"  # stands for a text that json.dumps would not write
DEEP = ("[" * 500 + "]" * 500, "[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, "NaN", "-Infinity", "1e999", "01", "'a'", '"\\ud800"',
        "\x00",
        "1" * 5000, "//", '"' + "x" * HUGE + '"')


def mutated(kind: str, data: bytes, rng: Random) -> bytes:
    """`data` changed in a few places."""
    for _ in range(rng.choice(CHANGES)):
        change = rng.choice(KINDS[kind]) if rng.random() < 0.85 else noise
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = change(data, rng)
    return data


# ---- bytes


def noise(data: bytes, rng: Random) -> bytes:
    """Flips, cuts, copies and insertions."""
    if not data:
        return bytes([rng.randrange(256)])
    at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    what = rng.randrange(7)
    if what == 0:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
    if what == 1:
        return data[:at]
    if what == 2:
        return data[:at] + data[to:]
    if what == 3:
        return data[:to] + data[at:]
    if what == 4:
        mark = rng.choice((b"\0", b"\n", b"\xff", b"\xef\xbb\xbf", b"{", b"[", b"\r\n", b'"', b"-"))
        return data[:at] + mark * rng.choice((1, 2, 40)) + data[at:]
    if what == 5:
        return data[:at] + rng.choice(TEXTS).encode("utf-8", "surrogatepass") + data[to if rng.random() < 0.5 else at:]
    return data[:at] + struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 2**31, 2**32 - 1, 65_535, 100_000_000))) + data[at + 4:]


# ---- plain values


def value(rng: Random, depth: int = 0) -> Any:
    """One that is seldom right."""
    what = rng.randrange(9)
    if what < 3:
        return rng.choice(TEXTS)
    if what < 6:
        return rng.choice(NUMBERS)
    if what == 6 or depth > 1:
        return rng.choice((None, True, False))
    if what == 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(("", "a", "epoch", "_target_", "\n", "normal")): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value within, as its holder and its key there."""
    found, left = [], [tree]
    while left and len(found) < 2000:
        node = left.pop()
        for key, child in list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []:
            found.append((node, key))
            left.append(child)
    return found


def changed(tree: Any, rng: Random, make: Callable[[Random], Any] = value) -> Any:
    """The tree with one value or key changed, in place where it can be. make: a new value."""
    there = places(tree)
    if not there:
        return make(rng)
    holder, key = rng.choice(there)
    what, old = rng.randrange(8), holder[key]
    if what < 4:
        holder[key] = make(rng)
    elif what == 4:
        del holder[key]
    elif what == 5:
        other, place = rng.choice(there)
        holder[key] = json.loads(json.dumps(other[place])) if isinstance(other[place], dict | list) else other[place]
    elif what == 6:
        if isinstance(holder, list):
            holder[key:key] = [old] * rng.choice((1, 2, 50))
        else:
            holder[rng.choice(TEXTS)] = holder.pop(key)
    else:
        holder[key] = {"a": old} if rng.random() < 0.5 else [old]
    return tree


# ---- JSON


def dumped(tree: Any, rng: Random) -> str:
    """As JSON; now and then with what json.dumps would not write: a key twice, numbers without end, a thousand brackets."""
    if rng.random() < 0.15 and (there := places(tree)):
        holder, key = rng.choice(there)
        if isinstance(holder, dict) and rng.random() < 0.4:
            holder[f"{key}{RAW}"] = value(rng)
            text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
            return text.replace(f'{RAW}"', '"')
        holder[key] = RAW
        return _json(tree).replace(f'"{RAW}"', rng.choice(DEEP))
    return _json(tree) if rng.random() < 0.8 else json.dumps(tree, indent=1, ensure_ascii=True)


def _json(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def json_tree(data: bytes, rng: Random) -> bytes:
    return _encoded(dumped(changed(json.loads(data), rng), rng))


def json_words(data: bytes, rng: Random) -> bytes:
    """A number or a text in place of another one, as it stands."""
    words = list(re.finditer(rb'-?\d[\d.e+-]*|"[^"\\]*"', data))
    found = rng.choice(words)
    return data[: found.start()] + _encoded(rng.choice((*DEEP, *map(_json, TEXTS),
                                                        *(repr(n) for n in NUMBERS if n < 10**400)))) + data[found.end():]


def run_json(data: bytes, rng: Random) -> bytes:
    """Of run.json, with the digest that it is checked by."""
    tree = changed(json.loads(data), rng)
    if rng.random() < 0.9 and isinstance(tree, dict):
        tree["sha256"] = run_digest(tree)
    return _encoded(dumped(tree, rng))


def genotype_json(data: bytes, rng: Random) -> bytes:
    """Of genotype.json, mostly without the digest, as one that was edited on purpose; or of its edges alone."""
    tree = json.loads(data)
    if rng.random() < 0.9:
        tree.pop("digest", None)
    if rng.random() < 0.4 and isinstance(tree.get("cells"), dict):
        edges = rng.choice([rows for rows in tree["cells"].values() if isinstance(rows, list) and rows])
        edge = rng.choice(edges)
        edge[rng.randrange(3)] = rng.choice((0, 1, 2, 3, 5, "none", "skip_connect", "sep_conv_3x3", "nor_conv_3x3", "tanh", edge[0]))
        return _encoded(_json(tree))
    return _encoded(dumped(changed(tree, rng), rng))


def explanation_json(data: bytes, rng: Random) -> bytes:
    from supernet.report.explanation import _digest

    tree = json.loads(data)
    tree.pop("sha256", None)
    tree = changed(tree, rng)
    return _encoded(dumped(tree | {"sha256": _digest(tree)}, rng))


def json_lines(data: bytes, rng: Random) -> bytes:
    """Of records a line: one of them changed, gone, twice, or no record."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    what = rng.randrange(6)
    if what < 3 and lines[at]:
        lines[at] = json_tree(lines[at], rng).replace(b"\n", b" ")
    elif what == 3:
        lines[at:at] = [lines[rng.randrange(len(lines))]] * rng.choice((1, 3))
    elif what == 4:
        del lines[at]
    else:
        lines[at] = _encoded(rng.choice((*DEEP, *TEXTS)))
    return b"\n".join(lines)


def chained_lines(data: bytes, rng: Random) -> bytes:
    """The same, each line with the digest of those before it."""
    sha, found = hashlib.sha256(), []
    for line in json_lines(data, rng).split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and rng.random() < 0.97:
                line = _encoded(_json(record | {AFTER: sha.hexdigest()[:LINK]}))
        if line:
            sha.update(line + b"\n")
            found.append(line)
    return b"\n".join(found) + b"\n" * (rng.random() < 0.8)


# ---- YAML


SNIPPETS = ("a: &x [1, 2]\nb: [*x, *x]\n", "a: !!python/object/apply:os.mkdir [pwned]\n", f"a: !!python/name:{CANARY}.touch\n",
            "? [a]\n: b\n",
            "<<: {epochs: 1}\n", "a: " + "[" * 60 + "]" * 60 + "\n", "--- \n- a\n--- \nb\n", "a: 2026-11-29\n", "a: 0o17\n", "a: 1_000\n",
            "a: .inf\n",
            "a: !!binary aGVsbG8=\n", "a: !!set {b, c}\n", "1: 2\n", "null: 3\n", "true: 4\n", "a: |\n  b\n", "%YAML 9.9\n---\na: 1\n",
            "a: ${a}\n",
            "a: ${oc.env:HOME}\n", "a: ???\n", "\ta: 1\n", "a: 1\na: 2\n", "a: {b: ${..b}}\n", "2026-11-29: 1\n", "1.5: 2\n", "[1, 2]: 3\n",
            "'': 1\n", "a.b: 1\n", "a: 0x_\n", "a: 190:20:30\n", "a: 2026-99-99\n")


def yaml_tree(data: bytes, rng: Random) -> bytes:
    tree = changed(yaml.safe_load(data), rng)
    return _encoded(yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5))


def yaml_lines(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines) + 1)
    indent = rng.choice((b"", b"  "))
    return b"".join([*lines[:at], indent, rng.choice(SNIPPETS).encode(), *lines[at + rng.randrange(2):]])


# ---- tables


def cells(data: bytes, rng: Random) -> bytes:
    """Of CSV, behind a first line of JSON where there is one."""
    head, rest = (data.partition(b"\n")[::2] if data.startswith(b"#") else (b"", data))
    if head and rng.random() < 0.4:
        return b"# " + json_tree(head[1:], rng).replace(b"\n", b" ") + b"\n" + rest
    rows = list(csv.reader(io.StringIO(rest.decode())))
    row = rng.choice(rows)
    what = rng.randrange(6)
    if what < 3:
        row[rng.randrange(len(row))] = str(rng.choice((*TEXTS, *(n for n in NUMBERS if n < 10**400))))
    elif what == 3:
        rows.insert(rng.randrange(len(rows) + 1), list(row))
    elif what == 4:
        rows.remove(row)
    else:
        row[rng.randrange(len(row)):] = [] if rng.random() < 0.5 else ["1"] * 20
    out = io.StringIO()
    csv.writer(out, lineterminator=rng.choice(("\n", "\r\n"))).writerows(rows)
    return (head + b"\n" if head else b"") + _encoded(out.getvalue())


def packed(inner: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """Within gzip."""
    def change(data: bytes, rng: Random) -> bytes:
        if data[:2] != b"\x1f\x8b":
            return inner(data, rng)
        return gzip.compress(inner(gzip.decompress(data), rng), mtime=0)

    return change


def gzip_tricks(data: bytes, rng: Random) -> bytes:
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    whole = gzip.compress(plain, mtime=0)
    return rng.choice((whole, whole + whole, whole + b"\0" * 50, whole + b"x", whole[: len(whole) // 2], whole[:10],
                       whole[:-8] + b"\0" * 8, whole + gzip.compress(b"\0" * 3_000_000), gzip.compress(whole), plain,
                       whole[:3] + bytes([rng.randrange(256)]) + whole[4:], b"\x1f\x8b", gzip.compress(b"")))


# ---- text


def words(data: bytes, rng: Random) -> bytes:
    """A word, a number or a mark replaced by another one of the text, or by an odd one."""
    text = data.decode("utf-8", "surrogateescape")
    parts = list(re.finditer(r"\w+|[^\w\s]", text))
    found = rng.choice(parts)
    other = rng.choice((rng.choice(parts).group(), rng.choice(TEXTS), str(rng.choice(NUMBERS[:12])), "range(0, 9999999999)", "[" * 300,
                        "(" * 90,
                        "-" * 5000 + "1", "lambda: 0", "__import__('os').mkdir('pwned')", "0x_", "0777", "1j", "b'x'", "f'{1}'",
                        "'\\N{oops}'", "*", "**{}",
                        "|", "~", "+", ";", ":", "||", "True", "None", "...", "range(range(3))", "list(range(2, 6))", "|a~0|" * 50))
    return (text[: found.start()] + other + text[found.end() if rng.random() < 0.7 else found.start():]).encode("utf-8", "surrogateescape")


# ---- zip, npz, npy


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return [(entry.filename, file.read(entry)) for entry in file.infolist()]


def _zipped(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in entries:
            file.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def zip_entries(data: bytes, rng: Random) -> bytes:
    entries = _entries(data)
    at = rng.randrange(len(entries))
    name, content = entries[at]
    what = rng.randrange(7)
    if what == 0:
        del entries[at]
    elif what == 1:
        entries[at] = rng.choice(("../" + name, "/" + name, name.upper(), name + "\n", "\ud83d" + name, "", name * 50,
                                  name.replace(".npy", ""))), content
    elif what == 2:
        entries.append(entries[at])
    elif what == 3:
        entries[at] = name, noise(content, rng)
    elif what == 4:
        entries[at] = name, entries[rng.randrange(len(entries))][1]
    elif what == 5:
        entries[at] = name, content + b"\0" * 20_000_000
    else:
        entries[at] = name, b""
    return _zipped(entries, zipfile.ZIP_DEFLATED if what == 5 else rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)))


def zip_headers(data: bytes, rng: Random) -> bytes:
    """Sizes, methods, flags and digests of the entries, where the file says them."""
    marks = [found.start() for found in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
    at = rng.choice(marks) + rng.choice((4, 6, 8, 10, 14, 18, 20, 22, 24, 26, 28, 42))
    return data[:at] + struct.pack("<I", rng.choice((0, 1, 8, 14, 99, 2**31, 2**32 - 1, 100_000_000))) + data[at + 4:]


DTYPES = ("|u1", "<i8", "<f4", "<f8", "<f2", ">f8", "|b1", "<c16", "<U5", "|S3", "<U1000000000", "|O", "<M8[s]", "<m8[ns]", "|V8", "<f16",
          "<U0")


def npy_arrays(data: bytes, rng: Random) -> bytes:
    """Another type, shape or value of an array, which is written as such a one would be."""
    entries = _entries(data)
    at = rng.randrange(len(entries))
    array = np.lib.format.read_array(io.BytesIO(entries[at][1]), allow_pickle=False)
    out, what = io.BytesIO(), rng.randrange(6)
    if what == 0:
        made = array.astype(rng.choice([d for d in DTYPES if "O" not in d and "000" not in d]))
    elif what == 1:
        made = array.reshape(rng.choice([(-1,), (1, -1), (array.size, 1), (-1, 1, 1, 1)]))
    elif what == 2:
        made = array[: rng.randrange(len(array) + 1)] if array.ndim else array
    elif what == 3:
        made = array.copy()
        made.reshape(-1)[rng.randrange(made.size)] = rng.choice((0, 1, -1, 255, np.inf, np.nan, 2**31, -2**63, 1e308, "", "\ud800",
                                                                 "x" * 50))
    elif what == 4:
        made = np.concatenate([array, array]) if array.ndim else np.array([array, array])
    else:
        made = np.full((rng.choice((0, 1, 3)),) * rng.randrange(5), array.reshape(-1)[0], array.dtype)
    np.lib.format.write_array(out, made, allow_pickle=False)
    entries[at] = entries[at][0], out.getvalue()
    return _zipped(entries)


def npy_headers(data: bytes, rng: Random) -> bytes:
    """What the head of an array says of it, which its bytes need not be."""
    entries = _entries(data)
    at = rng.randrange(len(entries))
    name, content = entries[at]
    length = struct.unpack("<H", content[8:10])[0]
    body = content[10 + length:]
    shape = rng.choice(("()", "(0,)", "(1,)", "(-1,)", "(10**9,)", "(1000000000,)", "(9223372036854775807, 2)",
                        "(2, 0, 9223372036854775807)", "(1.5,)",
                        "('a',)", "[3]", "(" * 100 + ")" * 100, "(1," * 30 + ")" * 30, "(True,)", f"({len(body)},)", f"(1, {len(body)})"))
    said = rng.choice((f"{{'descr': {rng.choice(DTYPES)!r}, 'fortran_order': {rng.choice(('False', 'True', '3'))}, 'shape': {shape}, }}",
                       "{'descr': [('a', '<i8'), ('b', '|O')], 'fortran_order': False, 'shape': (2,), }", "{}", "[]", "{" * 200,
                       "__import__('os')",
                       "{'descr': ('<i8', (1000000,)), 'fortran_order': False, 'shape': (1000000,), }",
                       content[10: 10 + length].decode("latin1")))
    head = said.encode("latin1").ljust(rng.choice((length, 118, 70_000 if rng.random() < 0.1 else 118))) + b"\n"
    version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x04\x00", b"\x00\x00"))
    size = struct.pack("<H" if version[0] < 2 else "<I", len(head) if version[0] >= 2 else len(head) % 65_536)
    if rng.random() < 0.3:
        body = body[: rng.randrange(len(body) + 1)]
    entries[at] = name, b"\x93NUMPY" + version + size + head + body
    return _zipped(entries)


# ---- pickles


def opcodes(data: bytes, rng: Random) -> bytes:
    """Opcodes gone, twice, moved, or such as build what never ends, call something, or take what is not there."""
    at = [position for _, _, position in pickletools.genops(data)]
    cut = [data[a:b] for a, b in zip(at, [*at[1:], len(data)])]
    n = rng.randrange(len(cut))
    odd = (b"ctests.fuzzing.canary\ntouch\n)R", b"cos\nsystem\n(S'true'\ntR", b"\x8c\x02os\x8c\x06system\x93", b"(", b")", b"]", b"}",
           b"R", b"b", b"0", b"2",
           b"a", b"e", b"u", b"s", b"t", b"\x85", b"\x86", b"\x87", b"N", b"\x88", b"K\xff", b"J\xff\xff\xff\x7f",
           b"\x8a\x09" + b"\x7f" * 9,
           b"G" + struct.pack(">d", float("nan")), b"B" + struct.pack("<I", 2**32 - 1), b"\x8e" + struct.pack("<Q", 2**62), b"h\x00",
           b"j\xff\xff\xff\xff",
           b"q\x00", b"r\xff\xff\xff\xff", b"\x94", b"(" + b"h\x00" * 9 + b"l", b"]q\x00" + b"(h\x00h\x00e" * 40, b"\x82\x01", b"Q",
           b"P1\n", b"\x97", b".",
           b"\x80\x05", b"\x95" + struct.pack("<Q", 2**60), b"L" + b"1" * 5000 + b"L\n", b"I" + b"9" * 5000 + b"\n",
           b"X\x02\x00\x00\x00\xed\xa0",
           b")" + b"q\x01h\x01h\x01\x86" * 60, b"]" + b"q\x01](h\x01h\x01e" * 60, b"}" + b")" + b"q\x01h\x01h\x01\x86" * 60 + b"Ns",
           b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR", b"cbuiltins\neval\n", b"F1e999\n", b"S'\\x'\n",
           b"V\\ud800\n")
    what = rng.randrange(6)
    if what < 2:
        cut.insert(n, rng.choice(odd))
    elif what == 2:
        cut[n] = rng.choice(odd)
    elif what == 3:
        del cut[n]
    elif what == 4:
        cut[n:n] = [cut[n]] * rng.choice((1, 30))
    else:
        cut[n], cut[-1 - n] = cut[-1 - n], cut[n]
    return b"".join(cut)


# ---- PyTorch's files


def tensor(rng: Random) -> Any:
    """A tensor, or an odd value."""
    made = (lambda: torch.zeros(0), lambda: torch.tensor(float("nan")), lambda: torch.zeros(2, 3),
            lambda: torch.zeros(3, dtype=torch.int64),
            lambda: torch.zeros(2, dtype=torch.complex64), lambda: torch.zeros(1).expand(1000, 1000), lambda: torch.zeros(2, 2).to_sparse(),
            lambda: torch.zeros(4, dtype=torch.bool), lambda: torch.full((5,), float("inf")), lambda: torch.nn.Parameter(torch.zeros(2)),
            lambda: torch.empty(3, 4, device="meta"), lambda: torch.zeros(2, dtype=torch.bfloat16), lambda: b"bytes", lambda: (1, 2),
            lambda: {1, 2},
            lambda: {1: 2}, lambda: {None: 1}, lambda: torch.float32, lambda: torch.Size([1]))
    return rng.choice(made)() if rng.random() < 0.5 else value(rng)


def _saved(state: Any) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def torch_state(data: bytes, rng: Random) -> bytes:
    """What the file holds, changed; of a file of weights with its digest."""
    state = changed(torch.load(io.BytesIO(data), weights_only=True), rng, tensor)
    if isinstance(state, dict) and "sha256" in state and rng.random() < 0.9:
        with contextlib.suppress(Exception):
            state["sha256"] = weights_file._digest(state)
    return _saved(state)


def torch_pickle(data: bytes, rng: Random) -> bytes:
    """The program within, which says what the file holds."""
    entries = _entries(data)
    at = next(n for n, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    entries[at] = entries[at][0], opcodes(entries[at][1], rng)
    return _zipped(entries)


# ---- pictures


def png_chunks(data: bytes, rng: Random) -> bytes:
    """Of a PNG, each with its checksum: sizes, depths and colours of the head, chunks gone, twice and odd. Of others the bytes of the
    head."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        at = rng.randrange(min(len(data), 64))
        return data[:at] + rng.choice((b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"9999999", b" -1 ",
                                       b"\x01\x00\x01\x00")) + data[at + rng.randrange(5):]
    chunks, at = [], 8
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at: at + 4])[0]
        chunks.append((data[at + 4: at + 8], data[at + 8: at + 8 + size]))
        at += size + 12
    n, what = rng.randrange(len(chunks)), rng.randrange(6)
    if what == 0:
        width, height = (rng.choice((0, 1, 5, 8, 20_000, 2**31 - 1, 2**32 - 1)) for _ in range(2))
        chunks[0] = b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:]
    elif what == 1:
        chunks[0] = b"IHDR", chunks[0][1][:8] + bytes([rng.choice((0, 1, 2, 4, 8, 16, 32)), rng.choice((0, 2, 3, 4, 6, 9)),
                                                       rng.randrange(2), 0, rng.randrange(3)])
    elif what == 2:
        chunks.insert(n, rng.choice(((b"tRNS", b"\0\0"), (b"PLTE", b"\0" * 7), (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 5_000_000)),
                                     (b"iCCP", b"a\0\0x"),
                                     (b"acTL", b"\0\0\0\1\0\0\0\0"), (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff"), (b"IEND", b""),
                                     (b"IDAT", zlib.compress(b"\0" * 20_000_000)))))
    elif what == 3:
        del chunks[n]
    elif what == 4:
        chunks[n] = chunks[n][0], noise(chunks[n][1], rng)
    else:
        chunks[n:n] = [chunks[n]] * 3
    return data[:8] + b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name,
                               body in chunks)


# ---- command lines


SAID = ("=", "+", "++", "~", "@", ":", "null", "[]", "{}", "[1,2", "{a:1}", "'", '"', "${epochs}", "${oc.env:HOME}", "${", "$", "\\",
        "'\\''", "1,2",
        "glob(*)", "choice(1,2)", "range(1,3)", "interval(0,1)", "sort(3,1)", "int(3.7)", "str(1)", "extend_list(1)", "nan", "-inf",
        "1e400", "0x10", "1_000",
        "true", " ", "\t", "é", "\u202e", "\U0001f600", "\ud800", "%", "#", "/", "//", "..", "hydra.mode=MULTIRUN", "--", "-x", "--cfg",
        "a.b.c", "_partial_=true",
        "???", "a" * 500, "[" * 80, "(", ")", "!", "&", "*", ";", "9" * 5000, "-0.0", "1.", ".5", "1e-7", "None", "False")


def command(data: bytes, rng: Random) -> bytes:
    """Of the words of a command line, divided by NUL: an option, a value, or what Hydra reads as more than a text."""
    said = data.decode("utf-8", "surrogateescape").split("\0")
    n = rng.randrange(len(said))
    key, is_, told = said[n].partition("=")
    what = rng.randrange(8)
    if what < 3:
        said[n] = key + is_ + rng.choice(SAID)
    elif what == 3:
        at = rng.randrange(len(told) + 1)
        said[n] = key + is_ + told[:at] + rng.choice(SAID) + told[at:]
    elif what == 4:
        said[n] = rng.choice(("+", "++", "~", "-", "@", "/", " ")) + said[n]
    elif what == 5:
        at = rng.randrange(len(key) + 1)
        said[n] = key[:at] + rng.choice((".", "@", "[0]", "..", "x", "/", "é", "")) + key[at + rng.randrange(2):] + is_ + told
    elif what == 6:
        said.insert(n, rng.choice(SAID))
    else:
        said[n] = key
    return "\0".join(said).encode("utf-8", "surrogateescape" if "\ud800" not in "".join(said) else "replace")


def settings(data: bytes, rng: Random) -> bytes:
    """Some of many options, each with another value: `{"config": name, "options": {name: value}}`."""
    tree = json.loads(data)
    chosen = rng.sample(sorted(tree["options"]), min(len(tree["options"]), rng.choice((1, 1, 1, 2, 3))))
    return _encoded(_json(tree | {"options": {key: _near(tree["options"][key], rng) for key in chosen}}))


def _near(old: Any, rng: Random) -> Any:
    """A value that might stand in its place: of its kind, beyond its range, or of another kind."""
    if type(old) in (int, float) and rng.random() < 0.5:
        return rng.choice((-old, old + 1, old * 1e9, old / 7, int(old) * 10**9, str(old), [old], old - 1, 0, 1, 2, 3, 10**6, 1e-30))
    if isinstance(old, list) and rng.random() < 0.5:
        return rng.choice((old + [value(rng)], [old], {"a": old}, old[:1] * 50, [value(rng, 1)]))
    return value(rng)


KINDS: Mapping[str, tuple[Callable[[bytes, Random], bytes], ...]] = {
    "json": (json_tree, json_tree, json_words), "run.json": (run_json, run_json, run_json, json_words),
    "genotype.json": (genotype_json, genotype_json, genotype_json, json_words),
    "explanation.json": (explanation_json, explanation_json, json_words), "lines": (json_lines,), "chained": (chained_lines,),
    "yaml": (yaml_tree, yaml_tree, yaml_lines), "table": (packed(cells), packed(cells), packed(json_words), gzip_tricks), "csv": (cells,),
    "macro": (packed(json_tree), packed(json_words), gzip_tricks), "idx": (packed(noise), gzip_tricks), "text": (words,), "bytes": (noise,),
    "npz": (npy_arrays, npy_arrays, npy_headers, zip_entries, zip_headers), "pickle": (opcodes,),
    "torch": (torch_state, torch_state, torch_state, torch_pickle, zip_entries, zip_headers), "picture": (png_chunks,),
    "command": (command,),
    "settings": (settings, settings, settings, json_tree),
}
