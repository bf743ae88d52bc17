"""Drawings of chains, recurrent cells and cells with one output node. Geometry is checked on the layouts, words on the SVG."""

import random
from itertools import combinations
from xml.etree import ElementTree

import pytest

from supernet.genotype import Edge, Genotype
from supernet.report.draw import cell_layout, cells_svg, draw_cells, drawn_outputs, is_chain
from supernet.report.draw_chain import MAX_WIDTH, ROW_HEIGHT, chain_fills, chain_layout, text_width
from supernet.report.names import NOTHING, choice_label, edge_labels, op_label
from supernet.spaces import darts_rnn, layerwise, nasbench201, nasbench_macro
from tests.drawings import overlap

RNN = [("sigmoid", 0), ("relu", 1), ("relu", 1), ("identity", 1), ("tanh", 2), ("sigmoid", 5), ("tanh", 3), ("relu", 5)]


def words(genotype, space=None) -> list[str]:
    more = {} if space is None else {"outputs": {k: s.outputs for k, s in space.cells.items()},
                                     "num_inputs": {k: s.num_inputs for k, s in space.cells.items()}}
    root = ElementTree.fromstring(cells_svg(genotype, **more))
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def decisions(space, seed: int = 0) -> dict[str, list[str]]:
    return {kind: [e.op for e in edges] for kind, edges in space.sample(random.Random(seed)).cells}


def sized(stages) -> dict[str, list[str]]:
    return decisions(layerwise.make(stages=stages))


CHAINS = {"macro": decisions(nasbench_macro.make()), "one": {"layers": ["identity"]}, "long": {"layers": ["ir_3x3_e3"] * 47},
          "wide": {"layers": ["a_very_long_name_of_an_op_" * 3] * 3}, "table": sized([[1, 3], [2, 4], [4, 5]]),
          "one_column": sized([[1, 1]]), "long_table": sized([[1, 40]]), "odd": sized([[1, 7], [2, 6]])}


@pytest.mark.parametrize("name", CHAINS)
def test_boxes_of_chains_keep_clear_of_each_other_and_hold_their_text(name):
    layout = chain_layout(CHAINS[name])
    rows = [box for boxes in layout.cells.values() for box in boxes]
    named = [box for line in layout.names for box in line.values()]
    boxes = [*layout.ends, *layout.layers, *rows, *named]
    assert not [(a, b) for a, b in combinations(boxes, 2) if overlap(a, b)]
    assert all(-1e-9 <= b.x - b.width / 2 and b.x + b.width / 2 <= layout.width + 1e-9 for b in boxes)
    assert all(-1e-9 <= b.y - b.height / 2 and b.y + b.height / 2 <= layout.height + 1e-9 for b in boxes)
    is_table = len(CHAINS[name]) > 1
    for kind, ops in CHAINS[name].items():
        for n, op in enumerate(ops):
            box = layout.cells[kind][n] if is_table else layout.layers[n]
            assert text_width(choice_label(op, kind) if is_table else op_label(op)) <= box.width + 0.08 + 1e-9
            assert not is_table or box.x == layout.layers[n].x
    assert all(set(line) == (set(CHAINS[name]) if is_table else set()) for line in layout.names)
    assert all(text_width(kind) <= box.width + 0.08 + 1e-9 for line in layout.names for kind, box in line.items())


@pytest.mark.parametrize("name", CHAINS)
def test_lines_are_no_wider_than_allowed_and_read_from_left_to_right(name):
    layout = chain_layout(CHAINS[name])
    lines = {}
    for box in layout.layers:
        lines.setdefault(box.y, []).append(box.x)
    assert all(xs == sorted(xs) for xs in lines.values()) and list(lines) == sorted(lines)
    lengths = [len(xs) for xs in lines.values()]
    assert len(set(lengths[:-1])) <= 1 and lengths[-1] <= lengths[0]
    if lengths[0] > 1:
        assert layout.width <= MAX_WIDTH
    assert len(chain_layout(CHAINS[name], max_width=100.0).layers) == len(layout.layers)


def test_a_short_table_is_one_line():
    layout = chain_layout(sized([[1, 4]]))
    assert len({box.y for box in layout.layers}) == 1 and len(layout.names) == 1
    assert layout.cells["width"][0].y - layout.cells["kernel"][0].y == pytest.approx(ROW_HEIGHT)  # no pooling between them


def test_several_decisions_share_one_table_with_a_column_a_layer():
    space = layerwise.make(stages=[[1, 1], [2, 1]], activations=["hard_swish"])
    genotype = space.genotype({kind: [e._replace(op=spec.ops[row.index(True)]) for e, row in zip(
        (Edge(1, 0, ""), Edge(2, 1, "")), spec.selectable)] for kind, spec in space.cells.items()})
    shown = words(genotype, space)
    assert shown.count("layers") == 1 and shown.count("input") == shown.count("output") == 1
    assert [shown.count(kind) for kind in space.cells] == [1] * len(space.cells)
    assert shown.count("hard swish") == 2 and shown.count("max pool") == 1 and shown.count(NOTHING) == 1
    assert words(genotype) == shown  # the genotype alone says as much


def test_a_single_decision_is_a_row_of_ops():
    space = nasbench_macro.make()
    genotype = space.parse("|ir_5x5_e6~0|+" + "+".join(f"|identity~{n}|" for n in range(1, 8)))
    shown = words(genotype, space)
    assert shown.count("ir 5x5 e6") == 1 and shown.count("identity") == 7
    assert [shown.count(str(n)) for n in range(0, 10)] == [0] + [1] * 8 + [0]
    assert not [text for text in shown if "c" in text.split("{")[0] and "k" in text]  # no c_{k-1}


def test_a_chain_whose_inner_layers_are_outputs_too_is_a_cell():
    edges = [Edge(1, 0, "conv"), Edge(2, 1, "conv")]
    assert is_chain(edges, None) and is_chain(edges, [2]) and not is_chain(edges, [1, 2]) and not is_chain([], None)
    assert not is_chain([Edge(2, 0, "conv"), Edge(3, 2, "conv")], None) and not is_chain([Edge(1, 0, "a"), Edge(1, 0, "b")], None)


def test_chains_of_different_lengths_and_cells_stand_apart():
    cells = {"a": tuple(Edge(n + 1, n, "x") for n in range(3)), "b": tuple(Edge(n + 1, n, "y") for n in range(2)),
             "c": tuple(Edge(n + 1, n, "z") for n in range(3)), "d": (Edge(2, 0, "conv"), Edge(2, 1, "conv"))}
    shown = words(Genotype("toy", "f", tuple(cells.items())))
    assert shown.count("input") == 2 and shown.count("layers") == 1
    assert [shown.count(text) for text in ("x", "y", "z", "conv")] == [3, 2, 3, 2]


def test_a_single_output_node_is_the_output():
    space = nasbench201.make()
    genotype = space.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|")
    assert drawn_outputs(genotype["cell"], 1, None) == [3]
    shown = words(genotype, space)
    assert shown == words(genotype)
    assert {"0", "1"} <= set(shown) and "2" not in shown


def test_none_edges_are_dotted():
    cell = cells_svg(nasbench201.make().parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))
    other = cells_svg(nasbench201.make().parse("|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"))
    assert cell.count("stroke-dasharray") > other.count("stroke-dasharray") > 0


def test_recurrent_cells_name_what_they_read_and_number_their_nodes_from_the_input():
    genotype = Genotype("darts_rnn", "f", (("recurrent", tuple(Edge(d, s, o) for d, (o, s) in enumerate(RNN, 1))),))
    shown = words(genotype)
    assert {str(n) for n in range(9)} <= set(shown) and "input" not in shown
    assert any("h_t is the mean" in text for text in shown)
    assert drawn_outputs(genotype["recurrent"], 1, range(1, 9)) == list(range(1, 9))
    assert edge_labels([(0, 1), (0, 2), (1, 2)], 1, "recurrent") == ["0 → 1", "0 → 2", "1 → 2"]
    space = darts_rnn.make(nodes=3)
    row = space.genotype({"recurrent": [Edge(n + 1, n, "tanh") for n in range(3)]})
    assert words(row) == words(row, space) and {"0", "1", "2", "3"} <= set(words(row))  # a row of nodes, yet no chain of layers


@pytest.mark.parametrize("seed", range(3))
def test_recurrent_cells_are_laid_out_without_overlaps(seed):
    genotype = darts_rnn.make().sample(random.Random(seed))
    layout = cell_layout(genotype["recurrent"], range(1, 9), 2)
    boxes = [*layout.nodes.values(), *(label for label in layout.labels if label)]
    assert set(layout.nodes) == set(range(-2, 10)) and not [1 for a, b in combinations(boxes, 2) if overlap(a, b)]


def test_rows_of_a_chain_are_called_layers():
    assert edge_labels([(0, 1), (1, 2), (2, 3)], 1) == ["layer 1", "layer 2", "layer 3"]


def test_choices_are_named_without_their_decision_and_numbers_are_the_darker_the_larger():
    assert [choice_label(*pair) for pair in (("kernel_5", "kernel"), ("no_pool", "pooling"), ("hard_swish", "activation"))] == \
        ["5", NOTHING, "hard swish"]
    fills = chain_fills("width", ["width_100", "width_50", "width_75", "width_50"])
    assert sum(fills["width_50"]) > sum(fills["width_75"]) > sum(fills["width_100"])
    assert len(set(chain_fills("activation", ["relu", "swish", "gelu"]).values())) == 3


def test_files_are_written_the_same_every_time(tmp_path):
    space = layerwise.make()
    genotype = space.sample(random.Random(1))
    for name in ("a.svg", "b.svg", "a.png"):
        draw_cells(genotype, tmp_path / name, dpi=50)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
