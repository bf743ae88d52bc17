"""The training part of a data set, all of it for the network weights and all of it for the architecture."""

import torch

from supernet.data.split import Split


def shared_split(num_images: int, *, generator: torch.Generator, max_train: int | None = None, max_val: int | None = None) -> Split:
    """All positions on both sides, or where a limit is given so many of them, drawn once, the smaller side part of the larger. What is
    measured on such a validation side is measured on images that the weights were trained on (single-level GAEA)."""
    order = torch.randperm(num_images, generator=generator)
    return Split(order[:max_train].sort().values, order[:max_val].sort().values, shared=True)
