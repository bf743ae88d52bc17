"""What is known of an op beside its mathematics: what shares, rules of selection and drawings ask about."""

from dataclasses import dataclass
from typing import Literal

Family = Literal["conv", "dilated", "pool", "skip", "none", "activation", "other"]


@dataclass(frozen=True)
class OpTraits:
    """Of an op on an edge that keeps the image's size. The defaults are what may be said of one of which nothing is known.

    family: by which drawings colour it. parameter_free: nothing of it is learned. is_skip: its output is its input. contributes: its output
    is not always zero.
    """

    family: Family = "other"
    parameter_free: bool = False
    is_skip: bool = False
    contributes: bool = True
