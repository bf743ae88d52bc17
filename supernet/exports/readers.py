"""What a plain network reads, images or text: examples of it, how ours is called with them, and the files that show its use."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ops.forms import NoPlainForm
from supernet.data.augment import crop_size
from supernet.data.preprocess import Preprocessing
from supernet.errors import UsageError
from supernet.exports import examples
from supernet.networks.written import Block

Tensors = tuple[Tensor, ...]


class Reader(Protocol):
    """Of one kind of input. `inputs` and `outputs` name them, in order, each with its dimension of the batch."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    reads_pictures: bool

    def noise(self, net: nn.Module, preprocess: Preprocessing | None, batch: int, steps: int, generator: torch.Generator) -> Tensors:
        """Random inputs of float64. steps: of a text, the items that are read in one call."""

    def ours(self, net: nn.Module, inputs: Tensors) -> Tensors:
        """What our network makes of them."""

    def files(self, preprocess: Preprocessing | None) -> dict[str, str]:
        """By name, the text of the files that show how it is used."""


@dataclass(frozen=True)
class Images:
    inputs = {"x": 0}
    outputs = {"logits": 0}
    reads_pictures = True

    def noise(self, net: nn.Module, preprocess: Preprocessing | None, batch: int, steps: int, generator: torch.Generator) -> Tensors:
        sizes = net.built.sizes
        height, width = sizes["image_size"] if preprocess is None else crop_size(preprocess.crop, *preprocess.image_size)
        return (torch.randn(batch, sizes["in_channels"], height, width, generator=generator, dtype=torch.float64),)

    def ours(self, net: nn.Module, inputs: Tensors) -> Tensors:
        return (net(inputs[0]),)

    def files(self, preprocess: Preprocessing | None) -> dict[str, str]:
        shown = preprocess is not None and len(preprocess.mean) in (1, 3)  # of other channels no image file has
        return {"preprocess.py": examples.PREPROCESS, "classify.py": examples.CLASSIFY} if shown else {}


@dataclass(frozen=True)
class Text:
    inputs = {"tokens": 1, "hidden": 0}
    outputs = {"logits": 1, "next_hidden": 0}
    reads_pictures = False

    def noise(self, net: nn.Module, preprocess: Preprocessing | None, batch: int, steps: int, generator: torch.Generator) -> Tensors:
        sizes = net.built.sizes
        tokens = torch.randint(sizes["vocabulary"], (steps, batch), generator=generator)
        return tokens, 0.1 * torch.randn(batch, sizes["channels"], generator=generator, dtype=torch.float64)

    def ours(self, net: nn.Module, inputs: Tensors) -> Tensors:
        out = net(inputs[0], state=inputs[1])
        return out.logits, out.state

    def files(self, preprocess: Preprocessing | None) -> dict[str, str]:
        return {} if preprocess is None else {"continue.py": examples.CONTINUE}


@dataclass(frozen=True)
class TextWindows:
    """Of a network that sees a part of a text at once, and hands nothing on."""

    inputs = {"tokens": 1}
    outputs = {"logits": 1}
    reads_pictures = False

    def noise(self, net: nn.Module, preprocess: Preprocessing | None, batch: int, steps: int, generator: torch.Generator) -> Tensors:
        """Raises UsageError: these are more steps than the network can see."""
        if steps > net.context:
            raise UsageError(f"steps must be at most the {net.context} items that this network sees at once, got {steps}")
        return (torch.randint(net.built.sizes["vocabulary"], (steps, batch), generator=generator),)

    def ours(self, net: nn.Module, inputs: Tensors) -> Tensors:
        return (net(inputs[0]).logits,)

    def files(self, preprocess: Preprocessing | None) -> dict[str, str]:
        return {} if preprocess is None else {"continue.py": examples.CONTINUE_WINDOWS}


READERS: tuple[Reader, ...] = (Images(), Text(), TextWindows())


def reader_of(block: Block) -> Reader:
    """By the names of what the network reads. Raises NoPlainForm: they are others."""
    for reader in READERS:
        if list(reader.inputs) == list(block.inputs):
            return reader
    *known, last = ("(" + ", ".join(reader.inputs) + ")" for reader in READERS)
    raise NoPlainForm(f"its forward must read {', '.join(known)} or {last}, got ({', '.join(block.inputs)})")


def facts(preprocess: Preprocessing | None, class_names: Sequence[str]) -> dict[str, Any]:
    """What preprocessing.json says."""
    said = {} if preprocess is None else {key: value for key, value in asdict(preprocess).items() if key != "device"}
    return said if "vocabulary" in said else said | {"class_names": list(class_names)}
