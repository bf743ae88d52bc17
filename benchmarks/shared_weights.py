"""Architectures a second, evaluated with shared weights: `python -m benchmarks.shared_weights`, from the repository root.

Ours runs the supernet at the architecture's ops, in a stream (`supernet.evaluators.shared_weights`). The reference is the obvious way: a
network of its own for each architecture, weights inherited by name, batch norm recalibrated over the same batches, evaluated. Both give
the same losses, which is checked. Noise for images, float32; rounds alternate, each over the same architectures.
"""

import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.compare import SAME_LOSS, begun, clock, parser_for, prepared, ratios, seconds, summary, where, write
from benchmarks.sides import CLASSES, SPACES, Sizes, noise
from supernet.evaluators.shared_weights import SharedWeights
from supernet.networks.build import initial_weights, search_normalisation
from supernet.networks.stacked import batch_norms, inherit
from supernet.runs.progress import tracked
from supernet.space import Space
from supernet.tasks.classification import Classification
from supernet.training.evaluate import evaluate

COMPARED = 3  # architectures at least whose losses must agree: one alone does not show that a stream leaves nothing behind


def make_sides(space: Space, sizes: Sizes, calibration: int, batches: int, device: torch.device) -> dict[str, Any]:
    """Functions from genotypes to their losses."""
    norm, task = search_normalisation(pool_norm="search", bn_statistics="running"), Classification()

    def make(candidates: Any) -> torch.nn.Module:
        with initial_weights(0):
            net = space.network(candidates, layers=sizes.cells, channels=sizes.channels, num_classes=CLASSES, norm=norm)
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

    return {"ours": lambda genotypes: [found["loss"] for found in shared.stream(genotypes)], "reference": rebuilt}


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=3)
    parser.add_argument("--space", choices=SPACES, default="darts")
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=2, help="batches")
    parser.add_argument("--batches", type=int, default=2, help="batches that an architecture is evaluated on")
    parser.add_argument("--architectures", type=int, default=5, help="in a round")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    space, sizes = SPACES[options.space](), Sizes(options.cells, options.channels, options.batch, 32)
    sides = make_sides(space, sizes, options.calibration, options.batches, device)
    draws = [space.sample(random.Random(seed)) for seed in range(max(COMPARED, options.architectures))]
    genotypes = draws[: options.architectures]
    for ours, theirs in zip(*(side(draws[:COMPARED]) for side in sides.values()), strict=True):  # warms up
        if not abs(ours - theirs) <= SAME_LOSS * abs(theirs):
            raise RuntimeError(f"the losses must agree to {SAME_LOSS}, got {ours} (ours) and {theirs} (reference)")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in tracked(range(options.rounds), "rounds"):
        for name in sides if number % 2 == 0 else reversed(sides):
            times[name].append(seconds(lambda side=sides[name]: side(genotypes), device))
    result = begun("shared_weights", argv, device) | {
        "space": options.space, "sizes": vars(sizes), "calibration_batches": options.calibration, "batches": options.batches,
        "architectures": options.architectures, "backend": options.backend, "rounds": options.rounds,
        **{name: summary(took) | {"architectures_per_s": options.architectures / statistics.median(cpu for _, cpu in took)}
           for name, took in times.items()}, "ratio": ratios(times["reference"], times["ours"])}
    for row in table(result)[1]:
        print(" | ".join(row))
    write(options.json, result)


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    sizes = result["sizes"]
    images = sizes["batch"] * (result["calibration_batches"] + result["batches"])
    what = (f"architectures evaluated with shared weights, {result['backend']} backend, against a network built for each "
            f"({result['space']}, {sizes['cells']} cells, C={sizes['channels']}, {images} images each, {where(result)})")
    return [(what, f"{result['ratio'][clock(result)]:.2f}x")]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """All of it, for benchmarks/README.md: head and rows."""
    rows = [(name, f"{result[name]['wall_s']:.2f}", f"{result[name]['cpu_s']:.2f}", f"{result[name]['architectures_per_s']:.2f}")
            for name in ("ours", "reference")]
    return ("side", f"{result['architectures']} architectures: wall s", "CPU s", "a CPU second"), rows


if __name__ == "__main__":
    main()
