"""`Block`: a network, or a cell of one, as it is written down in plain PyTorch: its parts by attribute, and the lines of its forward.

Networks give theirs by `plain()`; `supernet.exports.source` makes a file of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ops.forms import Form, under


@dataclass(frozen=True)
class Block:
    """One module of a class that is written. Blocks of one `name` share a class where they differ in numbers alone.

    about: the class's docstring. parts: the module's attributes, in order. inputs: forward's arguments. lines: forward's body, without
    indentation; the last one returns `gives`. widths: names for numbers in which the modules of the class may differ. ties: attributes that
    are the same parameter as another one, behind it.
    """

    name: str
    about: str
    parts: Mapping[str, "Form | Block"]
    inputs: Sequence[str]
    lines: Sequence[str]
    gives: str = "Tensor"
    widths: Mapping[str, int] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its state dict."""
        return {name: value for key, part in self.parts.items() for name, value in under(**{key: part.tensors}).items()}


class WritesItself(Protocol):
    """What a network must have to be written down."""

    def plain(self) -> Block:
        """It in plain PyTorch, in evaluation. Raises ops.forms.NoPlainForm."""


def identifier(text: str) -> str:
    """`text` as a name in Python: names of ops and kinds of cells may come from elsewhere, and what is written is code."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return word if word[:1].isalpha() else f"op_{word}"


def class_name(kind: str) -> str:
    """`NormalCell` for `normal`."""
    words = "".join(word.capitalize() for word in identifier(kind).split("_"))
    return words if words.endswith("Cell") else f"{words}Cell"


def total(terms: Sequence[str]) -> str:
    """Their sum, over several lines where it is long."""
    line = " + ".join(terms)
    return line if len(line) <= 110 else "(\n    " + "\n    + ".join(terms) + "\n)"
