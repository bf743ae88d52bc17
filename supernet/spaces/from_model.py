"""A supernet of a network of one's own: any module of convolutions, linear layers, norms, activations, pools and residual sums.

Its graph tells what may become narrower (groups of channels), shallower (residual blocks whose shapes allow to leave them out), and of
smaller kernels; all sizes share the network's own weights (`supernet.networks.traced`), and the largest is the network itself. Nothing
published has exactly these choices: widths are slices as in Slimmable Networks (Yu et al. 2019), kernels the centres of larger ones as in
Once-for-all (Cai et al. 2020, without the maps), depth the blocks of a residual network.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from supernet.errors import UsageError
from supernet.genotype import Genotype, short
from supernet.ranges import Count, Range, Side, ranged
from supernet.space import Candidates, CellSpec, Space
from supernet.spaces.chains import costs
from supernet.spaces.own_model import FROM_DATA, Source, check_arguments, function_named, load_state

if TYPE_CHECKING:
    from supernet.networks.channels import Traced
    from supernet.networks.traced import Decisions

SIDE, CHANNELS, CLASSES = 32, 3, 10  # of the images and for the classes that a network is traced with where nothing else is said
Odd = Annotated[int, Range(1, 31)]
WidthShare = Annotated[float, Range(0, 1, above=True)]


@ranged
def make(*, model: Any = None, arguments: Mapping[str, Any] | None = None, state: str | None = None,
         widths: Sequence[WidthShare] = (1, 0.75, 0.5), divisor: Count = 8, kernels: Sequence[Odd] = (3, 5, 7), depth: bool = True,
         image: Sequence[Side] | None = None, graph: str | None = None) -> Space:
    """One row of choices for each group of channels, each large kernel and each block.

    model: a function that makes the network, or its name, `my_file.make`. It is called with `arguments`, and with in_channels, image_size
    and num_classes of the data where it takes them. state: a file of its weights (a state dict), from which all networks begin.
    widths: of a group, as shares of its channels, rounded to multiples of `divisor`; 1 among them. kernels: sizes that a larger odd kernel
    may be cut to. depth: whether residual blocks may be left out. image: [C, H, W] with which it is traced (default: the channels of its
    first convolution and 32 pixels, which decide shapes alone). graph: the digest that its graph must have, where it is known.

    The genotype names the graph's digest and never the function. Raises ValueError, UsageError: one line.
    """
    if model is None:
        raise UsageError("the network of this space is one of your own, and no file names it: pass space=from_model "
                         "space.model=my_file.make")
    for name, values in (("widths", widths), ("kernels", kernels)):
        if len(set(values)) != len(values):
            raise ValueError(f"space.{name} must be distinct, got {short(list(values))}")
    if widths and max(widths) != 1:
        raise ValueError(f"space.widths must hold 1, which is the network itself, got {short(list(widths))}")
    if any(k % 2 == 0 for k in kernels):
        raise ValueError(f"space.kernels must be odd, got {short(list(kernels))}")
    if image is not None and len(image) != 3:
        raise ValueError(f"space.image must be [channels, height, width], got {short(list(image))}")
    source = Source(function_named(model), dict(arguments or {}), state)
    check_arguments(source)
    found, channels = _probe(source, image)
    if graph is not None and graph != found.digest:
        raise UsageError(f"space.model: the graph of {source.name} is {found.digest}, and the architecture is of {short(graph)}: another "
                         "network, or other arguments of it")
    decided = decisions(found, widths=sorted(widths, reverse=True), divisor=divisor, kernels=kernels, depth=depth)
    rows = {"width": [list(names) for _, names in decided.widths], "kernel": [list(names) for _, names in decided.kernels],
            "depth": [["run", "skip"] for _ in decided.blocks]}
    cells = {kind: CellSpec.listed(num_inputs=1, edges=[(n, n + 1, own) for n, own in enumerate(choices)], keep=None,
                                   outputs=(len(choices),)) for kind, choices in rows.items() if choices}
    told = elasticity(found, decided, divisor)
    if not cells:
        raise UsageError(f"space.model: nothing of {source.name} can be made smaller: {'; '.join(told)[:300]}")
    options = {"widths": [float(w) for w in widths], "divisor": divisor, "kernels": list(kernels), "depth": depth, "graph": found.digest}
    layers = len({layer.target for layer in found.layers.values() if layer.kind != "norm"})
    return Space("from_model", options, cells, partial(build, source), partial(canonicalise, inner(found, decided)), costs,
                 sizes={"layers": max(1, layers), "channels": channels}, auxiliary_head=False, rules={"graph": found.digest}, about=told)


def _probe(source: Source, image: Sequence[int] | None) -> "tuple[Traced, int]":
    """The graph with images and classes that stand for the data's, and the channels that the first convolution gives."""
    import torch

    from supernet.networks.channels import traced
    from supernet.networks.graph import UnreadableImages

    defaults = {name: p.default for name, p in source.takes().items() if name in FROM_DATA and p.default is not p.empty}
    side = (SIDE, SIDE) if image is None else tuple(image[1:])
    with torch.random.fork_rng(devices=[]):  # weights are drawn, and nobody sees them
        model = source.made({"in_channels": CHANNELS if image is None else image[0], "image_size": side, "num_classes": CLASSES} | defaults
                            | ({} if image is None else {"in_channels": image[0], "image_size": side}))
    first = next((m for m in model.modules() if type(m) is torch.nn.Conv2d), None)
    channels = image[0] if image is not None else CHANNELS if first is None else first.in_channels
    try:
        found = traced(model, (channels, *side))
    except UnreadableImages as error:
        hint = "; space.image=[C,H,W] traces it with others" if image is None else ""
        raise UsageError(f"space.model: {error}{hint}") from error
    except ValueError as error:
        raise UsageError(f"space.model: {error}") from error
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
    from supernet.networks.channels import group_name
    from supernet.networks.shortcuts import block_name

    chosen = dict(decided.widths)
    lines = [f"width {n + 1}: {'/'.join(map(str, choices.values()))} of the {group_name(found.groups[group])}"
             for n, (group, choices) in enumerate(decided.widths)]
    lines += [f"kernel {n + 1}: {'/'.join(map(str, sizes.values()))} in {target}" for n, (target, sizes) in enumerate(decided.kernels)]
    lines += [f"depth {n + 1}: {block_name(found.graphs[False], block)} runs or is left out" for n, block in enumerate(decided.blocks)]
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


@ranged
def build(source: Source, space: Space, candidates: Candidates, *, layers: int, channels: int, norm: Any, num_classes: int,
          in_channels: int = 3, image_size: tuple[int, int] = (32, 32)) -> Any:
    """norm: its running_statistics alone; the network's norms are its own. Raises ValueError, UsageError: the network does not fit the
    data, or its graph depends on them."""
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
        raise UsageError(f"space.model: the graph of {source.name} is another for images of {in_channels}x{image_size[0]}x{image_size[1]} "
                         f"than the one that the space was made of: pass space.image=[{in_channels},{image_size[0]},{image_size[1]}]")
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
