"""Cells in the notations of the field: read as data, and written so that they are read again."""

import os
import random

import pytest

from supernet import genotype as genotypes
from supernet import notation
from supernet.genotype import GenotypeError
from supernet.spaces import darts, darts_rnn, nasbench201, toy

DARTS_V2 = (  # official code, cnn/genotypes.py, as printed
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
    "('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])")
NB201 = "|skip_connect~0|+|skip_connect~0|none~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
FAIR = ("Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 1, 2), ('skip_connect', 4, 2)], normal_concat=range(2, 6), "
        "reduce=[('max_pool_3x3', 2, 0)], reduce_concat=range(2, 6))")  # (op, destination, source), or the other way round


@pytest.mark.parametrize("text", [
    DARTS_V2, f"DARTS_V2 = {DARTS_V2}\n", f"2019-01-01 12:00:00 genotype = {DARTS_V2}",
    DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 6)"), DARTS_V2.replace("), (", "),\n    ("),
], ids=["printed", "assigned", "logged", "range", "lines"])
def test_the_text_that_darts_prints_is_the_published_cell(tmp_path, text):
    (tmp_path / "cell.txt").write_text(text)
    assert notation.find(str(tmp_path / "cell.txt")) == genotypes.find("darts_v2")


def test_a_list_for_each_node_is_read_too():
    pairs = "[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], (('skip_connect', 0, 0.25), ('sep_conv_3x3', 2, 0.5))]"
    found = notation.read(f"Genotype(normal={pairs}, normal_concat=[2, 3], reduce={pairs}, reduce_concat=[2, 3])")
    assert [tuple(e) for e in found["normal"]] == [(2, 0, "sep_conv_3x3"), (2, 1, "sep_conv_3x3"), (3, 0, "skip_connect"),
                                                   (3, 2, "sep_conv_3x3")]


def test_edges_that_name_both_nodes_are_read_in_either_order():
    found = notation.read(FAIR)
    assert [tuple(e) for e in found["normal"]] == [(2, 0, "sep_conv_3x3"), (2, 1, "sep_conv_3x3"), (4, 2, "skip_connect")]
    assert found.arguments["nodes"] == 4 and found.arguments["edges_per_node"] == [0, 2]


def test_the_text_of_nasbench201_is_its_cell(tmp_path):
    (tmp_path / "cell.txt").write_text(NB201 + "\n")
    space = nasbench201.make()
    assert notation.find(str(tmp_path / "cell.txt")) == notation.find(str(tmp_path / "cell.txt"), space) == space.parse(NB201)


def test_json_and_published_names_are_read_as_before(tmp_path):
    genotypes.find("darts_v1").save(tmp_path / "g.json")
    assert notation.find(str(tmp_path / "g.json")) == notation.find("DARTS_V1") == genotypes.find("darts_v1")
    with pytest.raises(GenotypeError, match="no such file"):
        notation.find("darts_v9")


@pytest.mark.parametrize("name", genotypes.published_names())
def test_every_published_cell_is_read_from_what_is_written_of_it(name):
    genotype = genotypes.find(name)
    space = darts.make(**genotype.arguments)
    text = notation.write(space, genotype)
    assert notation.read(text, space) == genotype
    assert notation.read(text).cells == genotype.cells  # also by those who do not know the space


@pytest.mark.parametrize("make", [nasbench201.make, toy.make, darts_rnn.make, darts.make])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_of_any_space_is_read_in_it(make, seed):
    space = make()
    genotype = space.sample(random.Random(seed))
    assert notation.read(notation.write(space, genotype), space) == genotype
    assert make is toy.make or notation.read(notation.write(space, genotype)) == genotype


def test_what_darts_rnn_prints():
    text = notation.write(darts_rnn.make(nodes=2), notation.read("Genotype(recurrent=[('relu', 0), ('tanh', 1)], concat=range(1, 3))"))
    assert text == "Genotype(recurrent=[('relu', 0), ('tanh', 1)], concat=range(1, 3))"


HARM = "__import__('os').mkdir('harm-was-done')"


@pytest.mark.parametrize("text, message", [
    (f"Genotype(normal={HARM}, normal_concat=[2], reduce=[], reduce_concat=[2])", "strings, whole numbers, lists, tuples and range alone"),
    (f"Genotype(normal=[], normal_concat=range({HARM}, 6), reduce=[], reduce_concat=[2])", "lists, tuples and range alone"),
    (f"Genotype(normal=[], normal_concat=[x for x in [{HARM}]], reduce=[], reduce_concat=[2])", "lists, tuples and range alone"),
    (f"Genotype(**{HARM})", "with named arguments alone"),
    (f"[{HARM}, Genotype()][0]", "not the text of a Genotype"),
    ("Genotype(normal=[('sep_conv_3x3', 0)], normal_concat=range(2, 10**9), reduce=[], reduce_concat=[2])", "and range alone, got"),
    ("Genotype(normal=[('sep_conv_3x3', 0)], normal_concat=range(2, 1000000000), reduce=[], reduce_concat=[2])", "must lie in 0 to 64"),
    ("Genotype(normal=[('sep_conv_3x3', 7)], normal_concat=[2], reduce=[], reduce_concat=[2])", "got 7 -> 2"),
    ("Genotype(normal=[('sep_conv_3x3', -1)], normal_concat=[2], reduce=[], reduce_concat=[2])", "and range alone, got '-1'"),
    ("Genotype(normal=['sep_conv_3x3'], normal_concat=[2], reduce=[], reduce_concat=[2])", r"a list of \(op, source\), got 'sep_conv"),
    ("Genotype(normal=[('a', 0)], normal_concat=[2])", "must have normal, normal_concat, reduce and reduce_concat"),
    (DARTS_V2 + DARTS_V2, r"expected one Genotype\(...\), got 2"),
    ("Genotype(" + "[" * 5000, "not the text of a Genotype"),
    ("Genotype(normal=" + "9" * 90_000, "not the text of a Genotype"),
    ("|nor_conv_9x9~0|+|none~0|none~1|+|none~0|none~1|none~2|", "op must be one of .* taken for one of space nasbench201"),
    ("|none~0|", "must hold 3 nodes"),
    ("hello", "not a JSON file, and neither Genotype"),
    ("Genotype(" + " " * 200_000, r"not the text of a Genotype"),
    ("Genotype(" + "[0]," * 50_000, "at most 100,000 characters"),
])
def test_what_is_no_cell_is_one_line_and_nothing_runs(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cell.txt").write_text(text)
    with pytest.raises(GenotypeError, match=message) as caught:
        notation.find("cell.txt")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 and os.listdir() == ["cell.txt"]


def test_a_cell_of_another_space_is_refused():
    with pytest.raises(GenotypeError, match="space 'nasbench201' has cells \\['cell'\\], the text has \\['normal', 'reduce'\\]"):
        notation.read(DARTS_V2, nasbench201.make())
    with pytest.raises(GenotypeError, match="joins nodes \\[5\\], the text \\[2, 3, 4, 5\\]"):
        notation.read(DARTS_V2, darts.make(concat={"normal": [5]}))


def test_a_pipe_is_no_genotype_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(GenotypeError, match="cannot read the genotype .it must be a regular file, and is a (pipe|device)"):
            genotypes.find(str(path))
