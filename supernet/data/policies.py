"""RandAugment and TrivialAugment of whole batches on the device: operations on uint8 images that equal PIL's, bit for bit.

torchvision has both, but draws from the global generator and works on one image at a time. Here every image of a batch goes through every
kind of operation and keeps what its own one gives, so that nothing waits for the device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import torch
from torch import Tensor

from supernet.ranges import Range, ranged

BINS = 31  # of a magnitude: 0 to 30 [RandAugment; torchvision]
# As the two papers and torchvision have them, in torchvision's order. Those of `GEOMETRIC` move pixels, the others change their values.
NAMES = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness",
         "posterize", "solarize", "auto_contrast", "equalize")
GEOMETRIC = NAMES[1:6]
SIGNED = NAMES[1:10]  # half of the time in the other direction


class Chosen(NamedTuple):
    """For each image of a batch (B,): which operation (int64, of `NAMES`), how far (float64, 0..1 of the widest), the sign (1 or -1)."""

    op: Tensor
    level: Tensor
    sign: Tensor


class Reach(NamedTuple):
    """The widest an operation goes: shear as a slope, translation in pixels, rotation in degrees, `factor` of brightness, color, contrast
    and sharpness (1 +- so much), and the bits that posterising takes away."""

    shear: float
    translate_x: float
    translate_y: float
    rotate: float
    factor: float
    bits: int


class Policy(Protocol):
    def draw(self, batch: int, generator: torch.Generator) -> tuple[Chosen, ...]:
        """What is done to the images of a batch, one operation after the other; on the generator's device."""

    def reach(self, height: int, width: int) -> Reach: ...


@ranged
@dataclass(frozen=True)
class RandAugment:
    """`num_ops` operations, each drawn uniformly, at one `magnitude` of 0..30 (Cubuk et al. 2020; magnitudes as in torchvision)."""

    num_ops: Annotated[int, Range(1, 16)] = 2
    magnitude: Annotated[int, Range(0, BINS - 1)] = 9

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Chosen, ...]:
        like = {"generator": generator, "device": generator.device}
        level = torch.full((batch,), self.magnitude / (BINS - 1), dtype=torch.float64, device=generator.device)
        return tuple(Chosen(torch.randint(len(NAMES), (batch,), **like), level, _signs(batch, generator)) for _ in range(self.num_ops))

    def reach(self, height: int, width: int) -> Reach:
        return Reach(0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4)


@ranged
@dataclass(frozen=True)
class TrivialAugment:
    """One operation, drawn uniformly, at a magnitude of 0..30 drawn uniformly (Mueller & Hutter 2021, the wide space; magnitudes as in
    torchvision's TrivialAugmentWide, translations of at most 32 pixels and at most the side of the image)."""

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Chosen, ...]:
        like = {"generator": generator, "device": generator.device}
        op = torch.randint(len(NAMES), (batch,), **like)
        level = torch.randint(BINS, (batch,), **like).double() / (BINS - 1)
        return (Chosen(op, level, _signs(batch, generator)),)

    def reach(self, height: int, width: int) -> Reach:
        return Reach(0.99, min(32.0, width), min(32.0, height), 135.0, 0.99, 6)


def _signs(batch: int, generator: torch.Generator) -> Tensor:
    return 1 - 2 * torch.randint(2, (batch,), generator=generator, device=generator.device)


def augmented(pixels: Tensor, policy: Policy, chosen: tuple[Chosen, ...]) -> Tensor:
    """uint8 (B, C, H, W), C 1 or 3, after what was drawn."""
    reach = policy.reach(*pixels.shape[2:])
    for one in chosen:
        pixels = _once(pixels, one, reach)
    return pixels


def _once(pixels: Tensor, chosen: Chosen, reach: Reach) -> Tensor:
    amount = torch.where(_is(chosen.op, *SIGNED), chosen.level * chosen.sign, chosen.level)
    moved = affine(pixels, _matrices(chosen.op, amount, reach, *pixels.shape[2:]))
    out = torch.where(_is(chosen.op, *GEOMETRIC).view(-1, 1, 1, 1), moved, pixels)
    for name, change in VALUES.items():
        out = torch.where((chosen.op == NAMES.index(name)).view(-1, 1, 1, 1), change(pixels, amount, reach), out)
    return out


def _is(op: Tensor, *names: str) -> Tensor:
    return torch.stack([op == NAMES.index(name) for name in names]).any(0)


def _matrices(op: Tensor, amount: Tensor, reach: Reach, height: int, width: int) -> Tensor:
    """For each image the six numbers of `affine` (B, 6), those of the identity where its operation moves nothing. Shears are about the
    corner, rotations (counter-clockwise) about the centre, translations by whole pixels, cut towards 0."""
    def only(name: str, value: Tensor) -> Tensor:
        return torch.where(op == NAMES.index(name), value, 0.0)

    turn = only("rotate", amount * reach.rotate).deg2rad()
    cos, sin = turn.cos(), turn.sin()
    x, y = width / 2, height / 2
    shear = amount * reach.shear
    right, down = only("translate_x", (amount * reach.translate_x).trunc()), only("translate_y", (amount * reach.translate_y).trunc())
    return torch.stack([cos, only("shear_x", shear) - sin, x - x * cos + y * sin - right,
                        sin + only("shear_y", shear), cos, y - x * sin - y * cos - down], dim=1)


def affine(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Output pixel (x, y) is the input's at floor(a x' + b y' + c), floor(d x' + e y' + f) with x' = x + 1/2, y' = y + 1/2 and matrices
    (a, b, c, d, e, f), float64 (B, 6): PIL's `Image.transform(AFFINE)` with the nearest pixel. Black outside."""
    batch, channels, height, width = pixels.shape
    y = torch.arange(height, device=pixels.device, dtype=torch.float64).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=pixels.device, dtype=torch.float64).view(1, 1, -1) + 0.5
    a, b, c, d, e, f = (matrices[:, n].view(-1, 1, 1) for n in range(6))
    column, row = (a * x + b * y + c).floor(), (d * x + e * y + f).floor()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().view(batch, 1, -1).expand(-1, channels, -1)
    return pixels.flatten(2).gather(2, source).view_as(pixels) * inside[:, None].to(pixels.dtype)


def grey(pixels: Tensor) -> Tensor:
    """Luminance, uint8 (B, 1, H, W), with PIL's integer weights (ITU-R 601-2)."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.int().split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)


def blend(degenerate: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """degenerate + factor (pixels - degenerate), cut to 0..255 and to whole numbers, as PIL's `Image.blend`. factor: (B,)."""
    below = degenerate.float()
    return (below + factor.float().view(-1, 1, 1, 1) * (pixels.float() - below)).clamp(0, 255).to(torch.uint8)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return blend(torch.zeros_like(pixels), pixels, factor)


def color(pixels: Tensor, factor: Tensor) -> Tensor:
    return blend(grey(pixels), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's mean luminance, rounded as PIL rounds it."""
    mean = (grey(pixels).double().mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return blend(mean, pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from the image smoothed by PIL's 3x3 filter (the centre weighs 5 of 13), which leaves the border as it is."""
    smooth = pixels.clone()
    if min(pixels.shape[2:]) > 2:
        wide = pixels.int()
        height, width = pixels.shape[2:]
        total = sum(wide[:, :, y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)) + 4 * wide[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)  # rounded
    return blend(smooth, pixels, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """The highest `bits` (int, (B,)) of each value."""
    mask = 256 - (1 << (8 - bits.int()))
    return (pixels.int() & mask.view(-1, 1, 1, 1)).to(torch.uint8)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Values of at least `threshold` (B,) turned over."""
    return torch.where(pixels.double() >= threshold.view(-1, 1, 1, 1), 255 - pixels, pixels)


def auto_contrast(pixels: Tensor) -> Tensor:
    """Each channel stretched to 0..255; one of a single value stays."""
    low, high = pixels.amin((2, 3), keepdim=True).double(), pixels.amax((2, 3), keepdim=True).double()
    scale = 255 / (high - low).clamp_min(1)
    stretched = (pixels.double() * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Each channel's histogram made flat, as PIL's `ImageOps.equalize`."""
    values = pixels.flatten(2).long()
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    last = counts.gather(2, values.amax(2, keepdim=True))  # of the largest value that occurs
    step = (counts.sum(2, keepdim=True) - last) // 255
    table = ((counts.cumsum(2) - counts + step // 2) // step.clamp_min(1)).clamp(0, 255)
    return torch.where(step > 0, table.gather(2, values), values).to(torch.uint8).view_as(pixels)


# The operations that change values, from what was drawn.
VALUES: Mapping[str, Callable[[Tensor, Tensor, Reach], Tensor]] = {
    "brightness": lambda pixels, amount, reach: brightness(pixels, 1 + amount * reach.factor),
    "color": lambda pixels, amount, reach: color(pixels, 1 + amount * reach.factor),
    "contrast": lambda pixels, amount, reach: contrast(pixels, 1 + amount * reach.factor),
    "sharpness": lambda pixels, amount, reach: sharpness(pixels, 1 + amount * reach.factor),
    "posterize": lambda pixels, amount, reach: posterize(pixels, 8 - (amount.abs() * reach.bits).round().int()),
    "solarize": lambda pixels, amount, reach: solarize(pixels, 255 * (1 - amount.abs())),
    "auto_contrast": lambda pixels, amount, reach: auto_contrast(pixels),
    "equalize": lambda pixels, amount, reach: equalize(pixels),
}
