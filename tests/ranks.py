"""Steps that processes take together, for `test_processes.py`: `python tests/ranks.py FOLDER RANK SIZE` runs all cases as one of SIZE, and
leaves what each case came to in the folder. A case is a function of the group, which the test calls with `ALONE` as well. (Searches
alone: nothing here is about scripts.) With `rest` behind it runs the cases that only the slow tests read."""

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.costs.agreed import Agreed
from supernet.data.base import Images
from supernet.data.crops import ResizedCrop
from supernet.data.loader import Forever, Loader
from supernet.data.text import TextLoader
from supernet.evaluators.shared_weights import SharedWeights
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.hypergradients.implicit import conjugate_gradient, neumann
from supernet.hypergradients.reinforce import reinforce
from supernet.hypergradients.single_level import single_level
from supernet.hypergradients.unrolled import unrolled
from supernet.monitors.base import Look
from supernet.monitors.eigenvalue import Eigenvalue
from supernet.monitors.freezing import OpFreezing
from supernet.monitors.layer_alignment import LayerAlignment as LayerAlignmentMonitor
from supernet.networks.stacked import batch_norms
from supernet.optim.averaging import ExponentialAverage
from supernet.optim.schedules import Constant
from supernet.penalties.alphas import BetaDecay
from supernet.penalties.layer_alignment import LayerAlignment
from supernet.processes.group import Group, digest
from supernet.processes.together import Drifted, Together
from supernet.relaxations.controller import Controller
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.perturbed import Adversarial
from supernet.relaxations.softmax import Softmax
from supernet.runs.interrupt import Interrupt
from supernet.select.argmax import argmax
from supernet.space import Space
from supernet.spaces import darts, darts_rnn, layerwise
from supernet.tasks.classification import Classification
from supernet.tasks.language_model import LanguageModel
from supernet.tasks.mixing import MixUpOrCutMix
from supernet.training.evaluate import evaluate
from supernet.training.final import FinalLoop
from supernet.training.guard import Diverged, Guard, first_nonfinite
from supernet.training.records import Generators, Position, Totals

IMAGES, BATCH = 15, 7  # the third batch has one image, fewer than there are processes


def loader(group: Group, seed: int, batch_size: int = BATCH, **how: Any) -> Loader:
    """Random images, not augmented but as `how` says, in an order of the seed."""
    g = torch.Generator().manual_seed(99)
    images = Images(torch.randint(256, (IMAGES, 2, 8, 8), generator=g, dtype=torch.uint8), torch.randint(3, (IMAGES,), generator=g))
    return Loader(images, torch.arange(IMAGES), batch_size=batch_size, transform=lambda x, generator: x.double() / 64 - 2,
                  generator=torch.Generator().manual_seed(seed), shuffle=True, drop_last=False, device="cpu", dtype=torch.float64,
                  group=group, **how)


def made(group: Group, relaxation_of: Any = Softmax, *, hypergradient: Any = first_order, synchronised: bool = True,
         task: Any = Classification(), penalty: Any = None, w_penalty: Any = None, layers: int = 1, affine: bool = False,  # noqa: B008
         net: Any = None, device: str = "cpu", **network: Any) -> tuple[Bilevel, Space]:
    """net: a space and its network, where they are not those of images."""
    if net is None:
        space = darts.make(nodes=1, ops=("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
        torch.manual_seed(0)
        net = space.network(space.candidates(), layers=layers, channels=4, num_classes=3, in_channels=2, image_size=(8, 8),
                            norm=Normalisation(affine, True), **network).double()
    else:
        space, net = net
    relaxation = relaxation_of(space, torch.Generator().manual_seed(0)).double().to(device)
    net = net.to(device)
    search = Bilevel(net, relaxation, hypergradient, task, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
                     torch.optim.Adam(relaxation.parameters(), lr=3e-3, weight_decay=1e-3),
                     Generators.from_seed(5, dict.fromkeys(("alpha", "net", "drawn"), torch.device("cpu"))), clip_norm=5.0,
                     penalties=() if penalty is None else (penalty(space),), w_penalties=() if w_penalty is None else (w_penalty(space),),
                     group=group)
    for norm in search.norms if synchronised and group.size > 1 else ():
        norm.across = group
    search.anneal(0.5, 1)
    return search, space


def states(search: Any) -> dict[str, Any]:
    """All that its steps have moved."""
    return {"net": search.net.state_dict(), "relaxation": search.relaxation.state_dict(), "w": search.w_optimizer.state_dict(),
            "alpha": search.alpha_optimizer.state_dict(), "memory": search.memory.state_dict(),
            "generators": {name: generator.get_state() for name, generator in search.generators.items()}}


def three_steps(**how: Any) -> Callable[[Group], dict[str, Any]]:
    def case(group: Group) -> dict[str, Any]:
        search, _ = made(group, **how)
        alpha_batches = Forever(loader(group, 2))
        sums = [search.step(batch, next(alpha_batches)) for batch in loader(group, 1)]
        return states(search) | {"sums": {name: torch.stack([s[name].double() for s in sums]) for name in ("loss", "correct", "count")}}

    return case


def normalised_edges(space: Any, generator: torch.Generator) -> EdgeNormalised:
    return EdgeNormalised(Softmax(space, generator), space, generator)


def adversarial(space: Any, generator: torch.Generator) -> Adversarial:
    return Adversarial(Softmax(space, generator), space, generator, steps=2)


EXACT: dict[str, Callable[[Group], dict[str, Any]]] = {
    "softmax": three_steps(),
    "gdas": three_steps(relaxation_of=GumbelHard),
    "dirichlet": three_steps(relaxation_of=Dirichlet),
    "pc_darts": three_steps(relaxation_of=normalised_edges, partial=2),
    "finite_difference": three_steps(hypergradient=finite_difference),
    "unrolled": three_steps(hypergradient=unrolled),
    "neumann": three_steps(hypergradient=partial(neumann, terms=1)),
    "conjugate_gradient": three_steps(hypergradient=partial(conjugate_gradient, iterations=2)),
    "single_level": three_steps(hypergradient=single_level, penalty=BetaDecay),
    "reinforce": three_steps(relaxation_of=Controller, hypergradient=partial(reinforce, samples=3)),
    "adversary": three_steps(relaxation_of=adversarial),
    "layer_alignment": three_steps(w_penalty=LayerAlignment, layers=3),
    "class_weights": three_steps(task=Classification(class_weights=[0.5, 1.0, 3.0], label_smoothing=0.1).for_classes([5, 5, 5],
                                                                                                                  torch.device("cpu"))),
    "affine": three_steps(affine=True),
}


def watched(monitor_of: Callable[[Space], Any], synchronised: bool = True, **how: Any) -> Callable[[Group], dict[str, Any]]:
    """Three steps under a monitor, and what it says of them as an epoch."""

    def case(group: Group) -> dict[str, Any]:
        search, space = made(group, synchronised=synchronised, **how)
        monitor, alpha_batches = monitor_of(space), Forever(loader(group, 2))
        monitor.before_epoch(search)
        for step, batch in enumerate(loader(group, 1)):
            val_batch = next(alpha_batches)
            search.step(batch, val_batch)
            monitor.after_step(search, batch, val_batch, step)
        mean = search.relaxation.mean().detach()
        look = Look(0, 2, argmax(space, mean), mean, search, [], {}, lambda n: loader(group, 3, BATCH if n is None else n))
        return states(search) | {"says": dict(monitor.after_epoch(look).values), "monitor": monitor.state_dict()}

    return case


def measured(group: Group) -> dict[str, Any]:
    """A cost that each process would find otherwise."""
    space = darts.make(nodes=1)
    genotype = space.sample(random.Random(0))
    cost = Agreed(SimpleNamespace(name="latency", unit="ms", __call__=None), group)
    cost.cost = lambda genotype: 1.5 + group.rank
    return {"cost": [cost(genotype), cost(genotype)]}


def evaluated(group: Group) -> dict[str, Any]:
    """Metrics of the whole part, of batches with fewer images than processes too."""
    search, _ = made(group, synchronised=False)
    return {"metrics": evaluate(search.net, search.task, loader(group, 4), lambda: search.relaxation.mean().detach(),
                                search.generators["net"], group=group)}


def sampled(group: Group) -> dict[str, Any]:
    """Architectures by shared weights, with recalibrated and with the batches' own statistics; and a population of chains."""
    batches = list(loader(group, 4))

    def shared(search: Bilevel, space: Space, statistics: Any) -> SharedWeights:
        return SharedWeights(search.net, space, search.task, batches, search.generators["net"], statistics=statistics, calibration=batches,
                             group=group)

    search, space = made(group)
    genotypes = [space.sample(random.Random(n)) for n in range(3)]
    found = {how: [m["loss"] for m in shared(search, space, how).stream(genotypes)] for how in ("recalibrated", "batch")}
    chains = layerwise.make(stages=[[1, 2]], kernels=[3], widths=[50, 100], dropouts=[0])
    torch.manual_seed(0)
    chain = chains.network(chains.candidates(), channels=4, num_classes=3, in_channels=2, norm=Normalisation(False, True), **chains.sizes)
    search, _ = made(group, net=(chains, chain.double()))
    asked = [chains.sample(random.Random(n)) for n in range(3)]
    population = itertools.chain(*shared(search, chains, "recalibrated").population([*asked, asked[0]]))
    return found | {"population": [m["loss"] for _, m in sorted(population, key=lambda one: one[0])]}


def taught(x: torch.Tensor) -> torch.Tensor:
    """A teacher: what it says depends on every pixel."""
    return torch.stack([(x * w).flatten(1).sum(1) for w in (0.1, -0.2, 0.3)], 1)


def trained(task: Classification, synchronised: bool = True, compiled: bool = False) -> Callable[[Group], dict[str, Any]]:
    """Three steps of a final network, and the evaluation of its average. compiled: traced as for compile=inductor, but computed by PyTorch
    without a compiler of C++, which takes minutes."""

    def case(group: Group) -> dict[str, Any]:
        space = darts.make(nodes=1)
        torch.manual_seed(0)
        net = space.network(space.candidates(space.sample(random.Random(3))), layers=2, channels=4, num_classes=3, in_channels=2,
                            image_size=(8, 8), norm=Normalisation(True, True), auxiliary=True).double()
        for norm in batch_norms(net) if synchronised and group.size > 1 else ():
            norm.across = group
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        loop = FinalLoop(net, task, optimizer, loader(group, 1, 5), loader(group, 4), None, 0.05, Constant(), 0.0, 5.0,
                         Generators.from_seed(0, {"net": torch.device("cpu")}), lambda *seen: None, Totals(torch.device("cpu")), Position(),
                         average=ExponentialAverage(), group=group, call=torch.compile(net, backend="aot_eager") if compiled else None)
        stats = [loop.step(batch) for batch in loop.train]
        with loop.evaluated():
            val = loop.evaluate(loop.val)
        return {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "loss": [float(s["loss"]) for s in stats],
                "average": loop.average.state_dict(), "val": val}

    return case


def text(group: Group, seed: int, rows: int = 5) -> TextLoader:
    """A random text in so many rows, read in windows of drawn lengths: by two processes three rows and two."""
    items = torch.randint(7, (rows * 28 + 3,), generator=torch.Generator().manual_seed(seed))
    return TextLoader(items, rows, 8, generator=torch.Generator().manual_seed(seed), random_lengths=True, device=torch.device("cpu"),
                      group=group)


def language(space: Space, genotype: Any = None, **how: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return space.network(space.candidates(genotype), layers=1, channels=4, vocabulary=7, norm=Normalisation(False, True), **how).double()


LANGUAGE = LanguageModel(item="character", bptt=8, activation=0.3, temporal=0.7)


def text_steps(rows: int = 5, synchronised: bool = True, **how: Any) -> Callable[[Group], dict[str, Any]]:
    """A pass over a text, each step going on from the state of the one before, and an evaluation."""

    def case(group: Group) -> dict[str, Any]:
        space = darts_rnn.make(nodes=2)
        net = language(space, batch_norm=True)
        search, _ = made(group, task=LANGUAGE, synchronised=synchronised, net=(space, net), **how)
        alpha_batches = Forever(text(group, 2, rows))
        sums = [search.step(batch, next(alpha_batches)) for batch in text(group, 1, rows)]
        held_out = evaluate(net, LANGUAGE, text(group, 3, rows), lambda: search.relaxation.mean().detach(), search.generators["net"],
                            group=group)
        return states(search) | {"streams": search.streams.state_dict(), "loss": [float(s["loss"]) for s in sums], "val": held_out}

    return case


def text_trained(group: Group) -> dict[str, Any]:
    """A final recurrent network on a text, in one pass."""
    space = darts_rnn.make(nodes=2)
    net = language(space, space.sample(random.Random(0)), batch_norm=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    loop = FinalLoop(net, LANGUAGE, optimizer, text(group, 1), text(group, 4), None, 0.05, Constant(), 0.0, 0.25,
                     Generators.from_seed(0, {"net": torch.device("cpu")}), lambda *seen: None, Totals(torch.device("cpu")), Position(),
                     group=group)
    stats = [loop.step(batch) for batch in loop.train]
    return {"net": net.state_dict(), "streams": loop.streams.state_dict(), "loss": [float(s["loss"]) for s in stats],
            "val": loop.evaluate(loop.val)}


def weighing() -> Classification:
    return Classification(class_weights=[0.5, 1.0, 3.0], mixing=MixUpOrCutMix(), label_smoothing=0.1).for_classes(
        [5, 5, 5], torch.device("cpu"))


EXACT |= {
    "op_freezing": watched(lambda space: OpFreezing(space, count=1, threshold=-0.03, agreement="cosine")),
    "alignment_monitor": watched(lambda space: LayerAlignmentMonitor(space), layers=3),
    "eigenvalue": watched(lambda space: Eigenvalue(space, iterations=2)),
    "evaluation": evaluated,
    "shared_weights": sampled,
    "final": trained(Classification(auxiliary_weight=0.4, label_smoothing=0.1)),
    "text": text_steps(hypergradient=finite_difference),
    "text_in_few_rows": text_steps(rows=2),
    "text_final": text_trained,
    "final_with_a_teacher": trained(Classification(auxiliary_weight=0.4).taught_by(taught, 2.0, 0.5)),
}
DRIFT: dict[str, Callable[[Group], dict[str, Any]]] = {  # equal in all processes, and not what one process computes
    "local_norms": three_steps(synchronised=False, hypergradient=finite_difference),
    "freezing_by_local_norms": watched(lambda space: OpFreezing(space, count=1, threshold=-0.03, agreement="cosine"), synchronised=False),
    "adversary_by_local_norms": three_steps(synchronised=False, relaxation_of=adversarial),
    "text_by_local_norms": text_steps(synchronised=False),
    "final_by_local_norms": trained(Classification(auxiliary_weight=0.4), synchronised=False),
    "final_compiled": trained(Classification(auxiliary_weight=0.4), synchronised=False, compiled=True),
    "final_mixed": trained(weighing(), synchronised=False),
    "measured_cost": measured,
}


def cropped(group: Group) -> list[list[torch.Tensor]]:
    """Images that count of each batch of two passes, cut and mirrored."""
    batches = loader(group, 1, alternate_flips=True, crop=ResizedCrop(), side=4)
    return [[images[: getattr(batch, "own", None)] for batch in batches for images in batch[:1]] for _ in range(2)]


def diverging(group: Group) -> str:
    """What is said where the numbers of the last process alone are not finite."""
    search, _ = made(group)
    position = Position(1, 7)
    search.guard = Guard(search.net, torch.device("cpu"), 1, position, lambda batch, otherwise: first_nonfinite(
        search.net, search.relaxation.mean().detach(), batch, otherwise, generator=search.generators["net"]), group)
    (batch, *_) = loader(group, 1)
    if group.rank == group.size - 1:
        batch[0].fill_(float("nan"))
    try:
        search.w_step(batch)
    except Diverged as error:
        return str(error)
    return "nothing"


def drifting(group: Group) -> str:
    """What is said where a tensor of one process alone differs by a bit."""
    state = {"relaxation": torch.zeros(3, dtype=torch.float64)}
    group.check_same(lambda: {name: digest(value) for name, value in state.items()})
    if group.rank == group.size - 1:
        state["relaxation"][1] = 5e-324
    try:
        group.check_same(lambda: {"net": digest(0), **{name: digest(value) for name, value in state.items()}})
    except Drifted as error:
        return str(error)
    return "nothing"


def asked_to_stop(group: Group) -> list[Any]:
    """What a process makes of a checkpoint that is due by the clock of the first one, and then of a signal to the last one."""
    interrupt = Interrupt()
    found: list[Any] = [interrupt.agreed(group, due=group.leads)]
    if group.rank == group.size - 1:
        interrupt.signal = 15
    return [*found, interrupt.agreed(group), interrupt.exit_code]


def traffic(group: Group, **how: Any) -> dict[str, list[int]]:
    """Bytes and messages of a step, beside the numbers of weights, alphas and normalised channels."""
    search, _ = made(group, synchronised=False, **how)
    batch = next(iter(loader(group, 1)))
    search.step(batch, batch)
    before = group.traffic
    search.step(batch, batch)
    return {"seen": [now - then for now, then in zip(group.traffic, before)],
            "sizes": [sum(p.numel() for p in search.w), sum(a.numel() for a in search.alpha), sum(n.channels for n in search.norms)]}


HEART = {"softmax", "gdas", "dirichlet", "pc_darts", "finite_difference", "unrolled", "class_weights", "evaluation", "final",
         "final_with_a_teacher", "text", "text_final", "local_norms", "final_mixed", "measured_cost"}


def found_by(size: int, folder: Path, *words: str) -> list[dict[str, Any]]:
    """What each of several processes found, started once for many cases."""
    started = [subprocess.Popen([sys.executable, __file__, str(folder), str(rank), str(size), *words], stderr=subprocess.PIPE,
                                text=True) for rank in range(size)]
    try:
        said = [process.communicate(timeout=500)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, "\n".join(said)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(size)]


def numbers(value: Any, at: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor and number of nested data, as float64, by where it stands. What the network would draw is left out: each process makes
    its own draws of it, so that the source moves where nothing is drawn too."""
    if torch.is_tensor(value):
        yield at, value.double()
    elif isinstance(value, dict):
        for key, part in value.items():
            if at.endswith(".generators") and key == "net":
                continue
            yield from numbers(part, f"{at}.{key}")
    elif isinstance(value, list | tuple):
        for n, part in enumerate(value):
            yield from numbers(part, f"{at}.{n}")
    elif isinstance(value, float | int):
        yield at, torch.tensor(float(value), dtype=torch.float64)


def main(folder: Path, rank: int, size: int, rest: bool) -> None:
    torch.set_num_threads(1)
    group = Together(rank, size, dist.FileStore(str(folder / "store"), size), patience_s=120)
    found: dict[str, Any] = {name: case(group) for name, case in (EXACT | DRIFT).items() if (name in HEART) is not rest}
    found |= {} if rest else {
              "diverging": diverging(group), "drifting": drifting(group), "largest": group.largest(3.0 - rank, rank),
              "texts": group.texts(f"of {rank}"), "asked_to_stop": asked_to_stop(group), "traffic": traffic(group),
              "traffic twice": traffic(group, hypergradient=finite_difference),
              "parts": [[batch.own, batch.total, len(batch[1])] for batch in loader(group, 1)], "cropped": cropped(group)}
    group.leave()
    found["threads"] = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["rest"])
