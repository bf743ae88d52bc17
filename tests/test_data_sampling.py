"""Balanced batches and class weights: rare classes count as much as common ones."""

import io

import pytest
import torch
from torch import nn

from supernet.data.augment import Augment
from supernet.data.base import DataError, Images
from supernet.data.loader import Forever, Loader
from supernet.data.sampling import balanced, sampling, shuffled
from supernet.errors import UsageError
from supernet.tasks.classification import Classification, balanced_weights

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def labels_of(*counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=generator(9))]


@pytest.mark.parametrize("counts", [(50, 5, 1), (7, 7, 7), (3,), (1, 100), (20, 0, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_a_balanced_pass_has_as_many_images_and_every_class_equally_often(counts, seed):
    labels = labels_of(*counts)
    order = balanced(labels)(generator(seed))
    found = labels[order].bincount(minlength=len(counts))
    present = torch.tensor(counts) > 0
    assert len(order) == len(labels) and int(found[present].max() - found[present].min()) <= 1 and (found[~present] == 0).all()
    times = order.bincount(minlength=len(labels))
    for k, count in enumerate(counts):  # no image of a class comes again before every other came
        own = times[labels == k]
        assert count == 0 or int(own.max() - own.min()) <= 1


def test_every_image_of_a_large_class_is_equally_likely():
    labels = labels_of(30, 10)
    draw, source, hits = balanced(labels), generator(), torch.zeros(40)
    for _ in range(600):
        hits += draw(source).bincount(minlength=40)
    assert (hits[labels == 0] / 600 - 20 / 30).abs().max() < 0.1  # five standard deviations
    assert ((hits[labels == 1] / 600) - 2).abs().max() < 1e-6


def test_the_shuffled_draw_is_the_permutation_that_it_was():
    assert torch.equal(shuffled(labels_of(20, 5))(generator(3)), torch.randperm(25, generator=generator(3)))
    with pytest.raises(DataError, match="dataset.sampling must be shuffled or balanced, got 'weighted'"):
        sampling("weighted", labels_of(2))


@pytest.mark.parametrize("taken", [0, 1, 5, 11, 14])
def test_balanced_batches_go_on_bit_for_bit_after_a_checkpoint(taken):
    images = Images(torch.arange(42, dtype=torch.uint8).view(-1, 1, 1, 1).expand(42, 1, 8, 8).contiguous(), labels_of(35, 5, 2))

    def endless(seed):
        transform = Augment(pad=1, flip=True, cutout=2).for_training((0.5,), (0.3,), device=CPU)
        return Forever(Loader(images, torch.arange(1, 42), batch_size=4, transform=transform, generator=generator(seed), shuffle=True,
                              drop_last=False, device="cpu", sampling="balanced"))

    whole, resumed = endless(0), endless(1)
    for _ in range(taken):
        next(whole)
    buffer = io.BytesIO()
    torch.save(whole.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(25):
        for a, b in zip(next(whole), next(resumed), strict=True):
            assert torch.equal(a, b)


# --- class weights ----------------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """Gives the same logits, and the same for the auxiliary head, doubled."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x, weights=None, *, generator=None, auxiliary=False):
        return (self.logits, 2 * self.logits) if auxiliary else self.logits


def reference(logits, targets, weights, smoothing=0.0):
    """The definition: sum of w_y times an image's loss, over the sum of w_y (smoothing spreads over w_k / K, as torch has it)."""
    log = logits.log_softmax(-1)
    k = logits.shape[1]
    own = torch.stack([-(1 - smoothing) * weights[t] * log[i, t] - smoothing / k * (weights * log[i]).sum()
                       for i, t in enumerate(targets)])
    return own.sum() / weights[targets].sum()


@pytest.mark.parametrize("given, smoothing", [([1.0, 0.5, 3], 0.0), ([1, 0, 2], 0.1), ("balanced", 0.0)])
def test_the_training_loss_is_the_weighted_mean_and_evaluation_is_not_weighted(given, smoothing):
    logits, targets = torch.randn(6, 3, generator=generator(), dtype=torch.float64), torch.tensor([0, 0, 1, 2, 0, 2])
    counts = (6, 3, 1)
    weights = torch.tensor([10 / 18, 10 / 9, 10 / 3] if given == "balanced" else given, dtype=torch.float64).float().double()
    task = Classification(class_weights=given, label_smoothing=smoothing, auxiliary_weight=0.4).for_classes(counts, CPU)
    net, batch = Constant(logits), (torch.zeros(6, 1), targets)
    want = reference(logits, targets, weights, smoothing)
    found = task(net, batch)
    torch.testing.assert_close(found.loss, want + 0.4 * reference(2 * logits, targets, weights, smoothing), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.stats["loss"], want * 6, rtol=0, atol=1e-10)
    net.eval()
    torch.testing.assert_close(task(net, batch).loss, nn.functional.cross_entropy(logits, targets), rtol=0, atol=1e-10)


def test_without_weights_the_loss_is_as_it_was():
    logits, targets = torch.randn(6, 3, generator=generator()), torch.tensor([0, 0, 1, 2, 0, 2])
    loss = Classification().for_classes((1, 2, 3), CPU)(Constant(logits), (torch.zeros(6, 1), targets)).loss
    assert torch.equal(loss, nn.functional.cross_entropy(logits, targets))


def test_balanced_weights_make_every_class_count_the_same():
    counts = (50, 5, 0, 20)
    weights = balanced_weights(counts)
    assert {round(w * n, 9) for w, n in zip(weights, counts) if n} == {25.0}


@pytest.mark.parametrize("given", ["even", [1, "2"], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")], [], [True, 1]])
def test_other_weights_are_refused(given):
    with pytest.raises((UsageError, ValueError), match="class_weights must (be balanced, or a list|have a number above 0)"):
        Classification(class_weights=given)


def test_as_many_weights_as_classes_are_needed():
    with pytest.raises(UsageError, match="task.class_weights must be one number for each of the 3 classes, got 2"):
        Classification(class_weights=[1, 2]).for_classes((1, 2, 3), CPU)
