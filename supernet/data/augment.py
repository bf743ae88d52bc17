"""Random crop, flip, changes of colour and Cutout of whole batches on the device, and normalisation.

Equal in distribution to the published per-image pipeline RandomCrop(size, padding), RandomHorizontalFlip, ToTensor, Normalize,
Cutout, and equal to it in value when the draws are the same. Nothing here waits for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.data.base import DataError
from supernet.data.crops import ResizedCrop
from supernet.data.jitter import ColorJitter
from supernet.data.policies import Chosen, Policy, augmented
from supernet.ranges import Side, Whole, ranged


@dataclass(frozen=True, eq=False)
class Normalise:
    """uint8 (B, C, H, W) to float32 (x / 255 - mean) / std; `crop` keeps the centre square of that side, in pixels.

    The transform for evaluation: it is called as `TrainTransform` is and ignores the generator. `mean` and `std` are (C, 1, 1),
    on the device of the pixels.
    """

    mean: Tensor
    std: Tensor
    crop: int | None = None
    channels_last: bool = False

    def __call__(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        height, width = pixels.shape[2:]
        high, wide = crop_size(self.crop, height, width)
        top, left = (height - high) // 2, (width - wide) // 2
        return self.layout(self.scale(pixels[:, :, top : top + high, left : left + wide]))

    def scale(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)

    def layout(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


@ranged
@dataclass(frozen=True)
class Augment:
    """What is done to training images: random crop after padding with black, horizontal flip, colour jitter, a policy, Cutout; in this
    order.

    `pad`: pixels of black on each side before the crop; None: an eighth of the shorter side, as 4 of CIFAR's 32. `crop`: side of the
    square that is cut out; None keeps the image's size.
    `flip`: mirror half of the images, left to right. `cutout`: side of the square set to zero after normalisation, even, 0 for
    none; its centre is uniform over the image and what reaches over the border is clipped (DeVries & Taylor 2017), so that the
    hole is often smaller than `cutout` squared.
    `alternate_flips`: half of the images, always the same ones, are mirrored in the first pass, the others in the next, and so on, so that
    two passes show all images both ways (Jordan 2024). `policy`: RandAugment or TrivialAugment. `resized_crop`: in place of the padding, a
    random part of the image resized to `crop`, or to the image's size; files are cut before they are resized.
    """

    pad: Whole | None = 0
    flip: bool = False
    cutout: Whole = 0
    crop: Side | None = None
    alternate_flips: bool = False
    jitter: ColorJitter | None = None
    policy: Policy | None = None
    resized_crop: ResizedCrop | None = None

    def __post_init__(self) -> None:
        if self.alternate_flips and not self.flip:
            raise DataError("augment.alternate_flips=true says how images are mirrored, and augment.flip=false says that none is: pass "
                            "augment.flip=true as well")
        if self.resized_crop is not None and self.pad != 0:
            raise DataError(f"augment.resized_crop takes the place of augment.pad, which must then be 0, got {self.pad}")
        if self.cutout % 2:
            raise DataError(f"augment.cutout must be an even side length in pixels, 0 for none, got {self.cutout}")

    def check(self, height: int, width: int) -> None:
        """Raises DataError where images of this size would be lost."""
        for name, size in (("pad", self.padding(height, width)), ("cutout", self.cutout)):
            if size > min(height, width):
                raise DataError(f"dataset.augment.{name} must be at most the side of the images, {height}x{width} pixels (0 for none), "
                                f"got {size}")
        crop_size(self.crop, height, width)

    def side(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what a network reads of images of this size."""
        return crop_size(self.crop, height, width, self.padding(height, width))

    def padding(self, height: int, width: int) -> int:
        """Pixels of black on each side of images of this size."""
        return min(height, width) // 8 if self.pad is None else self.pad

    def for_training(
        self, mean: tuple[float, ...], std: tuple[float, ...], *, device: torch.device, channels_last: bool = False
    ) -> "TrainTransform":
        return TrainTransform(self, self.for_evaluation(mean, std, device=device, channels_last=channels_last))

    def for_evaluation(
        self, mean: tuple[float, ...], std: tuple[float, ...], *, device: torch.device, channels_last: bool = False
    ) -> Normalise:
        """The same crop at the centre, and nothing random."""
        columns = (torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in (mean, std))
        return Normalise(*columns, crop=self.crop, channels_last=channels_last)


@dataclass(frozen=True, eq=False)
class Draw:
    """The random choices for one batch, int64 (B,) each: the crop's corner in the padded image, whether it is flipped (0 or 1),
    and the centre of the hole in the crop; `jitter` and `chosen` as `ColorJitter.draw` and `Policy.draw` gave them."""

    top: Tensor
    left: Tensor
    flip: Tensor
    hole_y: Tensor
    hole_x: Tensor
    jitter: Tensor | None = None
    chosen: tuple[Chosen, ...] = ()


@dataclass(frozen=True, eq=False)
class TrainTransform:
    """`augment`, then `normalise` (whose crop and layout are those of the result)."""

    augment: Augment
    normalise: Normalise

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, C, H, W) to float32 (B, C, crop, crop). `generator` is on the device of the pixels."""
        return self.apply(pixels, self.draw(pixels, generator))

    def draw(self, pixels: Tensor, generator: torch.Generator) -> Draw:
        batch, _, height, width = pixels.shape
        pad = self.augment.padding(height, width)
        high, wide = crop_size(self.augment.crop, height, width, pad)

        def below(bound: int) -> Tensor:
            return torch.randint(bound, (batch,), generator=generator, device=pixels.device)

        return Draw(
            top=below(height + 2 * pad - high + 1),
            left=below(width + 2 * pad - wide + 1),
            flip=below(2 if self.augment.flip and not self.augment.alternate_flips else 1),
            hole_y=below(high),
            hole_x=below(wide),
            jitter=None if self.augment.jitter is None else self.augment.jitter.draw(batch, generator),
            chosen=() if self.augment.policy is None else self.augment.policy.draw(batch, generator),
        )

    def apply(self, pixels: Tensor, draw: Draw) -> Tensor:
        batch, channels, height, width = pixels.shape
        pad = self.augment.padding(height, width)
        high, wide = crop_size(self.augment.crop, height, width, pad)
        y = torch.arange(high, device=pixels.device)
        x = torch.arange(wide, device=pixels.device)
        rows = draw.top[:, None] + y  # (B, high)
        columns = draw.left[:, None] + torch.where(draw.flip[:, None] == 1, wide - 1 - x, x)  # (B, wide)
        source = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]  # (B, high, wide) positions in a padded channel
        source = source.view(batch, 1, high * wide).expand(batch, channels, high * wide)
        cropped = F.pad(pixels, (pad, pad, pad, pad)).flatten(2).gather(2, source).view(batch, channels, high, wide)
        if self.augment.jitter is not None:
            cropped = self.augment.jitter.apply(cropped, draw.jitter)
        if self.augment.policy is not None:
            cropped = augmented(cropped, self.augment.policy, draw.chosen)
        images = self.normalise.scale(cropped)
        if self.augment.cutout:
            half = self.augment.cutout // 2
            outside_rows = (y < draw.hole_y[:, None] - half) | (y >= draw.hole_y[:, None] + half)  # (B, high)
            outside_columns = (x < draw.hole_x[:, None] - half) | (x >= draw.hole_x[:, None] + half)  # (B, wide)
            images.mul_((outside_rows[:, None, :, None] | outside_columns[:, None, None, :]).to(images.dtype))
        return self.normalise.layout(images)


def crop_size(crop: int | None, height: int, width: int, pad: int = 0) -> tuple[int, int]:
    """Height and width of what is cut from (height, width) padded on each side: `crop` both ways, or the size before padding."""
    if crop is None:
        return height, width
    if crop > min(height, width) + 2 * pad:
        raise DataError(f"augment.crop must be at most the padded image, {height + 2 * pad}x{width + 2 * pad}, got {crop}")
    return crop, crop
