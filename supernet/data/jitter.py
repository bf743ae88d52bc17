"""Colour jitter of whole batches on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from supernet.data.policies import brightness, color, contrast
from supernet.ranges import NonNegative, Range, ranged


@ranged
@dataclass(frozen=True)
class ColorJitter:
    """Each image's brightness, contrast and saturation times a factor that is uniform in 1 +- the option, at least 0, and its hue turned by
    at most +- `hue` of the circle, at most 1/2 (torchvision's; DARTS on ImageNet: 0.4, 0.4, 0.4 and 0.2). In this order, where torchvision
    draws an order for every image. Grey images keep their hue and saturation.
    """

    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, Range(0, 0.5)] = 0.0

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Three factors and a turn for each image, float32 (B, 4)."""
        uniform = torch.rand(batch, 4, generator=generator, device=generator.device)
        reach = (self.brightness, self.contrast, self.saturation)
        factors = [max(0.0, 1 - r) + uniform[:, n] * (1 + r - max(0.0, 1 - r)) for n, r in enumerate(reach)]
        return torch.stack([*factors, (2 * uniform[:, 3] - 1) * self.hue], dim=1)

    def apply(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to the same."""
        changes: tuple[tuple[float, Callable[[Tensor, Tensor], Tensor]], ...] = (
            (self.brightness, brightness), (self.contrast, contrast), (self.saturation, color), (self.hue, turn_hue))
        for n, (reach, change) in enumerate(changes):
            if reach:
                pixels = change(pixels, drawn[:, n])
        return pixels


def turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Every colour's hue turned by `turn` (B,) of the circle, saturation and value kept (HSV; Smith 1978)."""
    if pixels.shape[1] == 1:
        return pixels
    rgb = pixels.float() / 255
    value, spread = rgb.amax(1), rgb.amax(1) - rgb.amin(1)
    red, green, blue = rgb.unbind(1)
    safe = torch.where(spread > 0, spread, 1.0)
    hue = torch.where(value == red, (green - blue) / safe, torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe))
    hue = hue + 6 * turn.float().view(-1, 1, 1)

    def channel(offset: int) -> Tensor:  # value - spread * max(0, min(k, 4 - k, 1)), k = (offset + hue) mod 6
        k = (offset + hue) % 6
        return value - spread * torch.minimum(k, 4 - k).clamp(0, 1)

    return (torch.stack([channel(5), channel(3), channel(1)], dim=1) * 255).round().clamp(0, 255).to(torch.uint8)
