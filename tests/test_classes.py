"""What is counted class by class, against definitions written out item by item, and against scikit-learn where it is installed."""

import math
import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from supernet.data.text import TextBatch
from supernet.tasks.classes import BINS, CLASS_METRICS, class_counts, class_metrics, per_class
from supernet.tasks.classification import Classification
from supernet.tasks.language_model import LanguageModel
from supernet.training.evaluate import evaluate, summed
from supernet.training.records import Sums


class Fixed(torch.nn.Module):
    """A network whose inputs are its outputs."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x, weights=None, *, generator=None):
        return x * self.scale


def drawn(seed, *, items=203, classes=7, present=None, sharpness=3.0):
    """Logits (items, classes) that lean to the true class, and labels among the first `present`."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, present or classes, (items,), generator=g)
    logits = sharpness * torch.randn(items, classes, generator=g, dtype=torch.float64)
    logits[torch.arange(items), targets] += 1.5
    return logits, targets


CASES = {
    "all classes": drawn(0),
    "two classes": drawn(1, classes=2),
    "more than five, some never true": drawn(2, classes=12, present=8),
    "one item": drawn(3, items=1),
    "one true class": drawn(4, present=1),
    "sure of itself": drawn(5, sharpness=60.0),
    "unsure": drawn(6, sharpness=0.01),
}


def evaluated(logits, targets, batch=50):
    batches = list(zip(logits.split(batch), targets.split(batch)))
    return evaluate(Fixed(), Classification(), batches, lambda: None, torch.Generator())


def written_out(logits, targets):
    """Every metric by its definition, an item after the other, in plain Python."""
    rows, truth = logits.tolist(), targets.tolist()
    n, classes = len(truth), len(rows[0])
    likely = [sorted(range(classes), key=lambda k: -row[k]) for row in rows]
    said = [order[0] for order in likely]
    p, surprise = [], []
    for row, true in zip(rows, truth):
        terms = [math.exp(value - max(row)) for value in row]
        p.append([term / math.fsum(terms) for term in terms])
        surprise.append(math.log(math.fsum(terms)) + max(row) - row[true])
    precision, recall, f1, support = [], [], [], []
    for k in range(classes):
        both = sum(a == b == k for a, b in zip(said, truth))
        guessed, true = said.count(k), truth.count(k)
        precision.append(both / guessed if guessed else 0.0)
        recall.append(both / true if true else 0.0)
        f1.append(2 * both / (guessed + true) if guessed + true else 0.0)
        support.append(true)
    error = 0.0
    for b in range(BINS):
        inside = [i for i in range(n) if b / BINS < max(p[i]) <= (b + 1) / BINS]
        if inside:
            accuracy = sum(said[i] == truth[i] for i in inside) / len(inside)
            error += len(inside) / n * abs(accuracy - sum(max(p[i]) for i in inside) / len(inside))
    found = {"accuracy": sum(a == b for a, b in zip(said, truth)) / n, "top5_accuracy": sum(t in o[:5] for t, o in zip(truth, likely)) / n,
             "balanced_accuracy": np.mean([r for r, s in zip(recall, support) if s]), "expected_calibration_error": error}
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        found[f"{name}_macro"] = sum(values) / classes
        found[f"{name}_weighted"] = sum(v * s for v, s in zip(values, support)) / n
    return {name: 100 * value for name, value in found.items()} | {"loss": math.fsum(surprise) / n}


@pytest.mark.parametrize("case", CASES)
def test_an_evaluation_gives_what_the_definitions_give_item_by_item(case):
    logits, targets = CASES[case]
    assert evaluated(logits, targets) == pytest.approx(written_out(logits, targets), abs=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_an_evaluation_equals_scikit_learn(case):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, targets = CASES[case]
    p, truth, classes = logits.softmax(-1).numpy(), targets.numpy(), logits.shape[1]
    said, labels = p.argmax(1), np.arange(classes)
    found, want = evaluated(logits, targets), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without items it warns, and of top-5 among five
        want |= {"accuracy": metrics.accuracy_score(truth, said), "balanced_accuracy": metrics.balanced_accuracy_score(truth, said)}
        want["top5_accuracy"] = metrics.top_k_accuracy_score(truth, p, k=5, labels=labels) if classes > 2 else 1.0
        for average in ("macro", "weighted"):
            scores = metrics.precision_recall_fscore_support(truth, said, labels=labels, average=average, zero_division=0)
            want |= {f"{name}_{average}": value for name, value in zip(("precision", "recall", "f1"), scores)}
        each = metrics.precision_recall_fscore_support(truth, said, labels=labels, zero_division=0)
        loss = metrics.log_loss(truth, p, labels=labels)
    assert {name: found[name] for name in want} == pytest.approx({name: 100 * value for name, value in want.items()}, abs=1e-10)
    if p[np.arange(len(p)), truth].min() > 1e-15:  # it takes smaller ones for that
        assert found["loss"] == pytest.approx(loss, abs=1e-10)
    table = per_class(class_counts(logits, targets)["classes"].numpy())
    for ours, theirs, scale in zip(table.values(), each, (100, 100, 100, 1), strict=True):
        np.testing.assert_allclose(ours, scale * theirs, atol=1e-10)


def test_sums_do_not_depend_on_how_items_are_batched_or_ordered():
    logits, targets = drawn(7, items=500)
    logits = logits.float()  # as networks compute; sums of single-precision confidences are exact
    mixed = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    whole, parts = Sums(), Sums()
    whole.add(class_counts(logits, targets))
    for rows in mixed.split(33):
        parts.add(class_counts(logits[rows], targets[rows]))
    one, two = whole.on_host(), parts.on_host()
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)
    assert one["classes"].dtype == np.int64 and one["classes"][1].sum() == 500


def test_a_task_says_beforehand_what_its_evaluations_give():
    logits, targets = CASES["all classes"]
    task = Classification()
    assert task.gives == set(evaluated(logits, targets)) == {"loss", "accuracy", *CLASS_METRICS}
    assert set(evaluate(Fixed(), task, [], lambda: None, torch.Generator())) == task.gives
    for item in ("character", "word"):
        own = LanguageModel(item=item, bptt=35)
        assert own.gives == {"loss", "accuracy", "perplexity", f"bits_per_{item}"}


def test_a_language_model_gives_loss_perplexity_and_bits_an_item():
    class Net(Fixed):
        def forward(self, x, weights=None, *, state=None, generator=None):
            return SimpleNamespace(logits=x * self.scale, state=None)

    g = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 4, 9, generator=g, dtype=torch.float64), torch.randint(0, 9, (6, 4), generator=g)
    batches = [TextBatch(logits[:2], targets[:2], True), TextBatch(logits[2:], targets[2:], False)]
    found = evaluate(Net(), LanguageModel(item="word", bptt=4), batches, lambda: None, torch.Generator())
    loss = -logits.log_softmax(-1).gather(-1, targets[..., None]).mean().item()
    assert found["loss"] == pytest.approx(loss) and found["perplexity"] == pytest.approx(math.exp(loss))
    assert found["bits_per_word"] == pytest.approx(loss / math.log(2))


def test_training_counts_no_classes_and_evaluation_leaves_the_mode():
    logits, targets = CASES["all classes"]
    net, task = Fixed().train(), Classification()
    assert set(task(net, (logits, targets)).stats) == {"loss", "correct", "count"}
    sums = summed(net, task, [(logits, targets)], lambda: None, torch.Generator())
    assert {"classes", "top5", "calibration"} < set(sums) and net.training


def test_no_value_is_read_from_the_device():
    """A tensor that stands for another has no values: whatever waits for one fails on it."""
    with FakeTensorMode():
        sums = Sums()
        for items in (8, 3):
            sums.add(class_counts(torch.randn(items, 7), torch.zeros(items, dtype=torch.int64)))
        assert sums.sums["classes"].shape == (3, 7) and sums.sums["calibration"].shape == (BINS, 3)
        with pytest.raises(DataDependentOutputException):
            sums.sums["top5"].item()


def test_a_network_that_is_not_finite_is_not_counted_as_good():
    logits = torch.full((20, 10), float("nan"), dtype=torch.float64)
    found = evaluated(logits, torch.arange(20) % 10)
    assert found["top5_accuracy"] < 100 and math.isnan(found["loss"]) and math.isnan(found["expected_calibration_error"])


def test_top_5_is_never_below_accuracy_where_all_logits_are_equal():
    found = evaluated(torch.zeros(30, 10, dtype=torch.float64), torch.arange(30) % 10)
    assert found["accuracy"] == pytest.approx(10) and found["top5_accuracy"] in (pytest.approx(50), pytest.approx(60))


def test_half_precision_is_counted_in_single():
    logits, targets = CASES["all classes"]
    found = evaluate(Fixed(torch.bfloat16), Classification(), [(logits.bfloat16(), targets)], lambda: None, torch.Generator())
    assert found == pytest.approx(written_out(logits.bfloat16().double(), targets), abs=1e-4)


def test_a_class_that_nobody_has_or_predicts_counts_as_0_in_macro_means_but_not_in_balanced_accuracy():
    classes = np.array([[8, 10, 0], [10, 10, 0], [8, 12, 0]])  # right, there, predicted
    table = per_class(classes)
    assert table["f1"].tolist()[2] == table["precision"].tolist()[2] == table["recall"].tolist()[2] == 0
    sums = {"classes": classes, "top5": np.array(20), "calibration": np.tile([1.0, 1.0, 1.0], (BINS, 1))}
    found = class_metrics(sums)
    assert found["recall_macro"] == pytest.approx((80 + 100 + 0) / 3) and found["balanced_accuracy"] == pytest.approx(90)


@pytest.mark.parametrize("seed", range(3))
def test_half_of_the_labels_shuffled_lowers_every_share_but_the_calibration_error(seed):
    """A fixed direction that any of the metrics with its sign wrong would break."""
    logits, targets = drawn(seed, items=2000, sharpness=0.5)
    order = list(range(1000))
    random.Random(seed).shuffle(order)
    worse = torch.cat([targets[:1000][order], targets[1000:]])
    good, bad = evaluated(logits, targets), evaluated(logits, worse)
    assert all(bad[name] < good[name] for name in CLASS_METRICS if name != "expected_calibration_error")
