"""Candidate operations. `OPS` maps an op's name, as papers spell it, to its factory `(channels, stride, norm) -> Op`."""

import difflib
from collections.abc import Callable
from functools import partial

from ops.conv import dil_conv, factorised_conv, nor_conv, sep_conv
from ops.op import Normalisation, Op
from ops.simple import Noise, Zero, avg_pool, max_pool, skip

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
    "noise": lambda channels, stride, norm: Noise(stride),
}


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
