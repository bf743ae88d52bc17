"""Architectures a second, evaluated with shared weights: `python -m benchmarks.shared_weights`, from the repository root.

Ours runs the supernet at the architectures' ops, all that are asked for as a population, in which chains compute once what architectures
begin with alike (`supernet.evaluators.shared_weights`); `one_by_one` is the same supernet, an architecture after the other. The reference
is the obvious way: a network of its own for each architecture, weights inherited by name, batch norm recalibrated over the same batches,
evaluated. All give the same losses, which is checked, those of the first two bit for bit. Noise for images, float32; rounds alternate,
each over the same architectures: drawn at random, or, with `--generation`, made as evolution makes them, by mutation of the best of a few
(which are the best does not matter here).
"""

import itertools
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.compare import SAME_LOSS, begun, clock, parser_for, prepared, ratios, seconds, summary, where, write
from benchmarks.sides import CLASSES, Sizes, noise
from benchmarks.sides import SPACES as CELL_SPACES
from supernet.evaluators.prefixes import places
from supernet.evaluators.shared_weights import AT_ONCE, SharedWeights
from supernet.genotype import Genotype
from supernet.networks.build import initial_weights, search_normalisation
from supernet.networks.measure import peak_memory
from supernet.networks.stacked import batch_norms, inherit
from supernet.networks.steps import steps_of
from supernet.runs.progress import tracked
from supernet.space import Space
from supernet.spaces import layerwise, nasbench_macro, ofa_mobilenet
from supernet.tasks.classification import Classification
from supernet.training.evaluate import evaluate
from supernet.weights import one_hot

COMPARED = 3  # architectures at least whose losses must agree: one alone does not show that a stream leaves nothing behind
SPACES = CELL_SPACES | {"nasbench_macro": nasbench_macro.make, "layerwise": layerwise.make, "ofa_mobilenet": ofa_mobilenet.make}
SIDES = ("ours", "one_by_one", "reference")
Losses = Callable[[Sequence[Genotype]], list[float]]
PARENTS, MUTATION_PROB = 10, 0.1  # of a generation, as SPOS has them (Guo et al. 2020, official code)


def make_sides(space: Space, sizes: Sizes, calibration: int, batches: int, device: torch.device
               ) -> tuple[torch.nn.Module, dict[str, Losses]]:
    """The supernet; by name (`SIDES`), functions from genotypes to their losses."""
    norm, task = search_normalisation(pool_norm="search", bn_statistics="running"), Classification()

    def make(candidates: Any) -> torch.nn.Module:
        with initial_weights(0):
            net = space.network(candidates, **{"layers": sizes.cells, "channels": sizes.channels, **space.sizes}, num_classes=CLASSES,
                                norm=norm)
        return net.to(device, memory_format=torch.channels_last)

    draw, generator = torch.Generator().manual_seed(1), torch.Generator(device)
    images = [noise(sizes, draw, device, torch.float32) for _ in range(calibration + batches)]
    images = [(x.to(memory_format=torch.channels_last), y) for x, y in images]
    net = make(space.candidates())
    shared = SharedWeights(net, space, task, images[calibration:], generator, calibration=images[:calibration])

    def rebuilt(genotypes: Sequence[Any]) -> list[float]:
        losses = []
        for genotype in genotypes:
            alone = make(space.candidates(genotype))
            inherit(alone, net)
            norms = batch_norms(alone)
            for norm in norms:
                norm.running_mean.zero_(), norm.running_var.zero_()
            with torch.no_grad():
                for n, (x, _) in enumerate(images[:calibration]):
                    for norm in norms:
                        norm.momentum = 1 / (n + 1)
                    alone.train()(x)
            losses.append(evaluate(alone, task, images[calibration:], lambda: None, generator)["loss"])
        return losses

    def together(genotypes: Sequence[Genotype]) -> list[float]:
        found = dict(itertools.chain(*shared.population(genotypes)))
        return [found[n]["loss"] for n in range(len(genotypes))]

    return net, {"ours": together, "one_by_one": lambda genotypes: [found["loss"] for found in shared.stream(genotypes)],
                 "reference": rebuilt}


def drawn(space: Space, count: int, generation: bool) -> list[Genotype]:
    found = [space.sample(random.Random(seed)) for seed in range(count)]
    if generation:
        rng = random.Random(0)
        found = [space.mutate_each(rng.choice(found[:PARENTS]), rng, MUTATION_PROB) for _ in range(count)]
    return found


def steps_computed(net: torch.nn.Module, space: Space, genotypes: Sequence[Genotype]) -> dict[str, int]:
    """Steps of all architectures, and how many are different ones (`prefixes.places`); none where the network is no chain."""
    steps = [steps_of(net, one_hot(space, genotype)) or () for genotype in genotypes]
    paths = places([step.choice for step in own] for own in steps)
    return {"steps": sum(map(len, paths)), "different": len({place for path in paths for place in path})}


def check(found: Mapping[str, Sequence[float]]) -> None:
    """Raises RuntimeError: the losses of the sides are not the same."""
    for ours, single, theirs in zip(*(found[name] for name in SIDES), strict=True):
        if ours != single:
            raise RuntimeError(f"a population must have the losses of single evaluations, got {ours} and {single}")
        if not abs(ours - theirs) <= SAME_LOSS * abs(theirs):
            raise RuntimeError(f"the losses must agree to {SAME_LOSS}, got {ours} (ours) and {theirs} (reference)")


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=3)
    parser.add_argument("--space", choices=SPACES, default="darts")
    parser.add_argument("--cells", type=int, default=8, help="of spaces that stack cells")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=2, help="batches")
    parser.add_argument("--batches", type=int, default=2, help="batches that an architecture is evaluated on")
    parser.add_argument("--architectures", type=int, default=5, help="in a round")
    parser.add_argument("--generation", action="store_true", help="architectures that evolution asks for, not random ones")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    space = SPACES[options.space]()
    sizes = Sizes(space.sizes.get("layers", options.cells), options.channels, options.batch, 32)
    net, sides = make_sides(space, sizes, options.calibration, options.batches, device)
    draws = drawn(space, max(COMPARED, options.architectures), options.generation)
    genotypes = draws[: options.architectures]
    check({name: side(draws[:COMPARED]) for name, side in sides.items()})  # warms up
    peaks = {name: peak_memory(lambda side=side: side(draws[: max(COMPARED, AT_ONCE)]), device) for name, side in sides.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in tracked(range(options.rounds), "rounds"):
        for name in sides if number % 2 == 0 else reversed(sides):
            times[name].append(seconds(lambda side=sides[name]: side(genotypes), device))
    result = begun("shared_weights", argv, device) | {
        "space": options.space, "sizes": vars(sizes), "calibration_batches": options.calibration, "batches": options.batches,
        "architectures": options.architectures, "generation": options.generation, "backend": options.backend, "rounds": options.rounds,
        "chain": steps_computed(net, space, genotypes),
        **{name: summary(took) | {"architectures_per_s": options.architectures / statistics.median(cpu for _, cpu in took),
                                  "peak_bytes": peaks[name]} for name, took in times.items()},
        "ratio": ratios(times["reference"], times["ours"]), "ratio_to_one_by_one": ratios(times["one_by_one"], times["ours"])}
    for row in table(result)[1]:
        print(" | ".join(row))
    for what, came_out in figures(result):
        print(f"{what}: {came_out}")
    write(options.json, result)


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    sizes = result["sizes"]
    images = sizes["batch"] * (result["calibration_batches"] + result["batches"])
    cells = "layers" if result.get("chain", {}).get("steps") else "cells"
    what = (f"architectures evaluated with shared weights, {result['backend']} backend, against a network built for each "
            f"({result['space']}, {sizes['cells']} {cells}, C={sizes['channels']}, {images} images each, {where(result)})")
    came_out = f"{result['ratio'][clock(result)]:.2f}x"
    if cells == "layers":
        came_out += (f"; {result['ratio_to_one_by_one'][clock(result)]:.2f}x what they take one by one: {result['architectures']} of "
                     f"{'a generation' if result['generation'] else 'a random population'}, whose {result['chain']['steps']:,} steps are "
                     f"{result['chain']['different']:,} different ones")
    return [(what, came_out)]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """All of it, for benchmarks/README.md: head and rows."""
    known = [name for name in SIDES if name in result]
    head = ("side", f"{result['architectures']} architectures: wall s", "CPU s", "a CPU second")
    rows = [(name.replace("_", " "), f"{result[name]['wall_s']:.2f}", f"{result[name]['cpu_s']:.2f}",
             f"{result[name]['architectures_per_s']:.2f}") for name in known]
    if "peak_bytes" not in result["ours"]:  # an earlier result
        return head, rows
    return ((*head, "most MiB of tensors at once"),
            [(*row, f"{result[name]['peak_bytes'] / 2**20:.1f}") for name, row in zip(known, rows, strict=True)])


if __name__ == "__main__":
    main()
