"""Functions of single numbers, by the names that choices have: of a chain's layers and of a recurrent cell's edges."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hard_swish": F.hardswish, "swish": F.silu,
    "gelu": F.gelu, "hard_sigmoid": F.hardsigmoid, "identity": lambda x: x,
}
AS_MODULES: dict[str, type[nn.Module]] = {  # the same as plain PyTorch has them
    "relu": nn.ReLU, "relu6": nn.ReLU6, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "hard_swish": nn.Hardswish, "swish": nn.SiLU,
    "gelu": nn.GELU, "hard_sigmoid": nn.Hardsigmoid, "identity": nn.Identity,
}
