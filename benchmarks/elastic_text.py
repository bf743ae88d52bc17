"""One transformer supernet on a text, and three of its sizes each trained alone: bits per character of the test text.

    python -m benchmarks.elastic_text --text tinyshakespeare.txt --minutes 20 --json benchmarks/results/elastic_text.json

The supernet (space gpt, one set of weights) is trained for so many minutes by the sandwich rule: in every step the largest network learns
from the text, the smallest and two drawn ones from its probabilities. Then its smallest, middle and largest networks are evaluated with
these weights, as they are. Each of the three is also trained alone, from its own first weights, with batches of the same size, the same
learning rate and schedule, for as many characters as the supernet has seen in all: those of every step, once for each of the networks that
ran in it. So each of them gets four times the supernet's steps, and together they take about three times as long as the supernet.

All weights are looked at so often on the validation text, and those of the least loss count: the supernet's by the mean of the three sizes.
A sequence is read by itself, so that its first characters are told from few.
"""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import supernet
from supernet.bilevel import Bilevel
from supernet.costs.base import FINAL
from supernet.costs.chain import chain_costs
from supernet.data.base import DataError
from supernet.data.loader import Forever, Loading
from supernet.data.text import Text
from supernet.genotype import Edge, Genotype
from supernet.hypergradients.first_order import first_order
from supernet.networks.build import initial_weights
from supernet.optim.schedules import CosineAfterRise
from supernet.passes import Sandwich, extremes
from supernet.relaxations.uniform import Uniform
from supernet.runs.environment import describe
from supernet.runs.folder import write_json
from supernet.space import Space
from supernet.spaces import gpt
from supernet.tasks.language_model import LanguageModel
from supernet.training.evaluate import evaluate
from supernet.weights import EdgeWeights, one_hot

LR, CLIP, SCHEDULE = 2e-3, 1.0, CosineAfterRise(minimum=1e-4)
SEQUENCES, CONTEXT, LOOKS, TIMED = 32, 128, 10, 5  # in a batch; characters; on the validation text; steps that tell how long one takes
DEVICE = torch.device("cpu")


def sizes_of(space: Space, cost: Callable[[Genotype], float]) -> dict[str, Genotype]:
    """The smallest and the largest network by multiply-adds, and that of the middle choices."""
    smallest, largest = extremes(space, cost)
    middle = space.genotype({kind: [Edge(d, s, spec.ops[len(spec.ops) // 2]) for s, d in spec.edges] for kind, spec in space.cells.items()})
    return {"smallest": smallest, "middle": middle, "largest": largest}


class Reading:
    """The text, and what is asked of networks on it."""

    def __init__(self, path: Path):
        self.data = Text(name="text", path=str(path), bptt=CONTEXT, random_lengths=False)
        self.data.check()
        self.task = LanguageModel(item="character", bptt=CONTEXT)
        self.loading = Loading(SEQUENCES, 64, DEVICE)
        self.val = self._loaders(0).val_eval

    def batches(self, seed: int) -> Forever:
        return Forever(self._loaders(seed).train)

    def _loaders(self, seed: int) -> Any:
        generators = {name: torch.Generator().manual_seed(seed) for name in ("train", "val")}
        return self.data.search(self.loading, split={"max_train": None, "max_val": None}, augment_val=False, generators=generators)

    def bits(self, net: nn.Module, part: Any, weights: EdgeWeights | None = None) -> float:
        """A character, on the validation or test text."""
        return evaluate(net, self.task, part, lambda: weights, torch.Generator())["loss"] / math.log(2)


def trained(net: nn.Module, steps: int, step: Callable[[], None], optimizer: torch.optim.Optimizer, look: Callable[[], float],
            what: str) -> list[tuple[int, float]]:
    """Steps along the schedule, with looks; `net` then has the weights of the least. Gives the looks: step, bits."""
    seen, kept = [], {}
    for n in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = SCHEDULE(LR, n, steps)
        step()
        if (n + 1) * LOOKS // steps > n * LOOKS // steps:
            seen.append((n + 1, look()))
            if seen[-1][1] == min(bits for _, bits in seen):
                kept = {name: value.clone() for name, value in net.state_dict().items()}
            print(f"{what:9} step {n + 1:6} of {steps}: {seen[-1][1]:.3f} bits per character of the validation text", flush=True)
    net.load_state_dict(kept)
    return seen


def train_supernet(space: Space, reading: Reading, sizes: Mapping[str, Genotype], minutes: float, steps: int | None, draws: int,
                   seed: int, dropout: float) -> tuple[nn.Module, dict[str, Any]]:
    vocabulary = reading.data.sizes["vocabulary"]
    with initial_weights(seed):
        net = space.network(space.candidates(), norm=FINAL, **space.sizes, vocabulary=vocabulary, dropout=dropout)
    generators = {name: torch.Generator().manual_seed(seed + n) for n, name in enumerate(("alpha", "net"))}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)  # the steps that tell the time change no weights
    search = Bilevel(net, Uniform(space, generators["alpha"]), first_order, reading.task, optimizer, None, generators, clip_norm=CLIP,
                     passes=Sandwich(space, net, draws=draws))
    batches = reading.batches(seed)

    def step() -> None:
        net.train()
        search.w_step(next(batches))

    began = time.perf_counter()
    for _ in range(TIMED):
        step()
    optimizer.state.clear()
    steps = steps or max(LOOKS, round(60 * minutes / ((time.perf_counter() - began) / TIMED)))
    hot = [one_hot(space, genotype) for genotype in sizes.values()]
    began = time.perf_counter()
    looks = trained(net, steps, step, optimizer, lambda: sum(reading.bits(net, reading.val, w) for w in hot) / len(hot), "supernet")
    passes = 2 + draws
    return net, {"steps": steps, "passes": passes, "characters": steps * passes * SEQUENCES * CONTEXT, "looks": looks,
                 "seconds": time.perf_counter() - began}


def train_alone(space: Space, reading: Reading, genotype: Genotype, steps: int, seed: int, dropout: float,
                what: str) -> tuple[nn.Module, dict[str, Any]]:
    with initial_weights(seed):
        net = space.network(space.candidates(genotype), norm=FINAL, **space.sizes, vocabulary=reading.data.sizes["vocabulary"],
                            dropout=dropout)
    optimizer, batches = torch.optim.Adam(net.parameters(), lr=LR), reading.batches(seed)
    generator = torch.Generator().manual_seed(seed)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        reading.task(net.train(), next(batches), generator=generator).loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()

    began = time.perf_counter()
    looks = trained(net, steps, step, optimizer, lambda: reading.bits(net, reading.val), what)
    return net, {"steps": steps, "characters": steps * SEQUENCES * CONTEXT, "looks": looks, "seconds": time.perf_counter() - began}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'size':10}{'parameters':>12}{'multiply-adds':>15}{'shared weights':>16}{'alone':>8}{'difference':>12}"]
    lines += [f"{row['size']:10}{row['parameters']:12,}{row['multiply_adds']:15,}{row['shared']:16.3f}{row['alone']:8.3f}"
              f"{row['shared'] - row['alone']:+12.3f}" for row in rows]
    return "\n".join([*lines, "(bits per character of the test text; multiply-adds of a character in a full context)"])


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="a file of text: 90 %% trains, 5 %% is looked at, 5 %% tests")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the supernet's training")
    parser.add_argument("--steps", type=int, help="of that, in place of minutes: the same on every machine")
    parser.add_argument("--draws", type=int, default=2, help="networks drawn for a step, beside the smallest and the largest")
    parser.add_argument("--dropout", type=float, default=0.0, help="in all trainings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file, after every training")
    given = parser.parse_args(argv)
    if given.minutes <= 0 or (given.steps is not None and given.steps < LOOKS):
        parser.error(f"--minutes must be positive, and --steps at least {LOOKS}")
    supernet.use(threads=given.threads)
    space = gpt.make(context=CONTEXT)
    try:
        reading = Reading(given.text)
    except DataError as error:
        parser.error(str(error))
    costs = chain_costs(space, **space.sizes, **reading.data.sizes)
    sizes = sizes_of(space, costs["multiply_adds"])
    test = reading.data.test(reading.loading)
    net, found = train_supernet(space, reading, sizes, given.minutes, given.steps, given.draws, given.seed, given.dropout)
    print(f"supernet: {found['steps']} steps of {found['passes']} networks, {found['characters']:,} characters in all, "
          f"{found['seconds']:.0f} s", flush=True)
    names = {str(path): path.name for path in (given.text, given.json) if path is not None}  # where they lie is nobody's business
    told = [names.get(word, word) for word in argv]
    result: dict[str, Any] = {"command": shlex.join(["python", "-m", "benchmarks.elastic_text", *told]), "text": given.text.name,
                              "space": {"name": space.name, "arguments": dict(space.arguments)}, "supernet": found, "rows": [],
                              "environment": describe(DEVICE)}
    for name, genotype in sizes.items():
        alone, trainings = train_alone(space, reading, genotype, found["steps"] * found["passes"], given.seed, given.dropout, name)
        result["rows"].append({"size": name, "genotype": space.text(genotype),
                               **{quantity: round(cost(genotype)) for quantity, cost in costs.items()},
                               "shared": reading.bits(net, test, one_hot(space, genotype)), "alone": reading.bits(alone, test),
                               "training_alone": trainings})
        if given.json is not None:
            write_json(given.json, result)
    print(f"\n{table(result['rows'])}")


if __name__ == "__main__":
    main()
