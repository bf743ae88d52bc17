"""A network's `Block` as a file of Python: the classes of `ops.plain` that it uses, one class a kind of cell, and the network.

Classes of blocks are found by comparison: of the blocks of one name those belong together that differ in whole numbers alone, and the
numbers in which they differ become parameters. What is written is names and numbers of ours; text from elsewhere is made a name first.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ops import plain
from ops.forms import VARIADIC, Form
from supernet.networks.written import Block

LONGEST_LINE = 120
MOST_PARAMETERS = 3  # of a class of blocks: where more numbers differ, as in a network that was pruned, each block says its own
POSITIONAL = 4  # arguments without their names, as `nn.Conv2d(3, 16, 3, 1, padding=1)`: more cannot be told apart


@dataclass(frozen=True)
class Number:
    """A whole number that a class takes as the parameter `name`."""

    name: str


@dataclass(frozen=True)
class Written:
    """A class: `parts` with `Number`s for what differs; the parameters by name with, of each of its blocks, the value."""

    name: str
    block: Block
    parts: Mapping[str, Any]
    parameters: Mapping[str, tuple[int, ...]]
    members: tuple[Block, ...]

    def call(self, block: Block) -> str:
        """The expression that makes the module of `block`."""
        n = next(n for n, member in enumerate(self.members) if member is block)
        return f"{self.name}({', '.join(str(values[n]) for values in self.parameters.values())})"


def source_of(network: Block) -> str:
    """The file's text. It imports torch alone; `Network()` makes the module, and its state dict is `network.tensors`."""
    written = _classes([part for part in network.parts.values() if type(part) is Block])
    used = {make for part in _forms(network) for make in part.classes()}
    library = [inspect.getsource(make) for make in vars(plain).values() if inspect.isclass(make) and make in used]
    made = {id(block): one.call(block) for one in written for block in one.members}
    of_network = {name: made.get(id(part), part) for name, part in network.parts.items()}
    texts = [*library, *(_class(one.name, one.block, one.parts, list(one.parameters)) for one in written),
             _class(network.name, network, of_network, [])]
    body = "\n\n".join(f"{text.rstrip()}\n" for text in texts)
    imports = ["from typing import Any\n\n" if re.search(r"\bAny\b", body) else "", "import torch\n" if "torch." in body else "",
               "import torch.nn.functional as F\n" if re.search(r"\bF\.", body) else "", "from torch import Tensor, nn\n"]
    return f'"""{HEADING}"""\n\n{"".join(imports)}\n\n{body}'


HEADING = """A network in plain PyTorch: this file needs nothing but torch.

    net = Network().eval()
    net.load_state_dict(torch.load("weights.pt", weights_only=True))
"""


def _forms(block: Block) -> Iterator[Form]:
    for part in block.parts.values():
        if type(part) is Block:
            yield from _forms(part)
        else:
            yield part


# ---- which blocks are one class


def _classes(blocks: Sequence[Block]) -> list[Written]:
    groups: dict[str, list[Block]] = {}
    for block in blocks:
        shape = repr([block.name, list(block.lines), [(name, _shape(part)) for name, part in block.parts.items()]])
        groups.setdefault(shape, []).append(block)
    names: dict[str, int] = {}
    written = []
    for members in groups.values():
        merged = _merged(members)
        too_many = len(merged[1]) > MOST_PARAMETERS
        for some, (parts, parameters) in [([member], _merged([member])) for member in members] if too_many else [(members, merged)]:
            first = some[0]
            names[first.name] = names.get(first.name, 0) + 1
            name = first.name if names[first.name] == 1 else f"{first.name}{names[first.name]}"
            written.append(Written(name, first, parts, parameters, tuple(some)))
    return written


def _merged(members: Sequence[Block]) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The parts of blocks that are one class, and its parameters."""
    parameters: dict[str, tuple[int, ...]] = {}
    return {key: _common([member.parts[key] for member in members], members, parameters, key) for key in members[0].parts}, parameters


def _shape(value: Any) -> Any:
    """What modules of one class share: all but whole numbers."""
    if type(value) is Form:
        return value.make, {name: _shape(argument) for name, argument in value.arguments.items()}
    if type(value) is tuple:
        return tuple(map(_shape, value))
    return int if type(value) is int else value


def _common(values: Sequence[Any], members: Sequence[Block], parameters: dict[str, tuple[int, ...]], name: str) -> Any:
    """What the members' values share; `parameters` grows by the numbers in which they differ. name: of the argument, for want of a better
    one."""
    first = values[0]
    if type(first) is Form:
        return Form(first.make, {key: _common([value.arguments[key] for value in values], members, parameters, key)
                                 for key in first.arguments})
    if type(first) is tuple:
        return tuple(_common([value[n] for value in values], members, parameters, name) for n in range(len(first)))
    if all(value == first for value in values):
        return first
    seen = tuple(values)
    known = {width: tuple(member.widths[width] for member in members) for width in members[0].widths}
    for key, vector in (*parameters.items(), *known.items()):
        if vector == seen:
            parameters[key] = seen
            return Number(key)
    key = name if name not in {*parameters, *known} else f"{name}{len(parameters)}"
    parameters[key] = seen
    return Number(key)


# ---- the text


def _class(name: str, block: Block, parts: Mapping[str, Any], parameters: Sequence[str]) -> str:
    arguments = "".join(f", {parameter}: int" for parameter in parameters)
    lines = [f"class {name}(nn.Module):", f'    """{block.about}"""', "",
             f"    def __init__(self{arguments}):", "        super().__init__()"]
    for key, part in parts.items():
        lines += _spread(f"        self.{key} = ", part, "")
    lines += [f"        self.{tied} = self.{to}" for tied, to in block.ties.items()]
    inputs = "".join(f", {name}: Tensor" for name in block.inputs)
    lines += ["", f"    def forward(self{inputs}) -> {block.gives}:"]
    lines += [f"        {line}" for text in block.lines for line in text.split("\n")]
    return "\n".join(lines)


def _spread(start: str, part: Any, end: str) -> list[str]:
    """`start`, the expression, `end`: on one line where that is short enough, else an argument a line. part: a form, or an expression."""
    line = f"{start}{part if type(part) is str else _text(part)}{end}"
    if len(line) <= LONGEST_LINE or type(part) is str:
        return [line]
    margin = " " * (len(start) - len(start.lstrip()) + 4)
    rows = [f"{start}{_name(part.make)}("]
    for value, text in zip(part.arguments.values(), _arguments(part)):
        name, equals, _ = text.partition("=") if text.split("(")[0].count("=") else ("", "", "")
        rows += _spread(f"{margin}{name}{equals}", value, ",") if type(value) is Form else [f"{margin}{text},"]
    return [*rows, f"{margin[4:]}){end}"]


def _text(value: Any) -> str:
    if type(value) is Form:
        return f"{_name(value.make)}({', '.join(_arguments(value))})"
    if type(value) is Number:
        return value.name
    if type(value) is tuple:
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    if not isinstance(value, int | float | str | bool | None):
        raise TypeError(f"an argument of a plain module must be a number, a truth value or a text, got {type(value).__name__}")
    return repr(value)


def _arguments(form: Form) -> list[str]:
    if form.make in VARIADIC:
        return [_text(value) for value in form.arguments.values()]
    texts, in_row = [], True
    names = list(inspect.signature(form.make).parameters)
    for n, (name, value) in enumerate(form.arguments.items()):
        in_row = in_row and n < POSITIONAL and names[n] == name and type(value) is not bool
        texts.append(_text(value) if in_row else f"{name}={_text(value)}")
    return texts


def _name(make: type[nn.Module]) -> str:
    return make.__name__ if make.__module__ == plain.__name__ else f"nn.{make.__name__}"
