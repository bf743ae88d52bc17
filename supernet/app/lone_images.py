"""A batch of one item, where a batch norm sees one value a channel and cannot train: found before any work, not at an epoch's end."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ops.kernels import on_plain_path
from supernet.errors import UsageError


def refuse_lone_images(net: nn.Module, forward: Callable[[nn.Module, Tensor], Any], loaders: Mapping[str, Any], example: Tensor) -> None:
    """loaders: by the name of the option that limits their images. forward(net, x) as in training; tried on a copy, and only where some
    batch, or a process's part of it, has one item. Raises UsageError: it fails there, and which options help."""
    for option, loader in loaders.items():
        if loader.smallest_batch > 1:
            continue
        trial = copy.deepcopy(net).train()
        try:
            with torch.no_grad(), on_plain_path(), loader.group.apart():
                forward(trial, example)
        except ValueError as error:
            what, remedy = loader.lone_batch(option)
            raise UsageError(f"{what}{loader.group.each}, and a batch norm of this network would see a single value a channel there "
                             f"({error}): {remedy}") from error
