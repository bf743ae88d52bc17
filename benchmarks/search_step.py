"""Time and memory of a search step beside the published loop: `python -m benchmarks.search_step`, from the repository root.

Three steps on the DARTS supernet, float32, noise for images: `w` (weight step), `alpha` (first order), `second` (second order
by a finite difference). Ours is the bundled network in channels_last, as `train_search.py` runs it, once for each backend asked for
(`plain`, `native`). The reference is the edge-by-edge network of `tests/reference.py` in NCHW, under the loop of quark0/darts without its
data loading and accuracies. All compute the same mathematics from the same weights; their losses are compared before anything is timed.

All run in one process, alternating, the first of a round changing from round to round. Times are medians over the rounds, a
ratio is the median of the rounds' ratios (reference / ours). Peak memory is measured in a step of its own: on the CPU the
bytes of live tensors of that side (without the few hundred KiB of scratch that each thread of the native kernels keeps); on a GPU what is
allocated, with the other sides' parameters at rest.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    from tests.reference import ReferenceNetwork, like
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run from the repository root, as python -m benchmarks.search_step") from None

from ops import kernels
from supernet import setup
from supernet.bilevel import Bilevel
from supernet.environment import describe, resolve_device
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.measure import parameters, peak_memory
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts
from supernet.task import Batch, Classification
from supernet.weights import EdgeWeights, Weights

STEPS = ("w", "alpha", "second")
REFERENCE = "reference"
CLASSES = 10
W_OPTIMIZER = {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4}  # ours is fused besides, as conf/optimizer/sgd.yaml has it
ALPHA_OPTIMIZER = {"lr": 3e-4, "betas": (0.5, 0.999), "weight_decay": 1e-3}
CLIP_NORM = 5.0
SAME_LOSS = 1e-4  # relative, float32


@dataclass(frozen=True)
class Sizes:
    cells: int
    channels: int
    batch: int
    image_size: int


@dataclass(frozen=True)
class Side:
    """One of the two implementations. `losses` are those of the training and the validation batch as the weights stand."""

    net: nn.Module
    alpha: Sequence[Tensor]
    optimizers: tuple[torch.optim.SGD, torch.optim.Adam]
    batches: tuple[Batch, Batch]
    losses: Callable[[], tuple[Tensor, Tensor]]
    steps: Mapping[str, Callable[[], object]]

    def held(self) -> Iterator[Tensor]:
        """The tensors that live between steps."""
        for p in (*self.net.parameters(), *self.alpha):
            yield p
            if p.grad is not None:
                yield p.grad
        yield from self.net.buffers()
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                yield from (value for value in state.values() if torch.is_tensor(value))
        for batch in self.batches:
            yield from batch


class PublishedLoop:
    """The steps of quark0/darts (cnn/train_search.py, cnn/architect.py) on the reference network.

    As there, every backward pass reaches both the weights and the alphas, whichever of them is updated, and the second order
    builds a new network at each step, `new`, and loads the weights after a virtual step into it.
    """

    def __init__(self, net: nn.Module, new: Callable[[], nn.Module], alpha: Mapping[str, Tensor], train: Batch, val: Batch):
        self.net, self.new, self.alpha, self.train, self.val = net, new, alpha, train, val
        self.sgd = torch.optim.SGD(net.parameters(), **W_OPTIMIZER)
        self.adam = torch.optim.Adam(alpha.values(), **ALPHA_OPTIMIZER)

    def loss(self, net: nn.Module, batch: Batch) -> Tensor:
        weights = EdgeWeights({kind: Weights(alpha.softmax(-1)) for kind, alpha in self.alpha.items()})
        return F.cross_entropy(net(batch[0], weights), batch[1])

    def loss_now(self, batch: Batch) -> Tensor:
        return self.loss(self.net, batch)

    def w_step(self) -> None:
        self.sgd.zero_grad()
        self.loss_now(self.train).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        self.sgd.step()

    def alpha_step(self) -> None:
        self.adam.zero_grad()
        self.loss_now(self.val).backward()
        self.adam.step()

    def second_order_step(self) -> None:
        self.adam.zero_grad()
        unrolled = self._unrolled()
        self.loss(unrolled, self.val).backward()
        products = self._hessian_product([p.grad for p in unrolled.parameters()])
        for alpha, product in zip(self.alpha.values(), products, strict=True):
            alpha.grad.sub_(product, alpha=W_OPTIMIZER["lr"])
        self.adam.step()

    def _unrolled(self) -> nn.Module:
        """A new network whose weights are those after one step of SGD."""
        w = list(self.net.parameters())
        gradient = _concat(torch.autograd.grad(self.loss_now(self.train), w))
        theta = _concat(w).detach()
        moment = _concat([self.sgd.state.get(p, {}).get("momentum_buffer", torch.zeros_like(p)) for p in w])
        step = W_OPTIMIZER["momentum"] * moment + gradient + W_OPTIMIZER["weight_decay"] * theta
        stepped = theta.sub(step, alpha=W_OPTIMIZER["lr"]).split([p.numel() for p in w])
        values = {name: value.view_as(p) for (name, p), value in zip(self.net.named_parameters(), stepped, strict=True)}
        unrolled = self.new()
        unrolled.load_state_dict(self.net.state_dict() | values)
        return unrolled

    def _hessian_product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """The mixed second derivative of the training loss times `v`, by a central difference around the weights."""
        radius = 1e-2 / _concat(v).norm()
        ahead = self._slope(radius, v)
        behind = self._slope(-2 * radius, v)
        self._move(radius, v)
        return [(p - n) / (2 * radius) for p, n in zip(ahead, behind, strict=True)]

    def _slope(self, distance: Tensor, v: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self._move(distance, v)
        return torch.autograd.grad(self.loss_now(self.train), list(self.alpha.values()))

    @torch.no_grad()
    def _move(self, distance: Tensor, v: Sequence[Tensor]) -> None:
        for p, direction in zip(self.net.parameters(), v, strict=True):
            p.add_(distance * direction)


def _concat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def make_sides(sizes: Sizes, device: torch.device, dtype: torch.dtype = torch.float32,
               backends: Sequence[str] = ("plain",)) -> dict[str, Side]:
    """The reference, and ours by backend, with equal weights, alphas and batches."""
    space = darts.make()
    candidates = space.candidates()
    norm = setup.search_normalisation(pool_norm="search", bn_statistics="running")
    with setup.initial_weights(0):
        net = space.network(candidates, layers=sizes.cells, channels=sizes.channels, num_classes=CLASSES, norm=norm).to(dtype)
        reference = like(net, space.cells, candidates, sizes.channels, CLASSES).to(device)
    net = net.to(device, memory_format=torch.channels_last)
    relaxation = Softmax(space, torch.Generator().manual_seed(0)).to(device, dtype)
    draw = torch.Generator().manual_seed(1)
    batches = (_noise(sizes, draw, device, dtype), _noise(sizes, draw, device, dtype))

    def new() -> nn.Module:
        made = ReferenceNetwork(space.cells, candidates, net.kinds, sizes.channels, CLASSES, affine=False, pool_bn=True)
        return made.to(device, dtype)

    ours = {backend: _ours(copy.deepcopy(net), copy.deepcopy(relaxation), batches, backend) for backend in backends}
    return {REFERENCE: _reference(reference, new, relaxation, batches), **ours}


def _noise(sizes: Sizes, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Batch:
    images = torch.randn(sizes.batch, 3, sizes.image_size, sizes.image_size, generator=generator, dtype=dtype)
    return images.to(device), torch.randint(CLASSES, (sizes.batch,), generator=generator).to(device)


def _ours(net: nn.Module, relaxation: Softmax, batches: tuple[Batch, Batch], backend: str) -> Side:
    train, val = ((x.to(memory_format=torch.channels_last), y) for x, y in batches)
    sgd = torch.optim.SGD(net.parameters(), **W_OPTIMIZER, fused=True)
    adam = torch.optim.Adam(relaxation.parameters(), **ALPHA_OPTIMIZER)
    generators = {"alpha": torch.Generator(), "net": torch.Generator(train[0].device)}
    first = Bilevel(net, relaxation, first_order, Classification(), sgd, adam, generators, clip_norm=CLIP_NORM)
    second = replace(first, hypergradient=finite_difference)
    problem = first.problem(train, val)

    def by_backend(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            kernels.use(backend)
            try:
                return call()
            finally:
                kernels.use("plain")

        return run

    steps = {"w": by_backend(lambda: first.w_step(train)), "alpha": by_backend(lambda: first.alpha_step(train, val)),
             "second": by_backend(lambda: second.alpha_step(train, val))}
    losses = by_backend(lambda: (problem.train_loss(), problem.val_loss()))
    return Side(net, first.alpha, (sgd, adam), (train, val), losses, steps)


def _reference(net: nn.Module, new: Callable[[], nn.Module], relaxation: Softmax, batches: tuple[Batch, Batch]) -> Side:
    alpha = {kind: p.detach().clone().requires_grad_() for kind, p in relaxation.alpha.items()}
    loop = PublishedLoop(net, new, alpha, *batches)
    steps = {"w": loop.w_step, "alpha": loop.alpha_step, "second": loop.second_order_step}
    return Side(net, list(alpha.values()), (loop.sgd, loop.adam), batches, lambda: tuple(map(loop.loss_now, batches)), steps)


def check_losses(sides: Mapping[str, Side]) -> dict[str, dict[str, float]]:
    """The losses of each side. Raises RuntimeError where they differ from the reference's by more than `SAME_LOSS`."""
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        values = {name: [loss.item() for loss in side.losses()] for name, side in sides.items()}
    losses = {name: {"train": train, "val": val} for name, (train, val) in values.items()}
    for name, own in losses.items():
        for batch, ours in own.items():
            theirs = losses[REFERENCE][batch]
            if not abs(ours - theirs) <= SAME_LOSS * abs(theirs):
                raise RuntimeError(f"the {batch} losses must agree to {SAME_LOSS}, got {ours} ({name}) and {theirs} (reference)")
    return losses


def seconds(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall time and process CPU time of one step."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(sides: Mapping[str, Side], step: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Medians, and every round's times, of one kind of step. Updates the weights or the alphas of all sides."""
    peaks = {}
    for name, side in sides.items():
        side.steps[step]()  # warms up
        peaks[name] = peak_memory(side.steps[step], device, side.held())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(list(sides)):
            times[name].append(seconds(sides[name].steps[step], device))
    result: dict[str, Any] = {name: _summary(times[name], peaks[name]) for name in sides}
    for name in sides:
        if name != REFERENCE:
            pairs = list(zip(times[name], times[REFERENCE], strict=True))  # a round's (wall, cpu) of ours, and of the reference
            wall, cpu = (statistics.median(theirs[clock] / ours[clock] for ours, theirs in pairs) for clock in (0, 1))
            result[name]["ratio"] = {"wall": wall, "cpu": cpu, "memory": peaks[REFERENCE] / peaks[name]}
    return result


def _summary(times: Sequence[tuple[float, float]], peak: int) -> dict[str, Any]:
    wall, cpu = zip(*times, strict=True)
    return {"wall_s": statistics.median(wall), "cpu_s": statistics.median(cpu), "peak_bytes": peak,
            "rounds": {"wall_s": wall, "cpu_s": cpu}}


HEADER = f"{'step':8}{'':10}{'wall s':>9}{'CPU s':>9}{'MiB':>9}   reference / it:{'wall':>7}{'CPU':>7}{'MiB':>7}"


def row(step: str, result: Mapping[str, Any]) -> str:
    """A line for each side."""
    lines = []
    for name, side in result.items():
        ratios = "".join(f"{ratio:7.2f}" for ratio in side.get("ratio", {}).values())
        lines.append(f"{step:8}{name:10}{side['wall_s']:9.3f}{side['cpu_s']:9.3f}{side['peak_bytes'] / 2**20:9.1f}{'':18}{ratios}".rstrip())
    return "\n".join(lines)


def _some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        wanted = text.split(",")
        if not set(wanted) <= set(known):
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, got {text!r}")
        return tuple(name for name in known if name in wanted)

    return parse


def _backends(wanted: Sequence[str] | None, device: torch.device) -> tuple[str, ...]:
    """Those asked for; else all that work here. Raises ValueError."""
    if device.type != "cpu" and "native" in (wanted or ()):
        raise ValueError(f"--backend native computes on the CPU, got --device {device}")
    if wanted is None:
        best = kernels.use("auto").name if device.type == "cpu" else "plain"
        return tuple(dict.fromkeys(("plain", best)))
    for name in wanted:
        kernels.use(name)
    return tuple(wanted)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--only", type=_some_of(STEPS), default=STEPS, help="some of w,alpha,second")
    parser.add_argument("--backend", type=_some_of(("plain", "native")), help="some of plain,native; by default all that work here")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    try:
        device = resolve_device(options.device)
        backends = _backends(options.backend, device)
    except ValueError as error:
        parser.error(str(error))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    setup.prepare(device, threads=options.threads, deterministic=False)
    sizes = Sizes(options.cells, options.channels, options.batch, options.image_size)
    sides = make_sides(sizes, device, backends=backends)
    result = {"sizes": asdict(sizes), "parameters": parameters(sides[backends[0]].net), "backends": list(backends),
              "rounds": options.rounds, "environment": describe(device), "losses": check_losses(sides), "steps": {}}
    print(HEADER)
    for step in options.only:
        result["steps"][step] = measure(sides, step, options.rounds, device)
        print(row(step, result["steps"][step]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
