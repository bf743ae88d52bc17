"""Drop path: an edge's output is dropped for a whole sample, and scaled up where it is kept."""

import torch
from torch import Tensor


def drop_path_masks(number: int, batch: int, prob: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """(number, batch, 1, 1, 1) factors: 0 with chance `prob`, else 1 / (1 - prob) (Larsson et al. 2017; DARTS, utils.py)."""
    kept = torch.rand(number, batch, 1, 1, 1, generator=generator, device=like.device) >= prob
    return kept.to(like.dtype) / (1 - prob)
