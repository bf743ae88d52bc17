"""Mixup and CutMix: training images mixed with others of their batch, and their labels with them; the device never waits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from supernet.ranges import Positive, Share, ranged


class Mixed(NamedTuple):
    """Images (B, C, H, W), the labels (B,) that count by `share` (a scalar) and the others, which count by 1 - `share`."""

    images: Tensor
    labels: Tensor
    others: Tensor
    share: Tensor

    def loss(self, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Of both kinds of labels, from the mean loss of one: as that of labels which are mixed, for it is linear in them."""
        return self.share * loss_of(self.labels) + (1 - self.share) * loss_of(self.others)


class Mixing(Protocol):
    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator | None) -> Mixed: ...


@ranged
@dataclass(frozen=True)
class MixUp:
    """`share` times each image plus 1 - `share` times another, the share of a batch from Beta(alpha, alpha) (Zhang et al. 2018, eq. 1)."""

    alpha: Positive = 0.2

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator | None) -> Mixed:
        share, order = beta(self.alpha, images, generator), _order(images, generator)
        return Mixed(torch.lerp(images[order], images, share.to(images.dtype)), labels, labels[order], share)


@ranged
@dataclass(frozen=True)
class CutMix:
    """A box of each image is another's at the same place: of 1 - lambda of the area, lambda from Beta(alpha, alpha), its centre uniform
    over the image, cut at the border; labels count by what is left of each (Yun et al. 2019, Sec. 3.1, and the official code)."""

    alpha: Positive = 1.0

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator | None) -> Mixed:
        side, order = (1 - beta(self.alpha, images, generator)).sqrt(), _order(images, generator)
        centre = torch.rand(2, generator=generator, device=images.device)
        height, width = images.shape[2:]
        rows, columns = (_within(length, centre[n], side, images.device) for n, length in enumerate((height, width)))
        box = rows[:, None] & columns[None, :]
        return Mixed(torch.where(box, images[order], images), labels, labels[order], 1 - box.float().mean())


@ranged
@dataclass(frozen=True)
class MixUpOrCutMix:
    """One of both for each batch, CutMix in a share `cutmix` of them (as timm and torchvision train)."""

    mixup_alpha: Positive = 0.2
    cutmix_alpha: Positive = 1.0
    cutmix: Share = 0.5

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator | None) -> Mixed:
        cuts = torch.rand((), generator=generator, device=images.device) < self.cutmix
        one = MixUp(self.mixup_alpha)(images, labels, generator)
        other = CutMix(self.cutmix_alpha)(images, labels, generator)
        return Mixed(*(torch.where(cuts, b, a) for a, b in zip(one, other)))


def beta(alpha: float, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """A scalar from Beta(alpha, alpha), float32, on the device of the images: x / (x + y) of two Gamma variables. Of a small alpha both may
    round to 0 in single precision, so they are drawn in double; where even that is no help, 1/2."""
    shape = torch.full((2,), alpha, dtype=torch.float64, device=images.device)
    x, y = torch._standard_gamma(shape, generator=generator).unbind()
    return torch.where(x + y > 0, x / (x + y), 0.5).float()


def _order(images: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(len(images), generator=generator, device=images.device)


def _within(length: int, centre: Tensor, side: Tensor, device: torch.device) -> Tensor:
    """Which of `length` pixels lie in a stretch of `side` times the length around `centre` times it, whole pixels as in the code."""
    at, half = (centre * length).floor(), ((side * length).floor() / 2).floor()
    place = torch.arange(length, device=device)
    return (place >= at - half) & (place < at + half)
