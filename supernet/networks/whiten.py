"""A first layer that begins by whitening what it reads (Jordan 2024, airbench; tysam-code 2023, hlb-CIFAR10)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.errors import UsageError

EPSILON = 5e-4  # added to the eigenvalues, so that directions in which nothing varies are not blown up [airbench]


def first_convolution(net: nn.Module) -> nn.Conv2d:
    """The one that reads the images, which is the first that a network has. Raises UsageError: there is none, or it is depthwise."""
    found = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if found is None or found.groups != 1:
        raise UsageError(f"whiten_first=true needs a network that begins with a convolution, got {type(net).__name__}: pass "
                         "whiten_first=false")
    return found


def whitening_filters(images: Iterable[Tensor], window: tuple[int, int], epsilon: float = EPSILON) -> Tensor:
    """float64 (2 n, C, h, w) with n = C h w: the eigenvectors of the second moments of all patches of that window of `images`, batches
    (B, C, H, W), each over the root of its eigenvalue, and after each the same turned over; the largest eigenvalues first. The responses
    of the patches to every second filter have the unit matrix as their second moments, up to epsilon."""
    moments, count = None, 0
    for batch in images:
        patches = F.unfold(batch.double(), window).transpose(1, 2).flatten(0, 1)  # (patches, C h w)
        own = patches.T @ patches
        moments, count = own if moments is None else moments + own, count + len(patches)
        channels = batch.shape[1]
    values, vectors = torch.linalg.eigh(moments / count)
    vectors = vectors.flip(1).T  # a row each, the largest first
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    filters = vectors * largest.sign() / (values.flip(0).clamp_min(0) + epsilon).sqrt()[:, None]
    return torch.stack([filters, -filters], dim=1).view(-1, channels, *window)


@torch.no_grad()
def whiten(convolution: nn.Conv2d, images: Iterable[Tensor]) -> None:
    """Gives its first filters the leading ones of `whitening_filters`; where it has more, the others keep their values. They are trained
    like all others, where airbench, whose layer has no other filters, leaves them as they are."""
    filters = whitening_filters(images, convolution.kernel_size)[: convolution.out_channels]
    convolution.weight[: len(filters)] = filters.to(convolution.weight)
