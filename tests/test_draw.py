import json
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from supernet.commands import draw as command
from supernet.genotype import Edge, Genotype, find
from supernet.report import film as films
from supernet.report.dot import dot
from supernet.report.summary import edge_tables, save_genotype
from supernet.runs.architectures import named
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from supernet.spaces import darts, darts_rnn, layerwise, nasbench201, nasbench_macro
from tests.helpers import ROOT

CELL = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|avg_pool_3x3~2|"
SPACES = {"darts": darts.make(nodes=3), "nasbench201": nasbench201.make(), "nasbench_macro": nasbench_macro.make(),
          "layerwise": layerwise.make(), "darts_rnn": darts_rnn.make(nodes=4)}


def drawn(capsys, *arguments):
    assert command.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def error(capsys, *arguments):
    assert command.main([*map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    return told


def searched(path, space, epochs=4, seed=0):
    """A run as a search leaves it: weights that grow towards a genotype, which changes once."""
    folder, rng = RunFolder(path), random.Random(seed)
    path.mkdir(parents=True)
    first, last = space.sample(rng), space.sample(rng)
    save_genotype(folder, last, space)
    for epoch in range(epochs):
        genotype = first if epoch < epochs - 1 else last
        Journal(folder.genotypes).append({"epoch": epoch, "digest": genotype.digest, "genotype": genotype.to_json()})
    numbers = np.random.default_rng(seed)
    tables = {}
    for kind, spec in space.cells.items():
        raw = numbers.random((epochs + 1, len(spec.edges), len(spec.ops)))
        tables[f"weights.{kind}"] = raw / raw.sum(-1, keepdims=True)
    np.savez_compressed(folder.alphas, epoch=np.arange(epochs + 1.0), **tables, **edge_tables(space))
    return folder, first, last


@pytest.mark.parametrize("name", ["cell.svg", "cell.png", "cell.pdf", "cell.dot"])
def test_the_ending_says_how_and_the_same_cell_gives_the_same_bytes(name, tmp_path, capsys):
    path = tmp_path / name
    assert drawn(capsys, "darts_v2", "-o", path) == f"drawn     {path}  (darts, genotype {find('darts_v2').digest})\n"
    before = path.read_bytes()
    drawn(capsys, "DARTS_V2", "-o", path)
    assert path.read_bytes() == before
    assert before.startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF", ".dot": b"digraph"}[path.suffix])


def test_a_cell_may_be_named_in_every_way(tmp_path, capsys):
    folder, _, last = searched(tmp_path / "run", SPACES["darts"])
    (tmp_path / "theirs.txt").write_text("Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
                                         "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=range(2, 3))")
    for given, digest in ((folder.path, last.digest), (folder.genotype, last.digest), (folder.genotype_text, named(str(
            folder.genotype_text)).genotype.digest), (tmp_path / "theirs.txt", None), (CELL, nasbench201.make().parse(CELL).digest)):
        said = drawn(capsys, given, "-o", tmp_path / "cell.dot")
        assert digest is None or f"genotype {digest}" in said
        assert (tmp_path / "cell.dot").read_text().count("digraph") == 1
    assert named(str(folder.path)).run == folder or named(str(folder.path)).run.path == folder.path
    assert named(str(folder.path)).outputs == {"normal": [2, 3, 4], "reduce": [2, 3, 4]}
    assert named("nasnet").outputs["reduce"] == [4, 5, 6], "a published cell that joins some of its nodes"


@pytest.mark.parametrize(("arguments", "told"), [
    (["darts_v2"], "required: -o/--output"),
    (["darts_v2", "-o", "cell.jpg"], "must end in one of .svg, .png, .pdf, .dot, .gif"),
    (["darts_v2", "-o", "cell.pgn"], "did you mean .png"),
    (["darts_v2", "-o", "nowhere/cell.svg"], "there is no folder nowhere"),
    (["darts_v2", "-o", "cell.svg", "--dip", "3"], "takes no '--dip'; did you mean --dpi"),
    (["darts_v2", "-o", "cell.png", "--dpi", "0"], "whole number of at least 1, got '0'"),
    (["darts_v2", "-o", "cell.gif", "--seconds", "nan"], "seconds above 0, at most 3600, got 'nan'"),
    (["darts_v2", "-o", "cell.gif"], "expected the folder of its run"),
    (["darts_v3", "-o", "cell.svg"], "no published genotype of that name"),
    ([".", "-o", "cell.svg"], "expected the folder of a run; no genotype.json there"),
    (["|a~0|", "-o", "cell.svg"], "genotype: "),
    (["broken.json", "-o", "cell.svg"], "broken.json: not a JSON file"),
    (["odd.json", "-o", "cell.svg"], "expected outputs and num_inputs by kind of cell"),
])
def test_a_wrong_argument_is_one_line_and_writes_nothing(arguments, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "odd.json").write_text(json.dumps(find("darts_v2").to_json() | {"outputs": {"normal": "all"}}))
    assert told in error(capsys, *arguments)
    assert not list(tmp_path.glob("cell.*"))


def test_a_genotype_of_thousands_of_edges_is_refused_but_for_a_graph(tmp_path, capsys):
    edges = tuple(Edge(d, s, "op") for d in range(1, 60) for s in range(d))
    Genotype("mine", "0", (("cell", edges),)).save(tmp_path / "large.json")
    assert "has 1,770 edges, and at most 500 can be drawn" in error(capsys, tmp_path / "large.json", "-o", tmp_path / "cell.svg")
    drawn(capsys, tmp_path / "large.json", "-o", tmp_path / "cell.dot")
    assert (tmp_path / "cell.dot").read_text().count("->") == 1770


@pytest.mark.parametrize("name", SPACES)
def test_the_graph_has_the_edges_of_the_cell(name):
    """Read back by a pencil's version of Graphviz's grammar; where Graphviz is installed, by itself."""
    space = SPACES[name]
    genotype = space.sample(random.Random(3))
    outputs = {kind: list(spec.outputs) for kind, spec in space.cells.items()}
    text = dot(genotype, outputs, {kind: spec.num_inputs for kind, spec in space.cells.items()})
    seen = re.findall(r'^    c(\d+)_n(\d+) -> c\1_n(\d+) \[label="([^"]*)"', text, re.MULTILINE)
    wanted = [(str(n), str(e.source), str(e.destination)) for n, (_, edges) in enumerate(genotype.cells) for e in edges]
    assert [row[:3] for row in seen] == wanted and text.count("{") == text.count("}")
    named_nodes = set(re.findall(r"^    (c\d+_\w+) \[label=", text, re.MULTILINE))
    assert set(re.findall(r"c\d+_(?:n|fed)\d+", text)) == named_nodes, "every node that is joined was described"
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=text, text=True, check=True, capture_output=True, timeout=60)


def test_strange_names_stay_inside_their_quotes():
    genotype = Genotype("mine", "0", (('a"; evil [x="', (Edge(1, 0, 'op"]; b -> c [label="\\'),)),))
    text = dot(genotype, {}, {})
    assert "; evil" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", text) and "b -> c" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", text)


@pytest.mark.parametrize("name", SPACES)
def test_a_search_becomes_a_picture_that_moves(name, tmp_path, capsys):
    folder, *_ = searched(tmp_path / "run", SPACES[name])
    drawn(capsys, folder.path, "-o", tmp_path / "search.gif", "--dpi", 40)
    with Image.open(tmp_path / "search.gif") as image:
        assert image.n_frames == 5 and image.info["loop"] == 0
        pictures, pauses = [], []
        for n in range(image.n_frames):
            image.seek(n)
            pictures.append(np.asarray(image.convert("RGB")))
            pauses.append(image.info["duration"])
    assert pauses == [1200] * 4 + [3200]
    assert len({picture.tobytes() for picture in pictures}) == 5, "each epoch looks another way"
    assert (pictures[0][0, 0] == 255).all() and (pictures[0] != 255).any()
    drawn(capsys, folder.path, "-o", tmp_path / "short.gif", "--dpi", 40, "--frames", 2)
    with Image.open(tmp_path / "short.gif") as image:
        assert image.n_frames == 2


def test_an_edge_is_as_wide_as_the_weight_of_its_op_and_strong_where_it_is_kept(tmp_path):
    space = SPACES["nasbench201"]
    folder, first, last = searched(tmp_path / "run", space)
    shown = films.film(named(str(folder.path)), 60)
    assert shown.kept == [None, first, first, first, last], "before the first epoch nothing was found"
    spec, weights = space.cells["cell"], shown.weights["cell"].values
    for moment, genotype in ((0, None), (2, first), (4, last)):
        for e, stroke in enumerate(films._strokes(shown, "cell")[moment]):
            kept = next((edge.op for edge in genotype["cell"] if (edge.source, edge.destination) == spec.edges[e]), None) \
                if genotype else None
            column = weights[moment, e].argmax() if kept is None else spec.ops.index(kept)
            assert stroke.op == spec.ops[column] and stroke.strength == (films.FAINT if kept is None else 1)
            assert stroke.width == pytest.approx(films.THIN + films.WIDER * weights[moment, e, column])


@pytest.mark.parametrize("damage", ["missing", "text", "shape", "backwards", "empty", "pickled"])
def test_weights_that_are_not_as_written_are_one_line(damage, tmp_path, capsys):
    folder, *_ = searched(tmp_path / "run", SPACES["nasbench201"])
    arrays = dict(np.load(folder.alphas))
    if damage == "text":
        folder.alphas.write_text("hello")
    elif damage == "missing":
        folder.alphas.unlink()
    else:
        arrays |= {"shape": {"weights.cell": np.ones((5, 6))}, "backwards": {"edges.cell": arrays["edges.cell"][:, ::-1]},
                   "empty": {"epoch": np.zeros(0), "weights.cell": np.ones((0, 6, 5))},
                   "pickled": {"ops.cell": np.array([object()] * 5, dtype=object)}}[damage]
        np.savez(folder.alphas, **arrays)
    assert "alphas.npz" in error(capsys, folder.path, "-o", tmp_path / "cell.gif")
    assert not (tmp_path / "cell.gif").exists()


def test_wrong_arguments_are_told_before_pytorch_is_imported(tmp_path):
    code = ("import sys\nfrom supernet.commands.draw import main\nassert main(['darts_v2', '-o', 'cell.jpg']) == 2\n"
            "assert main(['darts_v3', '-o', 'cell.svg']) == 2\nprint('torch' in sys.modules or 'matplotlib' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "False\n", done.stderr
