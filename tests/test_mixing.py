"""Mixup and CutMix against their definitions, and distillation against a slow version in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from supernet.tasks.classification import Classification
from supernet.tasks.distillation import Distillation, softened_divergence
from supernet.tasks.mixing import CutMix, MixUp, MixUpOrCutMix, beta

LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1])


def images(dtype=torch.float64):
    return torch.randn(8, 3, 6, 10, generator=torch.Generator().manual_seed(0), dtype=dtype)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mixup_is_a_convex_combination_of_an_image_and_another_and_so_are_the_labels():
    x = images()
    for seed in range(5):
        mixed = MixUp(alpha=0.7)(x, LABELS, generator(seed))
        share = mixed.share.double()
        order = [next(n for n in range(8) if torch.allclose(mixed.images[i], share * x[i] + (1 - share) * x[n], atol=1e-6))
                 for i in range(8)]
        assert sorted(order) == list(range(8))
        assert torch.equal(mixed.labels, LABELS) and torch.equal(mixed.others, LABELS[torch.tensor(order)])


def test_cutmix_pastes_one_box_and_counts_labels_by_what_is_left():
    x = torch.randn(8, 3, 24, 40, generator=generator())
    areas = []
    for seed in range(40):
        mixed = CutMix()(x, LABELS, generator(seed))
        changed = (mixed.images != x).any(1).any(0)  # (H, W): where some image is another's
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        if len(rows):
            assert len(rows) == rows[-1] - rows[0] + 1 and len(columns) == columns[-1] - columns[0] + 1
            assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "one whole box"
        assert mixed.share.item() == pytest.approx(1 - changed.double().mean().item(), abs=1e-6)
        areas.append(changed.double().mean().item())
    assert 0.2 < sum(areas) / len(areas) < 0.5 and max(areas) > 0.5  # of Beta(1, 1), the box cut at the border


def test_one_of_both_is_taken_for_a_batch():
    x, kinds = images(), set()
    for seed in range(20):
        mixed = MixUpOrCutMix(cutmix=0.5)(x, LABELS, generator(seed))
        kinds.add(bool(((mixed.images == x) | (mixed.images == x[0:1])).any()))
    assert kinds == {True, False}
    assert torch.equal(MixUpOrCutMix(cutmix=1.0)(x, LABELS, generator()).images.unique(), x.unique()), "pasted, not blended"


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0])
def test_the_share_follows_a_beta_distribution(alpha):
    own = generator()
    drawn = torch.stack([beta(alpha, torch.zeros(1), own) for _ in range(4000)]).double()
    assert torch.isfinite(drawn).all() and 0 <= drawn.min() and drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.03)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_the_global_generator_is_left_alone_and_the_same_draws_mix_alike():
    before = torch.random.get_rng_state()
    one, other = (MixUpOrCutMix()(images(), LABELS, generator(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other)) and torch.equal(before, torch.random.get_rng_state())


class Net(nn.Module):
    """A linear classifier, with a second head."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Linear(180, 3).double() for _ in range(2))

    def forward(self, x, weights=None, *, generator=None, auxiliary=False):
        x = x.flatten(1)
        return (self.first(x), self.second(x)) if auxiliary else self.first(x)


def test_the_loss_of_mixed_labels_is_the_cross_entropy_with_soft_ones():
    torch.manual_seed(0)
    net, mixing = Net(), MixUp(alpha=1.0)
    task = Classification(label_smoothing=0.1, auxiliary_weight=0.4, mixing=mixing)
    result = task(net, (images(), LABELS), generator=generator(7))
    mixed = mixing(images(), LABELS, generator(7))
    soft = mixed.share.double() * F.one_hot(mixed.labels, 3) + (1 - mixed.share).double() * F.one_hot(mixed.others, 3)
    soft = 0.9 * soft + 0.1 / 3 * soft.sum(-1, keepdim=True)  # in single precision the shares add up to 1 to 6e-8
    first, second = (-(soft * head.log_softmax(-1)).sum(-1).mean() for head in net(mixed.images, auxiliary=True))
    torch.testing.assert_close(result.loss, first + 0.4 * second, rtol=0, atol=1e-12)
    assert result.stats["correct"] == (net(mixed.images).argmax(-1) == LABELS).sum()


def test_nothing_is_mixed_and_nobody_is_taught_in_evaluation():
    torch.manual_seed(0)
    net = Net().eval()

    def refuse(x):
        raise AssertionError("asked in evaluation")

    task = Classification(mixing=MixUp(), distillation=Distillation(refuse))
    assert torch.equal(task(net, (images(), LABELS)).loss, F.cross_entropy(net(images()), LABELS))


def test_a_student_learns_of_the_softened_teacher_and_of_the_labels():
    torch.manual_seed(0)
    student, teacher = Net(), Net()
    task = Classification(distillation=Distillation(teacher, temperature=3.0, weight=0.7))
    result = task(student, (images(), LABELS), generator=generator())
    logits, theirs = student(images()), teacher(images()).detach()
    divergence = 0.0
    for ours, target in zip((logits / 3).softmax(-1), (theirs / 3).softmax(-1)):
        divergence += sum(t * (t / o).log() for o, t in zip(ours, target)) / len(logits)
    want = 0.3 * F.cross_entropy(logits, LABELS) + 0.7 * 9 * divergence
    torch.testing.assert_close(result.loss, want, rtol=0, atol=1e-12)
    result.loss.backward()
    assert all(p.grad is None for p in teacher.parameters()) and student.first.weight.grad is not None
    assert result.stats["loss"] == pytest.approx(8 * F.cross_entropy(logits, LABELS).item()), "reported is the loss of the labels"


def test_the_divergence_of_a_network_from_itself_is_nothing_and_its_gradient_too():
    logits = torch.randn(5, 4, generator=generator(), dtype=torch.float64).requires_grad_()
    divergence = softened_divergence(logits, logits.detach(), 2.0)
    (slope,) = torch.autograd.grad(divergence, logits)
    assert divergence.abs() < 1e-15 and slope.abs().max() < 1e-15
    assert softened_divergence(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]), 1.0).item() == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5))
