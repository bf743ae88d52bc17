"""Operations without convolutions: nothing, the input itself, pooling, noise."""

import torch
from torch import Tensor

from ops.conv import factorised_reduce
from ops.forms import Form, NoPlainForm
from ops.kernels.terms import Source, Term
from ops.op import AvgPool, MaxPool, Normalisation, Op, no_layers


class Zero(Op):
    """`none`: the absence of an edge."""

    contributes = False
    family = "none"

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def compute(self, shared: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.zeros_like(shared[:, :, :: self.stride, :: self.stride])

    def plain(self) -> Form:
        raise NoPlainForm("the absence of an edge is no module: a network that is written down has no such line")


class Skip(Op):
    """The input itself."""

    passes_input = True
    family = "skip"

    def term(self, source: Source) -> Term:
        return Term(source.flow)


class GaussianNoise(Op):
    """Independent standard normal samples of the input's shape (subsampled by the stride), drawn anew at every forward in
    training and evaluation; no parameters, no gradient to the input (space S4 of RobustDARTS, Zela et al. 2020)."""

    draws = True
    family = "other"

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def compute(self, shared: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            raise ValueError("op 'noise' draws at every forward: the network must be called with generator=")
        like = shared[:, :, :: self.stride, :: self.stride]
        return torch.empty_like(like).normal_(generator=generator)

    def plain(self) -> Form:
        raise NoPlainForm("noise is drawn at every forward, and has no plain form")


def skip(channels: int, stride: int, norm: Normalisation) -> Op:
    return Skip(layers=no_layers) if stride == 1 else factorised_reduce(channels, channels, norm)


def max_pool(size: int, channels: int, stride: int, norm: Normalisation) -> Op:
    return Op(prefix=MaxPool(size, stride), norm=norm.after_pool(channels), family="pool", layers=no_layers)


def avg_pool(size: int, channels: int, stride: int, norm: Normalisation) -> Op:
    return Op(prefix=AvgPool(size, stride), norm=norm.after_pool(channels), family="pool", layers=no_layers)
