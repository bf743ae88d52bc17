"""Time and memory of a training step of a final network beside the published one: `python -m benchmarks.final`, from the repository root.

A published genotype, trained as DARTS trains it: drop path, auxiliary head, gradient clipping, SGD with momentum. Ours is the step of
`train_final.py` (`supernet.training.final.FinalLoop`, channels_last). The reference is the network of quark0/darts (cnn/model.py) as
`tests/reference.py` writes it, NCHW, with the loop of its train.py without data loading and accuracies. Noise for images, float32. Losses
are compared before anything is timed, without drop path, whose masks differ. Measured as in `benchmarks.search_step`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.compare import (
    Side,
    begun,
    check_losses,
    gains,
    parser_for,
    prepared,
    run_steps,
    steps_notes,
    steps_table,
    where,
    write,
)
from benchmarks.sides import CLASSES, CLIP_NORM, W_OPTIMIZER, Sizes, noise, reference
from supernet import genotype as genotypes
from supernet.networks.build import final_normalisation, initial_weights
from supernet.networks.measure import parameters
from supernet.spaces import darts
from supernet.tasks.base import Batch
from supernet.tasks.classification import Classification
from supernet.training.final import FinalLoop
from supernet.training.guard import Guard
from supernet.training.records import Generators, Position, Totals

AUXILIARY_WEIGHT = 0.4
NAMES = {"train": "training step"}


class PublishedTraining:
    """The step of quark0/darts (cnn/train.py)."""

    def __init__(self, net: nn.Module, batch: Batch, generator: torch.Generator):
        self.net, self.batch, self.generator = net, batch, generator
        self.sgd = torch.optim.SGD(net.parameters(), **W_OPTIMIZER)

    def loss(self) -> Tensor:
        x, y = self.batch
        logits, extra = self.net(x, generator=self.generator)
        return F.cross_entropy(logits, y) + AUXILIARY_WEIGHT * F.cross_entropy(extra, y)

    def step(self) -> None:
        self.sgd.zero_grad()
        self.loss().backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        self.sgd.step()


def make_sides(genotype: str, sizes: Sizes, device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, Side]:
    """Both sides, with equal weights and batches and no drop path yet (`set_drop_path`)."""
    space, found = darts.make(), genotypes.find(genotype)
    space.validate(found)
    candidates = space.candidates(found)
    norm = final_normalisation(pool_norm="search", bn_statistics="running")
    with initial_weights(0):
        net = space.network(candidates, layers=sizes.cells, channels=sizes.channels, num_classes=CLASSES, norm=norm, auxiliary=True,
                            image_size=(sizes.image_size, sizes.image_size)).to(dtype)
    published = reference.like(net, space.cells, candidates, sizes.channels, CLASSES, affine=True, pool_bn=False, auxiliary=True)
    batch = noise(sizes, torch.Generator().manual_seed(1), device, dtype)
    training = PublishedTraining(published.to(device), batch, torch.Generator(device).manual_seed(2))
    theirs = Side(published, (), (training.sgd,), (batch,), lambda: {"train": training.loss()}, {"train": training.step})
    return {"ours": _ours(net.to(device, memory_format=torch.channels_last), batch), "reference": theirs}


def loop_of(net: nn.Module, batch: Batch, *, context: Callable[[], AbstractContextManager[Any]] = nullcontext,
            w_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD) -> FinalLoop:
    """The loop of `train_final.py` around a network, for steps on one batch."""
    device, position = batch[0].device, Position()
    generators = Generators({"net": torch.Generator(device).manual_seed(2)})
    return FinalLoop(net, Classification(auxiliary_weight=AUXILIARY_WEIGHT), w_optimizer(net.parameters(), **W_OPTIMIZER), None, None, None,
                     lr=W_OPTIMIZER["lr"], schedule=lambda lr, epoch, epochs: lr, drop_path_prob=0.0, clip_norm=CLIP_NORM,
                     generators=generators, guard=Guard(net, device, 50, position, lambda batch, otherwise: "of the benchmark"),
                     totals=Totals(device), position=position, context=context)


def _ours(net: nn.Module, batch: Batch) -> Side:
    batch = (batch[0].to(memory_format=torch.channels_last), batch[1])
    loop = loop_of(net, batch)
    return Side(net, (), (loop.optimizer,), (batch,), lambda: {"train": loop.task(net, batch, generator=loop.generators["net"]).loss},
                {"train": lambda: loop.step(batch)})


def set_drop_path(sides: Mapping[str, Side], prob: float) -> None:
    for side in sides.values():
        side.net.drop_path_prob = prob


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=5)
    parser.add_argument("--genotype", default="darts_v2", help="a published name or a genotype.json, of space darts")
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--channels", type=int, default=36)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--drop-path", type=float, default=0.2, help="the probability that an edge is dropped")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    if not 0 <= options.drop_path < 1:
        parser.error(f"--drop-path must be at least 0 and below 1, got {options.drop_path}")
    sizes = Sizes(options.cells, options.channels, options.batch, 32)
    sides = make_sides(options.genotype, sizes, device)
    result = begun("final", argv, device) | {
        "genotype": options.genotype, "drop_path": options.drop_path, "sizes": asdict(sizes), "parameters": parameters(sides["ours"].net),
        "backend": options.backend, "rounds": options.rounds, "losses": check_losses(sides)}
    set_drop_path(sides, options.drop_path)
    write(options.json, result | {"steps": run_steps(sides, ["train"], options.rounds, device)})


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    sizes = result["sizes"]
    what = (f"training step of a final network, {result['genotype']}, {result['backend']} backend, against edge by edge "
            f"({sizes['cells']} cells, C={sizes['channels']}, batch {sizes['batch']}, drop path {result['drop_path']}, auxiliary head, "
            f"{where(result)})")
    return [(what, gains(result, NAMES))]


table, notes = steps_table, steps_notes

if __name__ == "__main__":
    main()
