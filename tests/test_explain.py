"""What is said of a found architecture: each number against its source, and the command as a user meets it."""

import csv
import gzip
import json
import math
import random
import re
import runpy
import sys

import numpy as np
import pytest
import torch

from supernet.commands import explain, explained
from supernet.data.images import ImageData
from supernet.evaluators.ablation import answers, without_edge
from supernet.evaluators.shared_weights import SharedWeights
from supernet.genotype import Edge, Genotype
from supernet.report.agreement import agreement
from supernet.report.effects import by_answers, by_table, change_text, in_place, places, taken_out
from supernet.report.explanation import Explanation, read, told
from supernet.report.html import run_page, write_report
from supernet.report.names import op_label
from supernet.report.statistics import paired_shares
from supernet.runs.folder import write_json
from supernet.spaces import darts, nasbench201, toy
from supernet.tables.files import write_table
from supernet.tables.table import Columns, Table
from supernet.tasks.classification import Classification
from supernet.weights import one_hot
from tests import helpers
from tests.builders import build
from tests.pages import assert_safe
from tests.pages import read as read_page
from tests.runs import folders, planted_run
from tests.shared import NB201, needs

SPACE = toy.make()
SMALL = ["space=toy", "layers=3", "channels=2", "epochs=2", "split.max_train=64", "split.max_val=48"]


@pytest.mark.parametrize("seed", range(4))
def test_a_paired_difference_has_the_mean_and_the_standard_error_of_its_items(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.random(40) < 0.5, rng.random(40) < 0.7
    difference = after.astype(float) - before
    found = paired_shares(int((after & ~before).sum()), int((before & ~after).sum()), 40)
    assert found.difference == pytest.approx(difference.mean())
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / math.sqrt(40))
    assert found.low < found.difference < found.high


def test_an_interval_of_pairs_is_that_of_items_with_half_an_item_more_of_each_kind():
    lost, gained, n = 7.5, 2.5, 102  # of 100 items
    share = (gained - lost) / n
    half = 1.959963985 * math.sqrt((gained + lost) / n - share**2) / math.sqrt(n)
    found = paired_shares(2, 7, 100)
    assert (found.low, found.high) == pytest.approx((share - half, share + half))
    still = paired_shares(0, 0, 100)
    assert still.standard_error == 0 and still.low == -still.high < 0  # no item changed, and yet the next may
    wide = paired_shares(2, 7, 100, level=0.999)
    assert wide.low < found.low and wide.high > found.high
    with pytest.raises(ValueError, match="of 5 items"):
        paired_shares(3, 3, 5)


@pytest.mark.parametrize("seed", range(2))
def test_an_edge_that_is_taken_out_counts_as_the_op_none(seed):
    space, x = nasbench201.make(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    net = build(space, layers=3).eval()
    genotype = space.sample(random.Random(seed))
    for place in places(space, genotype):
        other = taken_out(space, genotype, place)
        if place.op == "none":
            assert other is None
            continue
        with torch.no_grad():
            ours = net(x, without_edge(space, genotype, place.kind, place.n, dtype=torch.float64))
            theirs = net(x, one_hot(space, other, dtype=torch.float64))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_answers_are_those_of_the_accuracy_and_leave_the_network_as_it_was():
    g = torch.Generator().manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8, generator=g, dtype=torch.float64), torch.randint(5, (16,), generator=g)) for _ in range(4)]
    space = darts.make(nodes=2)
    net = build(space, layers=3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shared = SharedWeights(net, space, Classification(), batches[2:], torch.Generator().manual_seed(1), calibration=batches[:2])
    genotypes = [space.sample(random.Random(seed)) for seed in range(3)]
    found = list(answers(shared, [one_hot(space, genotype, dtype=torch.float64) for genotype in genotypes], 32))
    assert [100 * right.mean() for right in found] == [pytest.approx(shared(genotype)["accuracy"]) for genotype in genotypes]
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_effects_of_answers_are_paired_item_by_item():
    genotype = SPACE.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|")
    own = np.array([True] * 60 + [False] * 40)
    worse, same = own & (np.arange(100) >= 30), own.copy()  # 30 of those that were right are lost
    others = dict.fromkeys(SPACE.neighbours(genotype), same)
    view = by_answers("shared weights", SPACE, genotype, ["on."], own, others, {("cell", 0): worse, ("cell", 2): same})
    first, idle, last = view.carried
    assert (first.without.accuracy, first.without.difference) == pytest.approx((30, -30))
    assert first.without.surely is True and first.without.high < 0 and last.without.surely is False
    assert idle.without is None and idle.place.op == "none" and set(idle.instead) == {"skip_connect", "nor_conv_3x3"}
    text = " ".join(told(Explanation(genotype, "", (view,)))[0][1])
    assert "carries nothing by construction" in text and "So 1 of 2 edges carries something for sure, and 0 do harm" in text
    assert "0 are better, 0 are worse and 6 equal. So no single change improves it here." in text


def test_a_change_is_told_by_what_differs():
    space = darts.make(nodes=2)
    genotype = space.sample(random.Random(0))
    texts = [change_text(space, genotype, other) for other in space.neighbours(genotype)]
    assert len(set(texts)) == len(texts) and all(" in place of " in text for text in texts)
    place = places(space, genotype)[0]
    other = in_place(space, genotype, place)["max_pool_3x3" if place.op != "max_pool_3x3" else "skip_connect"]
    assert change_text(space, genotype, other).endswith(f"in place of {op_label(place.op)}")
    assert taken_out(space, genotype, place) is None  # a node keeps two edges there


def test_agreement_counts_the_edges_and_the_ops_of_all_runs():
    space = darts.make(nodes=2)
    normal = [Edge(2, 0, "skip_connect"), Edge(2, 1, "skip_connect"), Edge(3, 0, "max_pool_3x3"), Edge(3, 1, "skip_connect")]
    other = [*normal[:2], Edge(3, 0, "sep_conv_3x3"), Edge(3, 2, "skip_connect")]
    runs = [space.genotype({"normal": cell, "reduce": normal}) for cell in (normal, other, other)]
    found = agreement(space, runs, ["a", "b", "c"])
    counts = {(one.place.kind, one.place.edge): (one.edge, one.op) for one in found.shared}
    assert all(counts["reduce", edge] == (3, 3) for edge in normal)
    assert [counts["normal", edge] for edge in normal] == [(3, 3), (3, 3), (3, 1), (1, 1)]
    (elsewhere,) = found.elsewhere
    assert (elsewhere.kind, elsewhere.runs, elsewhere.op, elsewhere.with_op) == ("normal", 2, "skip_connect", 2)
    assert found.distinct == 2 and not found.every_edge
    text = " ".join(told(Explanation(runs[0], "", agreement=found))[0][1])
    assert "agree on 6 of its 8 edges" in text and "No other run has 2 of its edges" in text and "2 of 3 keep it" in text


# ---- by a table: each statement against the rows of the file, read here by other means


def rows_of(path, column):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
        lines = [line for line in file if not line.startswith("#")]
    return {row["arch"]: float(row[column]) if row[column] else math.nan for row in csv.DictReader(lines)}


def op_named(label, ops):
    (op,) = [op for op in ops if op_label(op) == label]
    return op


POINTS = r"(no difference|[\d.]+ points (?:more|less))"
INPUT = "cₖ₋₁"


def points(text):
    return 0.0 if text == "no difference" else float(text.split()[0]) * (1 if text.endswith("more") else -1)


def check_against_table(sentences, cell, rows, ops):
    """Every sentence of a one-input cell's explanation, by the rows of its table alone. Returns how many were checked."""
    own, edges = rows[cell], re.findall(r"(\w+)~(\d)", cell)
    nodes = [n for n, part in enumerate(cell.split("+"), 1) for _ in part.strip("|").split("|")]

    def place(label):
        source, destination = label.split(" → ")
        wanted = (0 if source == INPUT else int(source) + 1, int(destination) + 1)
        (n,) = [n for n, ((_, s), d) in enumerate(zip(edges, nodes)) if (int(s), d) == wanted]
        return n

    def changed(n, op):
        words = [f"{op if m == n else own_op}~{s}" for m, (own_op, s) in enumerate(edges)]
        return "+".join(f"|{'|'.join(w for w, d in zip(words, nodes) if d == node)}|" for node in sorted(set(nodes)))

    def near(seen, value):
        assert seen == pytest.approx(value, abs=0.0051), (seen, value)

    def check_instead(text, n, without_none):
        others = {op: rows[changed(n, op)] - own for op in ops if op != edges[n][0] and not (without_none and op == "none")}
        pattern = rf" In its place ([\w ]+) would be best, {POINTS}, and ([\w ]+) worst, {POINTS}\."
        best, most, worst, least = re.fullmatch(pattern, text).groups()
        near(points(most), max(others.values()))
        near(points(least), min(others.values()))
        near(others[op_named(best, ops)], max(others.values()))
        near(others[op_named(worst, ops)], min(others.values()))

    neighbours = {changed(n, op): rows[changed(n, op)] - own for n in range(len(edges)) for op in ops if op != edges[n][0]}
    checked, ordered = 0, sorted(neighbours.values(), reverse=True)
    for said in sentences:
        if match := re.fullmatch(r"Judged by .* This one has ([\d.]+) %, rank ([\d,]+) of ([\d,]+) .*", said):
            near(float(match[1]), own)
            known = [v for v in rows.values() if not math.isnan(v)]
            assert [int(m.replace(",", "")) for m in match.groups()[1:]] == [1 + sum(v > own for v in known), len(known)]
        elif match := re.match(r"(\d+) architectures of the table, .* they have ([\d.]+) to ([\d.]+) %", said):
            low, high = map(float, match.groups()[1:])
            assert int(match[1]) > 1 and low - 0.0051 <= own <= high + 0.0051
        elif said == "An edge is taken out by the op none in its place.":
            assert "none" in ops
        elif match := re.fullmatch(rf"(.+), ([\w ]+): without it ([\d.]+) %, {POINTS}\.( It computes .* without\.)?( In .*)?", said):
            n = place(match[1])
            assert op_named(match[2], ops) == edges[n][0]
            near(float(match[3]), rows[changed(n, "none")])
            near(points(match[4]), rows[changed(n, "none")] - own)
            if match[6]:
                check_instead(match[6], n, True)
        elif match := re.fullmatch(r"(.+) has the op none, and carries nothing by construction\.( In .*)", said):
            assert edges[place(match[1])][0] == "none"
            check_instead(match[2], place(match[1]), False)
        elif match := re.match(r"Of (\d+) neighbours, one change away, (\d+) \w+ better, (\d+) \w+ worse and (\d+) equal", said):
            counts = [len(ordered), sum(v > 0 for v in ordered), sum(v < 0 for v in ordered), ordered.count(0)]
            assert [int(m) for m in match.groups()] == counts
            assert ("no single change" in said) == (ordered[0] <= 0)
        else:
            text, label, old, value, difference = re.fullmatch(
                rf"(?:The best|Next): (?:([\w ]+) on (.+)) in place of ([\w ]+): ([\d.]+) %, {POINTS}\.(?: It computes .*)?", said).groups()
            other = changed(place(label), op_named(text, ops))
            assert op_named(old, ops) == edges[place(label)][0]
            near(float(value), rows[other])
            near(points(difference), neighbours[other])
            best = [s for s in sentences if s.startswith(("The best: ", "Next: "))].index(said)
            near(points(difference), ordered[best])
        checked += 1
    return checked


def explained_by(capsys, cell, path, dataset, tmp_path):
    file = tmp_path / "cell.txt"
    file.write_text(cell)
    assert explain.main([str(file), "--table", str(path), "--dataset", dataset, "--output", str(tmp_path / "found.json")]) == 0
    found = read(tmp_path / "found.json")
    printed = " ".join(capsys.readouterr().out.split())
    sentences = dict(found["told"])["By the table"]
    assert all(" ".join(said.split()) in printed for said in sentences)
    return sentences


@needs(NB201)
def test_each_statement_of_a_cell_of_nasbench201_is_what_the_table_says(capsys, tmp_path):
    rows, space = rows_of(NB201, "c10_val_12"), nasbench201.make()
    cells = ["|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|",
             "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"]
    for cell in cells:
        sentences = explained_by(capsys, cell, NB201, "cifar10", tmp_path)
        assert check_against_table(sentences, cell, rows, nasbench201.OPS) == len(sentences) >= 9
        alike = rows_of(NB201, "iso_rep")  # the first cell of the same function, by the table
        values = [rows[other] for other, first in alike.items() if first == alike[cell]]
        (said,) = [said for said in sentences if "compute the same function;" in said] or [""]
        assert said.startswith(f"{len(values)} architectures") and f"{min(values):.2f} to {max(values):.2f} %" in said if len(
            values) > 1 else not said
    wrong = [said.replace("20.40 points less", "20.50 points less") for said in explained_by(capsys, cells[0], NB201, "cifar10", tmp_path)]
    with pytest.raises(AssertionError, match=r"-20\.5"):  # the check sees a number that is not the table's
        check_against_table(wrong, cells[0], rows, space.cells["cell"].ops)


@pytest.fixture
def small_table(tmp_path):
    """A table of the toy space, of made-up numbers; its column of the test has one that is found again."""
    space = toy.make()
    genotypes = list(space.enumerate())
    values = np.random.default_rng(0).uniform(20, 90, len(genotypes)).round(3)
    write_table(tmp_path / "toy.csv", space, [space.text(g) for g in genotypes], {"val": values, "test": np.full(len(values), 12.34)},
                {"digits": Columns("val", "test")})
    return tmp_path / "toy.csv"


@pytest.mark.parametrize("seed", range(3))
def test_each_statement_of_a_toy_cell_is_what_its_table_says(seed, small_table, capsys, tmp_path):
    cell = SPACE.text(SPACE.sample(random.Random(seed)))
    sentences = explained_by(capsys, cell, small_table, "digits", tmp_path)
    checked = [said for said in sentences if "is the only other" not in said]  # where none is left out, one other op remains
    assert check_against_table(checked, cell, rows_of(small_table, "val"), toy.OPS) == len(checked) >= 3
    assert "12.34" not in " ".join(sentences)  # the column of the test


def test_a_neighbour_of_the_same_function_is_told_as_such():
    texts = [SPACE.text(g) for g in SPACE.enumerate()]
    table = Table(SPACE, texts, {"v": np.linspace(10, 90, len(texts))}, {"d": Columns("v", "v")})
    genotype = SPACE.parse("|none~0|+|skip_connect~0|skip_connect~1|")  # nothing leaves node 1, whatever the last op
    view = by_table(SPACE, genotype, table, "v", [])
    alike = {step.text for step in view.steps if step.effect.same_function}
    assert alike == {"|none~0|+|skip_connect~0|none~1|", "|none~0|+|skip_connect~0|nor_conv_3x3~1|"}
    assert len(table.alike(genotype)) >= 3
    assert any("computes the same function" in said for said in told(Explanation(genotype, "", (view,)))[0][1])


# ---- the command on runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two searches of other seeds, and the final training of what the first found."""
    cwd = tmp_path_factory.mktemp("explain")
    for seed in (0, 1):
        assert helpers.run("train_search", *SMALL, f"seed={seed}", cwd=cwd, report=False).code == 0
    first, second = sorted((f.path for f in folders(cwd)), key=lambda path: path.name.rpartition("seed")[2])
    final = helpers.run("train_final", f"genotype={first}/genotype.json", "layers=3", "channels=2", "epochs=1", "split.max_train=64",
                        cwd=cwd, report=False)
    assert final.code == 0, final.err
    (trained,) = {f.path for f in folders(cwd)} - {first, second}  # names begin with the second in which a run began
    return {"searches": [first, second], "final": trained}


@pytest.fixture(autouse=True)
def no_test_part_is_opened(monkeypatch):
    def opened(*args, **kwargs):
        raise AssertionError("the test part was opened")

    monkeypatch.setattr(ImageData, "test", opened)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_search_is_explained_in_its_folder_and_in_its_page(runs, capsys):
    first, second = runs["searches"]
    assert explain.main([str(first), str(second)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    written = (first / "explanation.json").read_bytes()
    data = read(first / "explanation.json")
    (view,) = data["views"]
    assert view["by"] == "shared weights" and len(view["steps"]) == 6 and len(view["carried"]) == 3
    assert data["digest"] == Genotype.load(first / "genotype.json").digest
    for _, said in data["told"]:
        assert all(" ".join(text.split()) in printed for text in said)
    assert "all 48 images of the search's validation part" in printed and "2 runs are compared" in printed and "seed 0, seed 1" in printed
    page = read_page((first / "report.html").read_text())
    assert_safe(page)
    section = page.section("explanation")
    assert "best neighbours" in section and "Agreement over runs" in section
    assert "stroke-width:" in section or "Nothing is lost" in section
    assert explain.main([str(first), str(second)]) == 0
    assert (first / "explanation.json").read_bytes() == written


def test_fewer_images_are_drawn_by_the_seed(runs, capsys):
    def counted(*options):
        assert explain.main([str(runs["searches"][1]), "--by", "weights", *options]) == 0
        return re.search(r"It gets .*", capsys.readouterr().out)[0]

    assert "of 20 right" in counted("--images", "20") and counted("--images", "20") == counted("--images", "20", "--seed", "0")
    assert "of 48 right" in counted("--images", "all")


def test_a_final_network_is_explained_by_its_own_weights(runs, capsys):
    assert explain.main([str(runs["final"])]) == 0
    (view,) = read(runs["final"] / "explanation.json")["views"]
    assert view["by"] == "own weights" and not view["steps"] and view["unjudged"] == 6
    assert "held out, which it was not trained on" in " ".join(capsys.readouterr().out.split())


def test_what_was_changed_or_is_of_another_architecture_is_not_shown(runs, tmp_path):
    planted = planted_run(tmp_path / "run", job="a", genotype=5)
    found = Explanation(list(SPACE.enumerate())[6], "text")
    found.save(planted / "explanation.json")
    assert "explains another architecture" in read_page(run_page(planted)).section("explanation")
    Explanation(list(SPACE.enumerate())[5], "text", left_out={"By a table": "<b>none</b>"}).save(planted / "explanation.json")
    section = read_page(run_page(planted)).section("explanation")
    assert "&lt;b&gt;none" in section and "<b>" not in section
    data = json.loads((planted / "explanation.json").read_text())
    write_json(planted / "explanation.json", data | {"text": "another"})
    assert "sha256 differs" in read_page(run_page(planted)).section("explanation")
    (planted / "explanation.json").write_text("[1")
    assert "Left out" in read_page(write_report(planted).read_text()).section("explanation")


def test_margins_are_those_of_the_summary_and_say_where_something_else_chose(tmp_path, capsys):
    run = planted_run(tmp_path / "run", job="a", genotype=5)
    genotype = list(SPACE.enumerate())[5]
    first, second, _ = places(SPACE, genotype)
    another = "nor_conv_3x3" if second.op == "skip_connect" else "skip_connect"
    decisions = [{"kind": "cell", "what": "op", "where": place.label, "first": op, "second": "none", "gap": 0.25, "spread": 0.5, "since": 0,
                  "would_flip": flips, "kept": True} for place, op, flips in ((first, first.op, True), (second, another, False))]
    summary = json.loads((run / "summary.json").read_text())
    summary["values"]["sureness"] = {"window_epochs": 2.0, "decisions": decisions}
    write_json(run / "summary.json", summary)
    assert explain.main([str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Of 2 choices that the edge weights make, 1 could turn" in printed
    assert "by 0.2500, a lead that moved by 0.5000: unsure" in printed
    assert printed.count("The architecture has") == 1 and f"has {op_label(second.op)} there" in printed
    assert "Not told By the supernet's shared weights:" in printed  # there is no checkpoint


def wrong(tmp_path):
    planted = planted_run(tmp_path / "runs" / "run", job="a")
    unfinished = planted_run(tmp_path / "more" / "run", job="b", status="running")
    (unfinished / "genotype.json").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "cell.txt").write_text("|none~0|+|none~0|none~1|")
    return {"empty": ([tmp_path / "empty"], "expected the folder of a run, with run.json; there is none"),
            "folder of runs": ([tmp_path / "runs"], "this is a folder of 1 runs: name one of them"),
            "nothing there": ([tmp_path / "none"], "no such file"),
            "unfinished": ([unfinished], "has found no architecture yet"),
            "nothing to say": ([planted], "nothing can be said of it: .*no checkpoint|expected the folder of a run"),
            "weights": ([planted, "--by", "weights"], "stopped before its first checkpoint"),
            "images": ([planted, "--images", "1"], "--images must be a whole number of at least 2, or all, got '1'"),
            "device": ([planted, "--device", "gpu"], "--device must be"),
            "seed": ([planted, "--seed", "-1"], "--seed must be at least 0, got -1"),
            "table": ([planted, "--table", tmp_path / "none.csv"], "cannot read the table"),
            "output": ([planted, "--output", tmp_path / "x"], "--output is of a genotype alone"),
            "others": ([tmp_path / "cell.txt", planted], "only the folder of a search is compared"),
            "genotype by weights": ([tmp_path / "cell.txt", "--by", "weights"], "--by weights needs the folder of a run"),
            "no other run": ([planted, planted], "no other finished search")}


@pytest.mark.parametrize("case", ["empty", "folder of runs", "nothing there", "unfinished", "nothing to say", "weights", "images", "device",
                                  "seed", "table", "output", "others", "genotype by weights", "no other run"])
def test_what_cannot_be_explained_is_one_line(case, tmp_path, capsys):
    options, says = wrong(tmp_path)[case]
    before = helpers.contents(tmp_path)
    assert explain.main(list(map(str, options))) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and re.search(says, err), err
    assert helpers.contents(tmp_path) == before


def test_other_data_than_those_of_the_run_are_refused(runs, capsys, monkeypatch):
    from supernet.data.split import Split

    other = Split(torch.arange(3), torch.arange(3, 6))
    monkeypatch.setattr(Split, "load", staticmethod(lambda path: other))
    assert explain.main([str(runs["searches"][0]), "--by", "weights"]) == 2
    assert "other data" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing_behind(runs, capsys, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    run = runs["searches"][1]
    (run / "explanation.json").unlink(missing_ok=True)
    monkeypatch.setattr(explained, "by_weights", stopped)
    assert explain.main([str(run)]) == 130
    assert capsys.readouterr().err == "interrupted: an explanation is written whole or not at all\n"
    assert not (run / "explanation.json").exists()


def test_layers_of_a_chain_are_replaced_and_not_taken_out(tmp_path, capsys):
    options = ["space=nasbench_macro", "channels=2", "epochs=1", "split.max_train=32", "split.max_val=32"]
    assert helpers.run("train_search", *options, cwd=tmp_path, report=False).code == 0
    (run,) = folders(tmp_path)
    assert explain.main([str(run.path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    (view,) = read(run.path / "explanation.json")["views"]
    assert all(one["without"] is None and len(one["instead"]) == 2 for one in view["carried"]) and len(view["steps"]) == 16
    assert printed.count("it cannot be taken out alone. In its place") == 8
    assert "Nothing is lost" not in read_page((run.path / "report.html").read_text()).section("explanation")


def test_the_command_says_how_it_is_used(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["explain", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("supernet.explain", run_name="__main__")
    assert "supernet.explain runs/<a search>" in capsys.readouterr().out
