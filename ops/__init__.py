"""Candidate operations. `OPS` maps an op's name, as papers spell it, to its factory `(channels, stride, norm) -> Op`; `describe` says what
is known of the op that has a name."""

import difflib
from collections.abc import Callable
from functools import partial

import torch

from ops.activations import ACTIVATIONS
from ops.conv import dil_conv, factorised_conv, nor_conv, sep_conv
from ops.mobile import LAYERS
from ops.op import Normalisation, Op
from ops.simple import GaussianNoise, Zero, avg_pool, max_pool, skip
from ops.traits import OpTraits

OPS: dict[str, Callable[[int, int, Normalisation], Op]] = {
    "none": lambda channels, stride, norm: Zero(stride),
    "skip_connect": skip,
    "max_pool_3x3": partial(max_pool, 3),
    "avg_pool_3x3": partial(avg_pool, 3),
    "sep_conv_3x3": partial(sep_conv, 3),
    "sep_conv_5x5": partial(sep_conv, 5),
    "sep_conv_7x7": partial(sep_conv, 7),
    "dil_conv_3x3": partial(dil_conv, 3),
    "dil_conv_5x5": partial(dil_conv, 5),
    "nor_conv_1x1": partial(nor_conv, 1),
    "nor_conv_3x3": partial(nor_conv, 3),
    "conv_3x1_1x3": partial(factorised_conv, 3),
    "conv_7x1_1x7": partial(factorised_conv, 7),
    "noise": lambda channels, stride, norm: GaussianNoise(stride),
}

TRIED_CHANNELS = 192  # of an op that is made to be described: most ways to split channels into groups divide them
_TRIED: dict[str, tuple[Callable[..., Op], OpTraits]] = {}  # by name: the factory that was tried, and what it made


def make_op(name: str, channels: int, stride: int, norm: Normalisation) -> Op:
    """The operation `name` on `channels` channels. Raises ValueError for a name that is not in `OPS`, and TypeError where its factory makes
    something else."""
    if name not in OPS:
        close = difflib.get_close_matches(name, OPS, n=1)
        raise ValueError(f"op must be one of {', '.join(OPS)}; got {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
    op = OPS[name](channels, stride, norm)
    if not isinstance(op, Op):
        raise TypeError(f"op {name!r}: its factory must return an ops.op.Op, and Op(module) is one, got {type(op).__name__}")
    return op


def describe(name: str) -> OpTraits | None:
    """The traits of an op of cells (`OPS`, also one that was added there), of a chain's whole layers (`mobile.LAYERS`), or of an
    activation. None for a name that none of them has: a choice that is no op (`kernel_5`), an op of a genotype from elsewhere.

    They are read off an op that is made once, so that nobody states them twice. A learned matrix stands before each activation, so none of
    them is parameter-free; `identity` is the layer. Raises ValueError: such an op cannot be made.
    """
    norm = Normalisation(affine=False, after_pools=False)
    if name in OPS:
        return _tried(name, OPS[name], TRIED_CHANNELS, 1, norm)
    if name in LAYERS:
        return _tried(name, LAYERS[name], TRIED_CHANNELS, TRIED_CHANNELS, 1, norm)
    return OpTraits("activation") if name in ACTIVATIONS else None


def _tried(name: str, factory: Callable[..., Op], *arguments: int | Normalisation) -> OpTraits:
    if name not in _TRIED or _TRIED[name][0] is not factory:
        with torch.random.fork_rng(devices=[]):
            try:
                _TRIED[name] = factory, factory(*arguments).traits
            except Exception as error:
                raise ValueError(f"op {name!r} must be made as an Op on any number of channels, so that it can be described; with "
                                 f"{TRIED_CHANNELS} it raised {type(error).__name__}: {error}") from error
    return _TRIED[name][1]
