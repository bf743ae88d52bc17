"""Functions of single numbers, by the names that choices have: of a chain's layers and of a recurrent cell's edges."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hard_swish": F.hardswish, "swish": F.silu,
    "gelu": F.gelu, "identity": lambda x: x,
}
