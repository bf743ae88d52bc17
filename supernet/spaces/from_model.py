"""A supernet of a network of one's own: any module of convolutions, linear layers, norms, activations, pools and residual sums.

Its graph tells what may become narrower (groups of channels), shallower (residual blocks whose shapes allow to leave them out), and of smaller
kernels; all sizes share the network's own weights (`supernet.networks.traced`), and the largest is the network itself. Nothing published has
exactly these choices: widths are slices as in Slimmable Networks (Yu et al. 2019), kernels the centres of larger ones as in Once-for-all (Cai
et al. 2020, without the maps), depth the blocks of a residual network.
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from supernet.errors import UsageError, did_you_mean
from supernet.genotype import Genotype, short
from supernet.ranges import Count, Range, Side, ranged
from supernet.space import Candidates, CellSpec, Space

if TYPE_CHECKING:
    from torch import nn

    from supernet.networks.channels import Traced
    from supernet.networks.traced import Decisions

SIDE, CHANNELS, CLASSES = 32, 3, 10  # of the images and for the classes that a network is traced with where nothing else is said
Odd = Annotated[int, Range(1, 31)]
WidthShare = Annotated[float, Range(0, 1, above=True)]
FROM_DATA = ("in_channels", "image_size", "num_classes")  # arguments of a user's function that it gets where it takes them


@dataclass(frozen=True)
class Source:
    """How the network is made. function: the user's. arguments: what it is called with beside FROM_DATA. state: a file of its weights."""

    function: Callable[..., "nn.Module"]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def takes(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def made(self, sizes: Mapping[str, Any]) -> "nn.Module":
        """The network, for data of these sizes as far as the function takes them. Raises UsageError: it fails, or makes something else."""
        from torch import nn

        wanted = {name: sizes[name] for name in FROM_DATA if name in self.takes() and name in sizes} | dict(self.arguments)
        try:
            model = self.function(**wanted)
        except Exception as error:  # the user's code: whatever it raises
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) != Path(__file__)]
            at = f" at {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
            raise UsageError(f"space.model: {self.name} failed{at} ({type(error).__name__}: {' '.join(str(error).split())[:150]})") from error
        if not isinstance(model, nn.Module):
            raise UsageError(f"space.model: {self.name} must return a torch.nn.Module, got {type(model).__name__}")
        if next(model.parameters(), None) is None:
            raise UsageError(f"space.model: {self.name} makes a network without parameters")
        return model


@ranged
def make(*, model: Any = None, arguments: Mapping[str, Any] | None = None, state: str | None = None, widths: Sequence[WidthShare] = (1, 0.75, 0.5),
         divisor: Count = 8, kernels: Sequence[Odd] = (3, 5, 7), depth: bool = True, image: Sequence[Side] | None = None,
         graph: str | None = None) -> Space:
    """One row of choices for each group of channels, each large kernel and each block.

    model: a function that makes the network, or its name, `my_file.make`. It is called with `arguments`, and with in_channels, image_size
    and num_classes of the data where it takes them. state: a file of its weights (a state dict), from which all networks begin.
    widths: of a group, as shares of its channels, rounded to multiples of `divisor`; 1 among them. kernels: sizes that a larger odd kernel
    may be cut to. depth: whether residual blocks may be left out. image: [C, H, W] with which it is traced (default: the channels of its first
    layer and 32 pixels, which decide shapes alone). graph: the digest that its graph must have, where it is known.

    The genotype names the graph's digest and never the function. Raises ValueError, UsageError: one line.
    """
    if model is None:
        raise UsageError("the network of this space is one of your own, and no file names it: pass space=from_model space.model=my_file.make")
    for name, values in (("widths", widths), ("kernels", kernels)):
        if len(set(values)) != len(values):
            raise ValueError(f"space.{name} must be distinct, got {short(list(values))}")
    if widths and max(widths) != 1:
        raise ValueError(f"space.widths must hold 1, which is the network itself, got {short(list(widths))}")
    if any(k % 2 == 0 for k in kernels):
        raise ValueError(f"space.kernels must be odd, got {short(list(kernels))}")
    if image is not None and len(image) != 3:
        raise ValueError(f"space.image must be [channels, height, width], got {short(list(image))}")
    source = Source(_function(model), dict(arguments or {}), state)
    _check_arguments(source)
    found, channels = _probe(source, image)
    if graph is not None and graph != found.digest:
        raise UsageError(f"space.model: the graph of {source.name} is {found.digest}, and the architecture is of {short(graph)}: another "
                         "network, or other arguments of it")
    decided = decisions(found, widths=sorted(widths, reverse=True), divisor=divisor, kernels=kernels, depth=depth)
    rows = {"width": [list(names) for _, names in decided.widths], "kernel": [list(names) for _, names in decided.kernels],
            "depth": [["run", "skip"] for _ in decided.blocks]}
    cells = {kind: CellSpec.listed(num_inputs=1, edges=[(n, n + 1, own) for n, own in enumerate(choices)], keep=None, outputs=(len(choices),))
             for kind, choices in rows.items() if choices}
    told = elasticity(found, decided, divisor)
    if not cells:
        raise UsageError(f"space.model: nothing of {source.name} can be made smaller: {'; '.join(told)[:300]}")
    options = {"widths": [float(w) for w in widths], "divisor": divisor, "kernels": list(kernels), "depth": depth, "graph": found.digest}
    layers = len({layer.target for layer in found.layers.values() if layer.kind != "norm"})
    return Space("from_model", options, cells, partial(build, source), partial(canonicalise, inner(found, decided)), costs,
                 sizes={"layers": max(1, layers), "channels": channels}, auxiliary_head=False, rules={"graph": found.digest}, about=told)


def _function(model: Any) -> Callable[..., "nn.Module"]:
    """The function itself. Raises UsageError: there is none of that name."""
    if callable(model):
        return model
    module, dot, name = str(model).rpartition(".")
    if not dot:
        raise UsageError(f"space.model must name a function in a file, as my_file.make, got {short(model)}")
    if module.partition(".")[0] == "torchvision":
        from supernet.data.torchvision_import import import_torchvision

        import_torchvision()
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"space.model: there is no module {short(error.name)} to find {short(model)} in, from the folder you start in") from error
    except AttributeError as error:
        raise UsageError(f"space.model: {module} has no {short(name)}{did_you_mean(name, vars(import_module(module)))}") from error
    except Exception as error:  # the user's file: whatever it raises
        raise UsageError(f"space.model: {module} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:150]})") from error
    if not callable(found):
        raise UsageError(f"space.model: {short(model)} must be a function that makes a network, got {type(found).__name__}")
    return found


def _check_arguments(source: Source) -> None:
    taken = source.takes()
    swallows = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    for name in source.arguments:
        if name not in taken and not swallows:
            raise UsageError(f"space.arguments.{name}: {source.name} has no such argument{did_you_mean(name, taken)} (it takes "
                             f"{', '.join(taken) or 'none'})")
    lacking = [name for name, p in taken.items() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
               and name not in source.arguments and name not in FROM_DATA]
    if lacking:
        raise UsageError(f"space.model: {source.name} needs {lacking[0]}: pass space.arguments={{{lacking[0]}:...}}")


def _probe(source: Source, image: Sequence[int] | None) -> "tuple[Traced, int]":
    """The graph with images and classes that stand for the data's, and the channels that the first convolution gives."""
    import torch

    from supernet.networks.channels import traced

    defaults = {name: p.default for name, p in source.takes().items() if name in FROM_DATA and p.default is not p.empty}
    side = (SIDE, SIDE) if image is None else tuple(image[1:])
    with torch.random.fork_rng(devices=[]):  # weights are drawn, and nobody sees them
        model = source.made({"in_channels": CHANNELS if image is None else image[0], "image_size": side, "num_classes": CLASSES} | defaults
                            | ({} if image is None else {"in_channels": image[0], "image_size": side}))
    first = next((m for m in model.modules() if type(m) is torch.nn.Conv2d), None)
    channels = image[0] if image is not None else CHANNELS if first is None else first.in_channels
    try:
        found = traced(model, (channels, *side))
    except ValueError as error:
        hint = "" if image is not None else f"; it was traced with an image of {channels}x{side[0]}x{side[1]}, space.image=[C,H,W] gives another"
        raise UsageError(f"space.model: {error}{hint}") from error
    return found, 1 if first is None else first.out_channels


def decisions(found: "Traced", *, widths: Sequence[float], divisor: int, kernels: Sequence[int], depth: bool) -> "Decisions":
    """What is decided of a network with this graph."""
    from supernet.networks.traced import Decisions

    groups = [(n, choices) for n, group in enumerate(found.groups)
              if group.fixed is None and len(choices := width_choices(group.channels, widths, divisor)) > 1]
    sizes = {}
    for layer in found.layers.values():
        smaller = sorted((k for k in kernels if layer.kernel is not None and k < layer.kernel), reverse=True)
        if smaller:
            sizes[layer.target] = {f"kernel_{k}": k for k in (layer.kernel, *smaller)}
    return Decisions(groups, list(sizes.items()), list(found.blocks) if depth else [])


def width_choices(full: int, shares: Sequence[float], divisor: int) -> dict[str, int]:
    """Channels by name, `width_75` for three quarters; of shares that come to the same number the first."""
    from supernet.networks.elastic import divisible

    found: dict[str, int] = {}
    for share in shares:
        channels = full if share == 1 else min(full, divisible(full * share, divisor))
        if channels not in found.values():
            found[f"width_{100 * share:g}"] = channels
    return found


def elasticity(found: "Traced", decided: "Decisions", divisor: int) -> tuple[str, ...]:
    """A line for each thing that is decided, then for each that could not be made elastic, with the reason."""
    from supernet.networks.channels import block_name, group_name

    chosen = dict(decided.widths)
    lines = [f"width {n + 1}: {'/'.join(map(str, choices.values()))} of the {group_name(found.groups[group])}"
             for n, (group, choices) in enumerate(decided.widths)]
    lines += [f"kernel {n + 1}: {'/'.join(map(str, sizes.values()))} in {target}" for n, (target, sizes) in enumerate(decided.kernels)]
    lines += [f"depth {n + 1}: {block_name(found, block)} runs or is left out" for n, block in enumerate(decided.blocks)]
    lines += [f"fixed width: {group_name(group)}: all shares come to as many, by space.divisor={divisor}"
              for n, group in enumerate(found.groups) if group.fixed is None and n not in chosen and group.layers]
    return (*lines, *(f"fixed {one.kind}: {one.what}: {one.reason}" for one in found.fixed))


def inner(found: "Traced", decided: "Decisions") -> dict[tuple[str, int], list[frozenset[int]]]:
    """By decision, for each place where it counts, the blocks within which that lies: where one of each place is left out, the decision
    decides nothing."""
    def around(node: str) -> frozenset[int]:
        return frozenset(n for n, block in enumerate(decided.blocks) if node in block.own)

    places: dict[tuple[str, int], list[frozenset[int]]] = {}
    width_of = {group: e for e, (group, _) in enumerate(decided.widths)}
    kernel_of = {target: e for e, (target, _) in enumerate(decided.kernels)}
    for node, layer in found.layers.items():
        for part in (*layer.rows, *layer.columns):
            if part.group in width_of:
                places.setdefault(("width", width_of[part.group]), []).append(around(node))
        if layer.target in kernel_of:
            places.setdefault(("kernel", kernel_of[layer.target]), []).append(around(node))
    for e, block in enumerate(decided.blocks):
        places["depth", e] = [around(block.node)]
    return places


def canonicalise(places: Mapping[tuple[str, int], Sequence[frozenset[int]]], space: Space, genotype: Genotype) -> Genotype:
    """What lies within blocks that are left out alone is the first choice of each decision: nothing of it is in the network."""
    kinds = dict(genotype.cells)
    left_out = {n for n, e in enumerate(kinds.get("depth", ())) if e.op == "skip"}
    cells = {kind: [edge._replace(op=space.cells[kind].ops[0]) if all(place & left_out for place in places[kind, n]) else edge
                    for n, edge in enumerate(edges)] for kind, edges in genotype.cells}
    return space.genotype(cells)


def costs(space: Space, quantity: str, **sizes: Any) -> Any:
    """Parameters or multiply-adds, counted layer by layer."""
    from supernet.costs.chain import chain_costs

    return chain_costs(space, **sizes)[quantity]


@ranged
def build(source: Source, space: Space, candidates: Candidates, *, layers: int, channels: int, norm: Any, num_classes: int,
          in_channels: int = 3, image_size: tuple[int, int] = (32, 32)) -> Any:
    """norm: its running_statistics alone; the network's norms are its own. Raises ValueError, UsageError: the network does not fit the data,
    or its graph depends on them."""
    from supernet.networks.chain import Choices
    from supernet.networks.channels import traced
    from supernet.networks.traced import TracedNetwork

    if {"layers": layers, "channels": channels} != space.sizes:
        raise ValueError(f"layers and channels must be {space.sizes['layers']} and {space.sizes['channels']}, those of the network itself, "
                         f"got {layers} and {channels}")
    model = source.made({"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes})
    if source.state is not None:
        load_state(model, source.state, source.name)
    found = traced(model, (in_channels, *image_size))
    if found.digest != space.rules["graph"]:
        raise UsageError(f"space.model: the graph of {source.name} is another for images of {in_channels}x{image_size[0]}x{image_size[1]} than "
                         f"the one that the space was made of: pass space.image=[{in_channels},{image_size[0]},{image_size[1]}]")
    if found.output != (2, num_classes):
        how = "" if "num_classes" in source.takes() and "num_classes" not in source.arguments else (
            "; pass space.arguments={num_classes:" + str(num_classes) + "}, or take num_classes in the function")
        raise UsageError(f"space.model: {source.name} must give (N, {num_classes}) for the data's classes, got "
                         f"(N, {', '.join(map(str, found.output[1:]))}){how}")
    options = space.arguments
    decided = decisions(found, widths=sorted(options["widths"], reverse=True), divisor=options["divisor"], kernels=options["kernels"],
                        depth=options["depth"])
    running = norm is None or norm.running_statistics
    return TracedNetwork(model, found, decided, Choices(space.cells, candidates), running_statistics=running)


def load_state(model: "nn.Module", path: str, name: str) -> None:
    """The weights of a file that `torch.save(model.state_dict(), path)` wrote. Raises UsageError: it is none, or of another network."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"space.state={path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # what a damaged or foreign file makes of torch's reader has many names
        raise UsageError(f"space.state={path}: not a file of weights alone, or a damaged one ({type(error).__name__}): write it by "
                         "torch.save(model.state_dict(), path)") from error
    own = model.state_dict()
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"space.state={path}: must hold a state dict, tensors by name, got {type(state).__name__}")
    lacking, foreign = [key for key in own if key not in state], [key for key in state if key not in own]
    if lacking or foreign:
        raise UsageError(f"space.state={path}: is not of {name}: " + (f"it lacks {lacking[0]}" if lacking else f"{name} has no {foreign[0]}")
                         + f" ({len(lacking)} lacking, {len(foreign)} unknown of {len(own)})")
    wrong = next((key for key in own if own[key].shape != state[key].shape), None)
    if wrong is not None:
        raise UsageError(f"space.state={path}: {wrong} must be {tuple(own[wrong].shape)}, as {name} makes it for these data, got "
                         f"{tuple(state[wrong].shape)}")
    model.load_state_dict(state)
