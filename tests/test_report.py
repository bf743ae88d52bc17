import contextlib
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
import torch

from supernet.genotype import Edge, Genotype
from supernet.report import page as page_css
from supernet.report.curves import SERIES_COLOURS, alpha_charts, heat_map, heat_map_svg, line_chart, thinned
from supernet.report.document import Section, document, to_script
from supernet.report.draw import cell_layout, cells_svg, draw_cells, drawn_outputs
from supernet.report.html import write_report
from supernet.report.names import FAMILY_COLOURS, edge_labels, lowered, op_family, op_label
from supernet.report.pictures import save_drawings
from supernet.report.sections.weights import snapshots
from supernet.report.summary import save_genotype
from supernet.report.svg_cells import cell_svgs
from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from supernet.space import CellSpec, Space
from tests import pages
from tests.drawings import EVIL, OPS, overlap, space, write_run

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
    written = {"c_{k-2} → 0": "cₖ₋₂ → 0", "x_t": "xₜ", "h_{t-1}": "hₜ₋₁", "a_{b} c_d": "a_{b} c_d", "my_op": "my_op"}
    assert [lowered(text) for text in written] == list(written.values())
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


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("evil")
    write_run(run, text=EVIL)
    write_report(run)
    return run


def test_report_shows_what_files_say_as_text_only(evil_run):
    page = pages.read((evil_run / "report.html").read_text())
    assert page.text.count(EVIL) >= 10 and EVIL in json.dumps(page.data)
    assert EVIL not in page.html
    assert "Left out" not in page.text


def test_report_fetches_nothing_repeats_no_id_and_runs_no_script_but_its_own(evil_run):
    page = pages.read((evil_run / "report.html").read_text())
    pages.assert_safe(page)
    assert {known["href"] for tag, known in page.tags if tag == "a"} <= {f"#{key}" for key in page.ids}


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028", '"\'\\', "\x1b", "&lt;", "&amp"])
def test_data_of_a_page_comes_back_as_it_was_whatever_it_says(text):
    html = document(text, "", [Section("a", text, "<p></p>", {"x": {text: [text, 1.5, None, True]}})])
    page = pages.read(html)
    pages.assert_safe(page)
    assert page.data == {"a": {"x": {text: [text, 1.5, None, True]}}}
    assert not set("<>&\u2028") & set(to_script({"x": text}))


def test_numbers_of_a_page_are_short_and_what_is_not_finite_is_nothing():
    assert to_script([1 / 3, float("nan"), float("inf"), 2.0, -1e-9, 123456789.0, 7]) == "[0.333333,null,null,2,-1e-09,123457000,7]"


def test_report_is_the_same_every_time(evil_run):
    first = (evil_run / "report.html").read_bytes()
    assert write_report(evil_run).read_bytes() == first


def test_report_tells_the_epochs_at_which_the_genotype_changed(evil_run):
    page = pages.read((evil_run / "report.html").read_text())
    assert "The genotype changed 4 times." in page.text  # six epochs, of which the second repeats the first
    assert "validation accuracy 40.00 % at the end" in page.text
    assert [stretch[:2] for stretch in page.data["timeline"]["timeline"]] == [[1, 2], [3, 3], [4, 4], [5, 5], [6, 6]]


DECISION = {"kind": "normal", "what": "op", "where": "c_{k-2} → 0", "first": "sep_conv_3x3", "second": EVIL, "gap": 0.25, "spread": 0.5,
            "since": 0.0, "would_flip": True, "kept": True}


@pytest.mark.parametrize("sureness, shown", [
    ({"window_epochs": 2.0, "decisions": [DECISION, DECISION | {"kept": False, "where": "1 → 2", "would_flip": False, "since": 1.5}]},
     ["in the last 2 epochs", "normal, cₖ₋₂ → 0", "sep conv 3x3 before &lt;script&gt;", "0.2500", "Edges that no node keeps", "1.50"]),
    ({"window_epochs": 1.0, "decisions": [{}]}, ["Left out: the file is not as expected (KeyError"]),
    ({"decisions": 5}, ["Left out: the file is not as expected (KeyError"]),
])
def test_report_tells_how_sure_the_search_is_or_why_not(tmp_path, sureness, shown):
    write_run(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"values": {"sureness": sureness}}))
    section = pages.read(write_report(tmp_path).read_text()).section("sureness")
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
    drawn, guessed = (dict(cell_svgs(genotype, outputs=outputs)) for outputs in ({"cell": [2]}, None))
    html = write_report(tmp_path).read_text()
    inner = {title: svg.partition(">")[2] for title, svg in drawn.items()}["cell"]
    assert inner in html and guessed["cell"].partition(">")[2] not in html
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
    charts = {one["title"]: one["lines"] for one in pages.read(write_report(tmp_path).read_text()).data["curves"]["curves"]}
    assert charts.keys() == {"Loss", "My own number", "Mine"}
    assert charts["My own number"] == [{"name": "my_own_number", "x": [1, 2, 3], "y": [0, 0.5, 1]}]
    assert [line["name"] for line in charts["Mine"]] == ["a", "b"]


def test_a_run_that_records_thousands_of_numbers_is_still_a_page(tmp_path):
    record = {"epoch": 0, **{f"mine/{n}": 1.0 for n in range(100)}, **{f"own{n}": 1.0 for n in range(2000)}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record))
    page = pages.read(write_report(tmp_path).read_text())
    charts = page.data["curves"]["curves"]
    assert [one["title"] for one in charts[:6]] == ["Mine", "Mine (2)", "Mine (3)", "Mine (4)", "Mine (5)", "Own0"]
    assert len(charts) == 60 and "metrics.jsonl holds 1945 more" in page.text


def test_a_number_that_was_not_finite_is_a_gap_and_one_not_recorded_is_none(tmp_path):
    values = [{"val_loss": 1.0}, {"val_loss": None}, {}, {"val_loss": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"epoch": n, **v}) + "\n" for n, v in enumerate(values)))
    (chart,) = pages.read(write_report(tmp_path).read_text()).data["curves"]["curves"]
    assert chart["lines"] == [{"name": "validation", "x": [1, 2, 4], "y": [1, None, 2]}]


def test_the_weights_of_a_page_are_those_of_the_run_and_its_kept_edges_those_of_each_epoch(tmp_path):
    write_run(tmp_path)
    data = pages.read(write_report(tmp_path).read_text()).data["weights"]["weights"]
    arrays = np.load(tmp_path / "alphas.npz")
    genotypes = [Genotype.from_json(json.loads(line)["genotype"]) for line in (tmp_path / "genotypes.jsonl").read_text().splitlines()]
    assert genotypes.pop(1) == genotypes[0]  # it stayed what it was
    assert data["epochs"] == [1, 2, 3, 4, 5, 6]
    assert data["genotypes"] == [[n, g.digest] for n, g in zip((1, 3, 4, 5, 6), genotypes, strict=True)]
    for kind in data["kinds"]:
        np.testing.assert_allclose(kind["weights"], arrays[f"weights.{kind['kind']}"], atol=1e-4)
        for kept, genotype in zip(kind["kept"], genotypes, strict=True):
            found = {(OPS[o], *kind["edges"][e]) for e, o in kept}  # the file has another name for the last op
            assert found == {(e.op, e.source, e.destination) for e in genotype[kind["kind"]] if e.op != OPS[-1]}


def test_snapshots_keep_both_ends_and_whole_epochs():
    epochs = np.arange(0, 50.001, 0.05)
    keep = snapshots(epochs, 100)
    assert len(keep) == 120 and keep[0] == 0 and keep[-1] == len(epochs) - 1
    assert {round(epochs[n], 6) for n in keep} >= set(range(51))
    assert len(snapshots(epochs, 10_000)) == 25  # as many numbers as fit
    assert snapshots(epochs[:4], 100) == [0, 1, 2, 3]


@pytest.mark.parametrize("what", ["running", "killed", "finished", "failed"])
def test_a_page_says_how_its_run_stands(tmp_path, what):
    folder = RunFolder(tmp_path)
    folder.start(script="train_search", command="c", config_hash="h", status="failed" if what == "failed" else "running")
    with folder.lock() if what == "running" else contextlib.nullcontext():
        if what == "finished":
            folder.summary.write_text('{"rows": []}')
        html = write_report(tmp_path).read_text()
    word = {"killed": "stopped"}.get(what, what)
    assert f'<span class="chip {word}">{word}</span>' in html


def test_a_page_of_a_search_that_was_killed_has_its_weights_from_the_checkpoint(tmp_path):
    write_run(tmp_path)
    whole = pages.read(write_report(tmp_path).read_text()).data["weights"]
    with np.load(tmp_path / "alphas.npz") as arrays:
        tables = {kind: {"edges": arrays[f"edges.{kind}"].tolist(), "ops": arrays[f"ops.{kind}"].tolist()} for kind in space().cells}
        record = {"epochs": arrays["epoch"].tolist(),
                  "tables": {name: list(torch.tensor(arrays[name])) for name in arrays.files if name.startswith("weights.")}}
    (tmp_path / "alphas.npz").unlink()
    state = {"about": {"tables": tables}, "parts": {"trajectory": record}}
    checkpoint.save(tmp_path / "checkpoints", state, name="epoch_1")
    assert pages.read(write_report(tmp_path).read_text()).data["weights"] == whole
    newer = checkpoint.save(tmp_path / "checkpoints", {"about": {}, "parts": {}}, name="epoch_2")
    assert "its checkpoint does not tell" in write_report(tmp_path).read_text()
    newer.write_bytes(newer.read_bytes()[:-1] + b"!")
    html = write_report(tmp_path).read_text()
    assert pages.read(html).data["weights"] == whole and "is corrupt (sha256 differs); falling back to epoch_1" in html


def test_a_page_says_what_is_damaged(tmp_path):
    write_run(tmp_path)
    assert "Damaged: " not in write_report(tmp_path).read_text()
    data = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(b"{" + data)
    assert "Damaged: line 1 of metrics.jsonl is damaged." in write_report(tmp_path).read_text()
    (tmp_path / "metrics.jsonl").write_bytes(data)
    text = (tmp_path / "genotype.json").read_text()
    (tmp_path / "genotype.json").write_text(text.replace("skip_connect", "skip_connecu"))
    assert (tmp_path / "genotype.json").read_text() != text
    assert "Damaged: genotype.json cannot be read, or is not what was written." in write_report(tmp_path).read_text()


def test_the_colours_of_ops_in_pages_are_those_of_other_drawings():
    light = page_css.CSS.read_text().partition("@media")[0]
    assert dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", light)).items() >= FAMILY_COLOURS.items()


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
    assert "<svg" not in html.partition("<script>")[0]


@pytest.mark.parametrize("junk", ["", "{", "[1]", "null", '{"rows": 3, "cells": []}', "\udcff"])
def test_report_of_broken_files_is_still_written(tmp_path, junk):
    for name in ("alphas.npz", "config.yaml", "environment.json", "genotype.json", "genotypes.jsonl", "metrics.jsonl", "run.json",
                 "summary.json"):
        (tmp_path / name).write_text(junk, errors="surrogateescape")
    pages.assert_safe(pages.read(write_report(tmp_path).read_text()))


def test_the_library_loads_without_matplotlib():
    code = "import supernet.report, supernet.report.names, supernet.report.layout, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_leaves_pyplot_alone(tmp_path):
    code = ("import sys; from supernet.report.html import write_report; from pathlib import Path; "
            f"write_report(Path({str(tmp_path)!r})); assert 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
