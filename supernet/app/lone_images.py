"""A batch of one image, where a batch norm sees one value a channel and cannot train: found before any work, not at an epoch's end."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ops.kernels import on_plain_path
from supernet.data.loader import Loader
from supernet.errors import UsageError


def refuse_lone_images(net: nn.Module, forward: Callable[[nn.Module, Tensor], Any], loaders: Mapping[str, Any], example: Tensor) -> None:
    """loaders: by the name of the option that limits their images. forward(net, x) as in training; tried on a copy, and only where some
    batch has one image. Raises UsageError: it fails there, and which options help."""
    for option, loader in loaders.items():
        if type(loader) is not Loader or loader.smallest_batch > 1:
            continue
        trial = copy.deepcopy(net).train()
        try:
            with torch.no_grad(), on_plain_path(), loader.group.apart():
                forward(trial, example)
        except ValueError as error:
            what = f"batch_size={loader.batch_size}" if loader.batch_size == 1 else (
                f"{loader.num_items} images in batches of {loader.batch_size} leave a last batch of one image")
            what += loader.group.each
            raise UsageError(f"{what}, and a batch norm of this network would see a single value a channel there ({error}): pass another "
                             f"batch_size, or {option}={max(1, loader.num_items - 1)}") from error
