"""The part of a page that shows a test class by class, on planted counts."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from supernet.report.classes import MAX_DRAWN, MAX_NUMBERED, RIGHT, WRONG, confusion_svg, mistakes_table, reliability_svg
from supernet.report.html import write_report
from supernet.report.summary import class_tables
from supernet.runs.predictions import Predictions
from supernet.tasks.classes import class_counts
from supernet.tasks.classification import Classification
from tests import pages


def planted(folder, classes, items=2000, names=None):
    """summary.json and predictions.npz of a test with `classes` classes; the predictions."""
    g = torch.Generator().manual_seed(classes)
    targets = torch.arange(items) % classes
    logits = torch.randn(items, classes, generator=g)
    logits[torch.arange(items), targets] += 3
    names = tuple(names or (f"class {n}" for n in range(classes)))
    kept = Predictions(targets.numpy(), logits.argmax(-1).numpy(), logits.softmax(-1).numpy(), names)
    sums = {name: value.numpy() for name, value in class_counts(logits, targets).items()}
    (folder / "predictions.npz").write_bytes(kept.as_bytes())
    (folder / "summary.json").write_text(json.dumps({"rows": [], "values": {}, **class_tables(sums, names)}))
    return kept


def squares(svg, colour):
    """(row, column) of every square of a colour, from their places; the side of one is that of the smallest step."""
    paths = re.findall(rf'fill="{colour}" fill-opacity="([0-9.]+)" d="([^"]+)"', svg)
    return {(int(x), int(y)): float(opacity) for opacity, d in paths for x, y in re.findall(r"M(\d+) (\d+)", d)}


@pytest.mark.parametrize("classes", [2, 10, MAX_NUMBERED, MAX_NUMBERED + 1, 100, MAX_DRAWN])
def test_every_entry_that_is_not_zero_is_a_square_of_its_own(tmp_path, classes):
    kept = planted(tmp_path, classes)
    svg = confusion_svg(kept.confusion, kept.class_names)
    ElementTree.fromstring(svg)
    right, wrong = squares(svg, RIGHT), squares(svg, WRONG)
    diagonal = np.diagonal(kept.confusion)
    assert len(right) == (diagonal > 0).sum() and len(wrong) == (kept.confusion > 0).sum() - len(right)
    assert not right.keys() & wrong.keys() and all(0 < opacity <= 1 for opacity in [*right.values(), *wrong.values()])
    written = re.findall(r'fill="(?:#ffffff|currentColor)">(\d+)</text>', svg)
    assert sorted(map(int, written)) == (sorted(kept.confusion[kept.confusion > 0].tolist()) if classes <= MAX_NUMBERED else [])
    assert len(svg) < 300_000


def test_rows_are_true_classes_and_columns_predicted_ones():
    confusion = np.array([[5, 4, 0], [0, 9, 0], [0, 0, 0]])
    svg = confusion_svg(confusion, ["a", "b", "c"])
    (wrong,), right = squares(svg, WRONG), sorted(squares(svg, RIGHT))
    assert wrong == (right[1][0], right[0][1])  # the column of b, the row of a
    shade = squares(svg, RIGHT)
    assert shade[right[0]] < shade[right[1]] == 1


def test_the_commonest_mistakes_stand_first():
    html = mistakes_table(np.array([[5, 4, 1], [7, 9, 0], [0, 0, 3]]), ["a", "b", "c"])
    rows = re.findall(r'<th scope="row">(\w)</th><td>(\w)</td><td>(\d+)</td><td>([0-9.]+)</td>', html)
    assert rows == [("b", "a", "7", "43.8"), ("a", "b", "4", "40.0"), ("a", "c", "1", "10.0")] and "12 in all" in html
    assert "No item was taken for one of another class" in mistakes_table(np.diag([1, 2]), ["a", "b"])


def test_a_page_of_many_classes_stays_small_and_tells_the_mistakes_where_no_matrix_can_be_drawn(tmp_path):
    planted(tmp_path, 100, items=10_000)
    html = write_report(tmp_path)
    assert html.stat().st_size < 400_000 and "items by true and predicted class" in html.read_text()
    planted(tmp_path, MAX_DRAWN + 1)
    html = write_report(tmp_path).read_text()
    assert "items by true and predicted class" not in html and "Commonest mistakes" in html


def test_names_of_classes_are_text_in_a_page(tmp_path):
    planted(tmp_path, 3, names=["<script>x</script>", 'a"b&\x07c', "Бабочка" * 9])
    html = write_report(tmp_path).read_text()
    pages.assert_safe(pages.read(html))
    assert "<script>x" not in html and "&lt;script&gt;" in html and "\x07c…" not in html and "Бабочка" in html


def test_bins_of_confidence_without_items_are_left_out():
    ElementTree.fromstring(reliability_svg([[1 / 15, 1, 0.0, 5.0], [1.0, 10, 90.0, 99.0]]))
    sums = {"classes": np.ones((3, 2), dtype=int), "calibration": np.zeros((15, 3))}
    sums["calibration"][14] = 2, 1, 1.9
    (row,) = class_tables(sums, ["a", "b"])["calibration"]
    assert row == pytest.approx([1.0, 2, 50.0, 95.0]) and class_tables({"loss": np.zeros(())}, []) == {}


@pytest.mark.parametrize("name", ["predictions.npz", "summary.json"])
def test_a_page_without_one_of_the_files_shows_the_other(tmp_path, name):
    planted(tmp_path, 4)
    if name == "predictions.npz":
        (tmp_path / name).write_bytes(b"not a zip")
        html = write_report(tmp_path).read_text()
        assert "Left out: the file is not as expected (" in html and "precision (%)" in html
    else:
        (tmp_path / name).write_text(json.dumps({"rows": [], "classes": {"name": ["a"]}, "calibration": []}))
        html = write_report(tmp_path).read_text()
        assert "Left out: " in html and "items by true and predicted class" in html


def test_no_metric_of_an_evaluation_has_a_chart_for_itself_alone(tmp_path):
    record = {"epoch": 0, "train_loss": 1.0, "train_accuracy": 50.0}
    record |= {f"{part}_{name}": 60.0 for part in ("val", "test") for name in Classification().gives}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record))
    charts = pages.read(write_report(tmp_path).read_text()).data["curves"]["curves"]
    assert [one["title"] for one in charts] == ["Loss", "Accuracy", "Precision, recall and F1 of validation",
                                                "Calibration error of validation"]
