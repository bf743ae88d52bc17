"""Vision transformers of AutoFormer's shape (Chen et al. 2021, Sec. 3.3 and Table 1), for small images.

As there: one embedding dimension for all layers; number of heads and ratio of the perceptron by layer; depth; heads of a fixed dimension,
so that Q, K and V have as many channels as the heads together; layers are pre-norm. Differences: learned positions alone, where AutoFormer
has relative ones too; the classifier reads the mean of the patches (AutoFormer's official code with `--gp`, which keeps an unread class
token beside them), or a class token; Q, K and V are each a leading slice, where the official code interleaves them, which is the same
network.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from supernet.ranges import Channels, Fraction, Range, ranged
from supernet.space import Candidates, Space
from supernet.spaces.transformer import Depth, Heads, Ratio, planned, transformers

Patch = Annotated[int, Range(1, 1024)]


@ranged
def make(*, embeddings: Sequence[Channels] = (64, 96, 128), heads: Sequence[Heads] = (2, 3, 4), ratios: Sequence[Ratio] = (2, 3, 4),
         depths: Sequence[Depth] = (4, 5, 6), head_channels: Channels = 32, patch: Patch = 4, class_token: bool = False) -> Space:
    """embeddings, depths: decided once. heads, ratios (hidden units of the perceptron for each channel): by layer. patch: side in pixels,
    by which the sides of the images can be divided. AutoFormer-tiny: embeddings 192, 216, 240, heads 3, 4 of 64 channels, ratios 3.5, 4,
    depths 12 to 14, patches of 16 pixels."""
    return transformers("vit", embeddings=embeddings, heads=heads, ratios=ratios, depths=depths, build=build,
                        rules={"head_channels": head_channels, "patch": patch, "class_token": class_token})


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: Channels, norm: Any, num_classes: int, in_channels: int = 3,
          image_size: tuple[int, int] = (32, 32), dropout: Fraction = 0.0) -> Any:
    """The network. norm: of batches, of which there are none here. Raises ValueError: `layers` or `channels` are not the space's, or images
    have no whole number of patches."""
    from supernet.networks.transformer import VisionTransformer

    return VisionTransformer(*planned(space, candidates, layers, channels), in_channels=in_channels, image_size=tuple(image_size),
                             patch=space.arguments["patch"], class_token=space.arguments["class_token"], num_classes=num_classes,
                             dropout=dropout)
