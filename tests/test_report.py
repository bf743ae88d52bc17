import json
import random
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from supernet.genotype import Edge, Genotype
from supernet.report.curves import SERIES_COLOURS, alpha_charts, heat_map, heat_map_svg, line_chart, thinned
from supernet.report.draw import cell_layout, cells_svg, draw_cells, drawn_outputs
from supernet.report.figure import with_ids
from supernet.report.html import write_report
from supernet.report.names import edge_labels, op_family, op_label
from supernet.report.pictures import save_drawings
from supernet.report.summary import save_genotype
from supernet.runs.folder import RunFolder
from supernet.space import CellSpec, Space
from tests.drawings import overlap

OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
EVIL = "<script>alert('x')</script>"

# rows as the papers print them, [op, source], two a node from node 2 (Liu et al. 2019; Xu et al. 2020; Zoph et al. 2018)
PUBLISHED = {
    "darts_v1_reduce": "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 0, max_pool_3x3 0, skip_connect 2, "
                       "skip_connect 2, avg_pool_3x3 0",
    "darts_v2_normal": "sep_conv_3x3 0, sep_conv_3x3 1, sep_conv_3x3 0, sep_conv_3x3 1, sep_conv_3x3 1, skip_connect 0, "
                       "skip_connect 0, dil_conv_3x3 2",
    "pc_darts_reduce": "sep_conv_5x5 1, max_pool_3x3 0, sep_conv_5x5 1, sep_conv_5x5 2, sep_conv_3x3 0, sep_conv_3x3 3, "
                       "sep_conv_3x3 1, sep_conv_3x3 2",
    "nasnet_normal": "sep_conv_5x5 1, sep_conv_3x3 0, sep_conv_5x5 0, sep_conv_3x3 0, avg_pool_3x3 1, skip_connect 0, "
                     "avg_pool_3x3 0, avg_pool_3x3 0, sep_conv_3x3 1, skip_connect 1",
}


def published(name: str) -> list[Edge]:
    rows = [row.split() for row in PUBLISHED[name].split(", ")]
    return sorted(Edge(2 + i // 2, int(source), op) for i, (op, source) in enumerate(rows))


def space(num_nodes: int = 4, num_inputs: int = 2, keep: tuple[int, int] | None = (2, 2), parallel: int = 1) -> Space:
    spec = CellSpec.full(num_inputs=num_inputs, num_nodes=num_nodes, ops=OPS, keep=keep, parallel=parallel,
                         outputs=range(num_inputs, num_inputs + num_nodes))
    return Space("toy", {}, {"normal": spec, "reduce": spec}, build=None)


def chain(length: int) -> Genotype:
    return Genotype("chain", "f", (("layers", tuple(Edge(i + 1, i, f"mbconv_k{3 + 2 * (i % 3)}_e6") for i in range(length))),))


def genotypes() -> dict[str, Genotype]:
    rng = random.Random(0)
    spaces = {"darts": space(), "all_edges": space(keep=None), "two_nodes": space(2), "eight_nodes": space(8),
              "parallel": space(3, keep=(1, 4), parallel=2), "one_input": space(3, num_inputs=1, keep=None)}
    return {name: s.sample(rng) for name, s in spaces.items()} | {"chain": chain(20), "one_edge": chain(1)}


def points_of(curve, each: int = 12):
    """Points along a Bezier curve, its two ends left out."""
    for i in range(0, len(curve) - 1, 3):
        p = np.array(curve[i: i + 4])
        for t in np.linspace(0, 1, each)[1:-1]:
            yield (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t * t * (1 - t) * p[2] + t ** 3 * p[3]


def inside(point, box, slack: float = 1e-6) -> bool:
    return abs(point[0] - box.x) < box.width / 2 - slack and abs(point[1] - box.y) < box.height / 2 - slack


CELLS = {name: published(name) for name in PUBLISHED} | {name: list(g.cells[0][1]) for name, g in genotypes().items()
                                                            if name not in ("chain", "one_edge")}  # tests/test_draw_chain.py


@pytest.mark.parametrize("name", CELLS)
def test_labels_nodes_and_curves_keep_clear_of_each_other(name):
    edges = CELLS[name]
    num_inputs = min(e.destination for e in edges)
    layout = cell_layout(edges, drawn_outputs(edges, num_inputs, None))
    labels = layout.labels[: len(edges)]
    boxes = [*layout.nodes.values(), *labels]
    assert not [(a, b) for a, b in combinations(boxes, 2) if overlap(a, b)]
    assert all(0 <= b.x - b.width / 2 and b.x + b.width / 2 <= layout.width + 1e-9 for b in boxes)
    assert all(-1e-9 <= b.y - b.height / 2 and b.y + b.height / 2 <= layout.height + 1e-9 for b in boxes)
    for i, curve in enumerate(layout.curves):
        others = [box for k, box in enumerate(labels) if k != i]
        for point in points_of(curve):
            assert not any(inside(point, box) for box in [*layout.nodes.values(), *others]), (name, i)


def test_curves_join_their_nodes_and_run_through_their_labels():
    edges = published("pc_darts_reduce")
    layout = cell_layout(edges, [])
    for edge, curve, label in zip(edges, layout.curves, layout.labels):
        source, destination = layout.nodes[edge.source], layout.nodes[edge.destination]
        assert curve[0][0] == pytest.approx(source.x + source.width / 2) and abs(curve[0][1] - source.y) <= source.height / 2
        assert curve[-1][0] == pytest.approx(destination.x - destination.width / 2)
        assert any(inside(point, label) for point in points_of(curve))


@pytest.mark.parametrize("name", genotypes())
def test_drawings_are_valid_files_and_name_every_op(name, tmp_path):
    genotype = genotypes()[name]
    draw_cells(genotype, tmp_path / "cell.svg")
    draw_cells(genotype, tmp_path / "cell.png", dpi=50)
    text = "".join(ElementTree.parse(tmp_path / "cell.svg").getroot().itertext())
    assert all(op_label(edge.op) in text for _, edges in genotype.cells for edge in edges)
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_is_the_same_every_time_and_leaves_the_users_settings_alone(tmp_path):
    import matplotlib

    matplotlib.rcParams["font.size"] = 23
    try:
        before = dict(matplotlib.rcParams)
        genotype = genotypes()["darts"]
        for name in ("a.svg", "b.svg", "a.png", "b.png"):
            draw_cells(genotype, tmp_path / name, dpi=60)
        assert dict(matplotlib.rcParams) == before
    finally:
        matplotlib.rcdefaults()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert cells_svg(genotype) == (tmp_path / "a.svg").read_text().split("\n", 1)[1]


def test_outputs_and_inputs_may_be_given_and_nodes_without_edges_are_left_out():
    edges = [Edge(3, 0, "skip_connect"), Edge(5, 3, "sep_conv_3x3")]  # nodes 1, 2 and 4 have none
    assert drawn_outputs(edges, 2, None) == [3, 5]
    assert drawn_outputs(edges, 2, [2, 4, 5]) == [5]
    assert drawn_outputs([Edge(1, 0, "x"), Edge(2, 1, "x")], 1, None) == [2]
    assert set(cell_layout(edges, [5]).nodes) == {0, 3, 5, 6}
    svg = cells_svg(Genotype("toy", "f", (("normal", tuple(edges)),)), num_inputs={"normal": 2}, outputs={"normal": [5]})
    words = {text.strip() for text in ElementTree.fromstring(svg).itertext()}
    assert "1" in words and not {"0", "3"} & words  # "2" is in c_{k-2}; node 5, the only output, is called c_{k}


def test_an_empty_cell_and_strange_op_names_can_be_drawn(tmp_path):
    draw_cells(Genotype("toy", "f", (("normal", ()),)), tmp_path / "empty.png", dpi=40)
    strange = Genotype("toy", "f", (("$n$", (Edge(1, 0, "$\\frac$"), Edge(1, 0, EVIL), Edge(1, 0, "\0\u4e2d" * 40))),))
    draw_cells(strange, tmp_path / "strange.svg")
    draw_cells(strange, tmp_path / "strange.png", dpi=40)
    ElementTree.parse(tmp_path / "strange.svg")


def test_another_file_format_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="must end in one of .png, .svg, .pdf, got 'cell.eps'"):
        draw_cells(chain(2), tmp_path / "cell.eps")


def test_names():
    assert edge_labels([(0, 2), (1, 2), (2, 3)]) == ["c_{k-2} → 0", "c_{k-1} → 0", "0 → 1"]
    assert [op_family(op) for op in OPS] == ["none", "pool", "pool", "skip", "conv", "conv", "dilated", "dilated"]


def test_thinned_keeps_both_ends():
    assert thinned(3, 10).tolist() == [0, 1, 2] and thinned(0, 10).tolist() == []
    assert thinned(1001, 3).tolist() == [0, 500, 1000]


def test_charts_are_svg_and_heat_map_is_an_image(tmp_path):
    table = np.random.default_rng(0).random((5, 3))
    edges, ops = [f"{i} → 5" for i in range(5)], ["none", "$x", "conv"]
    image = heat_map(table, edges, ops, tmp_path / "h.png", dpi=50)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.std() > 0
    assert (tmp_path / "h.png").exists()
    charts = alpha_charts(np.arange(4.0), np.stack([table] * 4), edges, ops)
    lines = line_chart({"a": ([0, 1], [1.0, float("nan")]), "b": ([], [])}, x_label="x", y_label="y")
    assert len(charts) == 5
    for text in (*charts, lines, heat_map_svg(table, edges, ops), heat_map_svg(np.full((5, 3), np.nan), edges, ops)):
        ElementTree.fromstring(text)
    with pytest.raises(ValueError, match=r"weights must be \(E, O\) = \(5, 2\), got \(5, 3\)"):
        heat_map(table, edges, ops[:2])
    with pytest.raises(ValueError, match=r"weights must be \(T, E, O\) = \(3, 5, 3\), got \(4, 5, 3\)"):
        alpha_charts(np.arange(3.0), np.stack([table] * 4), edges, ops)


def test_epochs_are_whole_numbers_also_after_one_or_two():
    ticks = lambda svg: re.findall(r"<text[^>]*>([^<]*)</text>", svg[svg.index("matplotlib.axis_1"):svg.index("matplotlib.axis_2")])
    for n in (1, 2):
        line = line_chart({"a": (range(1, n + 1), [0.5] * n)}, x_label="epochs done", y_label="loss")
        assert ticks(line) == [*map(str, range(1, n + 1)), "epochs done"]
        (chart,) = alpha_charts(np.linspace(0, n, 5), np.full((5, 1, 2), 0.5), ["0 → 1"], ["a", "b"])
        assert ticks(chart) == [*map(str, range(n + 1))]


def test_lines_of_one_chart_have_their_own_colours():
    svg = line_chart({f"line {n}": ([0, 1], [n, n]) for n in range(7)}, x_label="x", y_label="y")
    assert len({colour for colour in re.findall(r"stroke: (#[0-9a-f]{6})", svg) if colour in SERIES_COLOURS}) == 7


def write_run(run: Path, epochs: int = 6, text: str = "plain") -> None:
    rng, toy = random.Random(0), space()
    drawn = [toy.sample(rng) for _ in range(epochs)]
    drawn[1] = drawn[0]
    numbers = np.random.default_rng(0)
    arrays = {"epoch": np.arange(1.0, epochs + 1)}
    for kind, spec in toy.cells.items():
        shape = (epochs, len(spec.edges), len(spec.ops))
        arrays |= {f"alpha.{kind}": numbers.normal(size=shape),
                   f"weights.{kind}": numbers.dirichlet(np.ones(shape[2]), shape[:2]),
                   f"edges.{kind}": np.array(spec.edges), f"ops.{kind}": np.array([*OPS[:-1], text])}
    np.savez(run / "alphas.npz", **arrays)
    records = [{"kind": "epoch", "epoch": e, "train_loss": 2.0 / (e + 1), "train_accuracy": 50.0 + e / epochs, "val_loss": None,
                "val_accuracy": 40.0 if e % 2 else None, "lr": 0.1, f"alpha_entropy/{text}": 1.5, "genotype": g.digest,
                "seconds": 3.0}
               for e, g in enumerate(drawn)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"kind": "step", "epoch": 0}\n{"kind": "ep')
    (run / "genotypes.jsonl").write_text("\n".join(json.dumps({"epoch": e, "digest": g.digest, "genotype": g.to_json()})
                                                   for e, g in enumerate(drawn)))
    last = Genotype("toy", text, drawn[-1].cells[:1] + ((text, (Edge(2, 0, text), Edge(3, 2, "skip_connect"))),), {"note": text})
    last.save(run / "genotype.json")
    (run / "config.yaml").write_text(f"seed: 0\nname: {text}\n")
    (run / "run.json").write_text(json.dumps({"script": "train_search", "status": text, "started": "2025-01-01T00:00:00",
                                              "command": f"python train_search.py x={text}"}))
    (run / "environment.json").write_text(json.dumps({"torch": "2.13.0", text: {"inner": text}}))
    (run / "summary.json").write_text(json.dumps({"title": f"A search {text}", "rows": [["accuracy", "97.0 %"], [text, text]]}))


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("evil")
    write_run(run, text=EVIL)
    write_report(run)
    return run


def test_report_shows_what_files_say_as_text_only(evil_run):
    html = (evil_run / "report.html").read_text()
    assert "<script" not in html and html.count("&lt;script&gt;") >= 10
    assert "Left out" not in html


def test_report_fetches_nothing_and_repeats_no_id(evil_run):
    html = (evil_run / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(?!["']?#)""", html)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', html)) <= set(ids)


def test_report_is_the_same_every_time(evil_run):
    first = (evil_run / "report.html").read_bytes()
    assert write_report(evil_run).read_bytes() == first


def test_report_tells_the_epochs_at_which_the_genotype_changed(evil_run):
    html = (evil_run / "report.html").read_text()
    assert "The genotype changed 4 times." in html  # six epochs, of which the second repeats the first
    assert "validation accuracy 40.00 % at the end" in html


DECISION = {"kind": "normal", "what": "op", "where": "c_{k-2} → 0", "first": "sep_conv_3x3", "second": EVIL, "gap": 0.25, "spread": 0.5,
            "since": 0.0, "would_flip": True, "kept": True}


@pytest.mark.parametrize("sureness, shown", [
    ({"window_epochs": 2.0, "decisions": [DECISION, DECISION | {"kept": False, "where": "1 → 2", "would_flip": False, "since": 1.5}]},
     ["in the last 2 epochs", "normal, c_{k-2} → 0", "sep conv 3x3 before &lt;script&gt;", "0.2500", "Edges that no node keeps", "1.50"]),
    ({"window_epochs": 1.0, "decisions": [{}]}, ["Left out: the file is not as expected (KeyError"]),
    ({"decisions": 5}, ["Left out: the file is not as expected (KeyError"]),
])
def test_report_tells_how_sure_the_search_is_or_why_not(tmp_path, sureness, shown):
    write_run(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"values": {"sureness": sureness}}))
    html = write_report(tmp_path).read_text()
    section = html[html.index("How sure the search is"):].partition("</section>")[0]
    assert [text for text in shown if text not in section] == [] and "<script" not in section


def test_report_has_no_section_on_sureness_where_a_summary_says_nothing_of_it(evil_run):
    assert "How sure the search is" not in (evil_run / "report.html").read_text()


def test_the_drawing_in_a_report_is_that_of_the_space(tmp_path):
    """Node 1 leads nowhere and is no output, which the edges alone do not say."""
    spec = CellSpec.listed(num_inputs=1, edges=[(0, 1, ["skip_connect"]), (0, 2, ["skip_connect"])], outputs=(2,), keep=None)
    mine = Space("mine", {}, {"cell": spec}, build=lambda *_: None)
    genotype = mine.sample(random.Random(0))
    folder = RunFolder(tmp_path)
    save_genotype(folder, genotype, mine)
    save_drawings(folder, genotype, mine)
    assert Genotype.load(folder.genotype) == genotype
    html = write_report(tmp_path).read_text()
    drawn, guessed = (with_ids(svg, "f0").partition("<svg ")[2] for svg in (folder.cell_svg.read_text(), cells_svg(genotype)))
    assert drawn in html and guessed not in html
    folder.genotype.write_text(json.dumps(genotype.to_json() | {"outputs": {"cell": 5}}))
    assert "Left out: the file is not as expected" in write_report(tmp_path).read_text()


def test_a_report_of_a_language_model_has_its_measures(tmp_path):
    record = {"epoch": 0, "val_loss": 1.4, "val_accuracy": 50.0, "val_bits_per_character": 2.0, "val_perplexity": 4.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record))
    html = write_report(tmp_path).read_text()
    assert "Bits per character" in html and "Perplexity" in html


def test_report_of_a_long_search_stays_small(tmp_path):
    write_run(tmp_path, epochs=600)
    assert write_report(tmp_path).stat().st_size < 3_000_000


def test_every_number_that_was_recorded_is_drawn(tmp_path):
    records = [{"epoch": e, "step": e, "train_loss": 1.0, "my_own_number": e / 2, "mine/a": 1.0, "mine/b": 2.0} for e in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    html = write_report(tmp_path).read_text()
    assert html.count("<figcaption>My own number</figcaption>") == html.count("<figcaption>Mine</figcaption>") == 1
    assert "<figcaption>Step</figcaption>" not in html


def test_a_final_trainings_page_has_no_sections_of_a_search(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0, "train_loss": 1.0}\n')
    for script, times in (("train_search", 1), ("train_final", 0)):
        (tmp_path / "run.json").write_text(json.dumps({"script": script}))
        html = write_report(tmp_path).read_text()
        assert html.count("<h2>Weights of the ops over time</h2>") == html.count("<h2>Genotype by epoch</h2>") == times


def test_report_without_files_says_what_is_left_out(tmp_path):
    html = write_report(tmp_path).read_text()
    for name in ("alphas.npz", "config.yaml", "environment.json", "genotype.json", "genotypes.jsonl", "run.json", "summary.json"):
        assert f"Left out: the run has no {name}." in html
    assert "<svg" not in html


@pytest.mark.parametrize("junk", ["", "{", "[1]", "null", '{"rows": 3, "cells": []}', "\udcff"])
def test_report_of_broken_files_is_still_written(tmp_path, junk):
    for name in ("alphas.npz", "config.yaml", "environment.json", "genotype.json", "genotypes.jsonl", "metrics.jsonl", "run.json",
                 "summary.json"):
        (tmp_path / name).write_text(junk, errors="surrogateescape")
    assert "</html>" in write_report(tmp_path).read_text()


def test_the_library_loads_without_matplotlib():
    code = "import supernet.report, supernet.report.names, supernet.report.layout, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_leaves_pyplot_alone(tmp_path):
    code = ("import sys; from supernet.report.html import write_report; from pathlib import Path; "
            f"write_report(Path({str(tmp_path)!r})); assert 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
