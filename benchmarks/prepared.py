"""Launches of a GPU that the choices prepared for one save, by counting: `python -m benchmarks.prepared`, from the repository root.

No GPU is needed and nothing is timed but the weights' update on the processor. Operations are the calls that PyTorch dispatches and that
compute; launches are what they take on a GPU at the least, calls on lists of tensors cut into pieces as PyTorch's kernels are
(`counting.launches_of`). Triton's launches are counted where they begin, and not computed.

`update`: clipping and the step of SGD of w, over a list of tensors and flat (`flat_weights`), as eager steps on a GPU take it (lists) and
as captured ones do (fused). `images`: a batch's augmentation, and as a graph (`graph_augmentation`). `checkpointed`: a weight step whose
cells are computed again, plain and with Triton kernels. `sampled`: an eager weight step of GDAS beside one that runs all ops, as one graph
for all draws would; and how many draws a graph takes (`sampled_graphs`), by how sure the most likely op of each edge is.
"""

import argparse
import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

try:
    from benchmarks.compare import begun, parser_for, prepared, seconds, write
    from benchmarks.counting import Kernels
    from benchmarks.sides import ALPHA_OPTIMIZER, CLIP_NORM, METHODS, SPACES, W_OPTIMIZER, Sizes, noise, supernet
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run from the repository root, as python -m benchmarks.prepared") from None
from ops import kernels
from supernet.bilevel import Bilevel
from supernet.data.augment import Augment
from supernet.hypergradients.first_order import first_order
from supernet.optim.descent import descend
from supernet.optim.flat import FlatDescent
from supernet.optim.optimizers import make_static
from supernet.tasks.classification import Classification

PARTS = ("update", "images", "checkpointed", "sampled")
CPU = torch.device("cpu")
SUPERNETS = {"darts": Sizes(8, 16, 2, 32), "nasbench201": Sizes(17, 16, 2, 32)}
CASES = (("darts", "softmax"), ("nasbench201", "softmax"), ("darts", "gdas"), ("nasbench201", "gdas"))
KEPT, WARM_UP = (64, 1024), 3  # graphs kept; draws of a set before it has a graph
EPOCHS, STEPS = 40, 391  # of a simulation
SURE = (0.25, 0.5, 0.8, 0.9, 0.95, 0.99)  # the probability of an edge's most likely op


class Launched(Kernels):
    """Operations and launches of what runs within, Triton's too."""

    def __init__(self) -> None:
        super().__init__()
        self.triton = 0

    def found(self) -> dict[str, int]:
        return {"operations": self.count.total() + self.triton, "launches": self.launched.total() + self.triton}


@contextmanager
def triton_counted(mode: Launched) -> Iterator[None]:
    """Within, Triton's kernels compute on any device: that is, they are counted and leave what they were to write as it is."""
    from triton.runtime.jit import KernelInterface

    from ops.kernels import triton_kernels

    def launched(*arguments: Any, **options: Any) -> None:
        mode.triton += 1

    before = KernelInterface.__getitem__, triton_kernels.computes, kernels._fused
    KernelInterface.__getitem__ = lambda kernel, grid: launched
    triton_kernels.computes, kernels._fused = (lambda x: x.dim() == 4 and x.stride(1) == 1), triton_kernels
    try:
        yield
    finally:
        KernelInterface.__getitem__, triton_kernels.computes, kernels._fused = before


def counted(step: Callable[[], object], triton: bool = False) -> dict[str, int]:
    """Of one step."""
    mode = Launched()
    if triton:
        with triton_counted(mode), mode:
            step()
    else:
        with mode:
            step()
    return mode.found()


def search_of(space: str, method: str, sizes: Sizes, *, flat: bool = False, static: bool = False, **network: Any) -> tuple[Bilevel, Any]:
    """A search with a batch of its own, in which every weight has moved before. Its steps are those of a GPU: over lists, or static."""
    made, how = SPACES[space](), METHODS[method]
    net = supernet(made, sizes, how, torch.float32, **network).to(memory_format=torch.channels_last)
    relaxation = how.relaxation(made, torch.Generator().manual_seed(0))
    sgd = torch.optim.SGD(net.parameters(), **W_OPTIMIZER, foreach=True)
    generators = {"alpha": torch.Generator().manual_seed(1), "net": torch.Generator().manual_seed(2)}
    search = Bilevel(net, relaxation, first_order, Classification(), sgd, torch.optim.Adam(relaxation.parameters(), **ALPHA_OPTIMIZER),
                     generators, clip_norm=CLIP_NORM, descend=FlatDescent(sgd) if flat else descend)
    x, y = noise(sizes, torch.Generator().manual_seed(3), CPU, torch.float32)
    batch = x.contiguous(memory_format=torch.channels_last), y
    search.w_step(batch, relaxation.mean().detach())
    if static:
        make_static(sgd)
    return search, batch


def update(space: str, method: str, sizes: Sizes, static: bool, rounds: int) -> dict[str, Any]:
    """Clipping and step of one draw, before: over a list, after: flat; the whole weight step; and processor seconds of the update."""
    found: dict[str, Any] = {"part": "update", "case": f"{space}, {method}, {'captured' if static else 'eager'}"}
    for name, flat in (("before", False), ("after", True)):
        search, batch = search_of(space, method, sizes, flat=flat, static=static)
        weights = search.relaxation(search.generators["alpha"]).detach()
        search.w_optimizer.zero_grad(set_to_none=True)
        search.w_loss(batch, weights).loss.backward()
        grads = [(p, p.grad) for p in search.w]
        times = []
        for _ in range(rounds):
            for p, g in grads:
                p.grad = g if g is None else g.clone(memory_format=torch.preserve_format)
            times.append(seconds(lambda: search.descend(search.w_optimizer, search.w, search.clip_norm), CPU)[1])
        for p, g in grads:
            p.grad = g
        found[name] = counted(lambda: search.descend(search.w_optimizer, search.w, search.clip_norm))
        found[name] |= {"cpu_s": statistics.median(times), "step": counted(lambda: search.w_step(batch, weights))}
    return found | {"tensors": sum(g is not None for _, g in grads), "parameters": len(search.w)}


def images() -> dict[str, Any]:
    """A batch of CIFAR-10's size. After: the pixels copied in, the replay, the images copied out."""
    transform = Augment(pad=4, flip=True, cutout=16).for_training((0.5,) * 3, (0.25,) * 3, device=CPU, channels_last=True)
    pixels, generator = torch.zeros(64, 3, 32, 32, dtype=torch.uint8), torch.Generator().manual_seed(0)
    transform(pixels, generator)
    return {"part": "images", "case": "crop, flip, Cutout, normalise", "before": counted(lambda: transform(pixels, generator)),
            "after": {"operations": 3, "launches": 3}}


def checkpointed(space: str, sizes: Sizes) -> dict[str, Any]:
    """A weight step, before: cells computed again on the plain path, after: with Triton kernels."""
    found: dict[str, Any] = {"part": "checkpointed", "case": f"{space}, softmax, eager"}
    for name, triton in (("before", False), ("after", True)):
        search, batch = search_of(space, "softmax", sizes, checkpoint_cells=True)
        weights = search.relaxation(search.generators["alpha"]).detach()
        found[name] = counted(lambda: search.w_step(batch, weights), triton)
    return found


def sampled(space: str, sizes: Sizes) -> dict[str, Any]:
    """A weight step, before: eager, of the ops that are drawn, after: of all ops, as one graph would hold it."""
    found: dict[str, Any] = {"part": "sampled", "case": f"{space}, GDAS"}
    search, batch = search_of(space, "gdas", sizes, flat=True)
    drawn = [search.relaxation(search.generators["alpha"]).detach() for _ in range(5)]
    counts = [counted(lambda: search.w_step(batch, weights)) for weights in drawn]
    found["before"] = {key: statistics.median_low([c[key] for c in counts]) for key in counts[0]}
    found["after"] = counted(lambda: search.w_step(batch, search.relaxation.mean().detach()))
    spec = SPACES[space]().cells
    edges = [sum(row) for kind in spec.values() for row in kind.present]
    found["edges"] = edges
    return found | {"replayed": [{"sure": sure, **{str(kept): replayed(edges, sure, kept) for kept in KEPT}} for sure in SURE]}


def replayed(edges: Sequence[int], sure: float, kept: int) -> float:
    """The share of draws that a graph takes, as `training.graphed.Graphed` keeps them: after `WARM_UP` draws of their set of ops, and once
    more where an epoch's temperature has come in between. edges: the ops of each; their first is drawn with probability `sure`, the others
    equally often."""
    generator = torch.Generator().manual_seed(0)
    columns = []
    for ops in edges:
        odds = torch.full((ops,), (1 - max(sure, 1 / ops)) / (ops - 1))
        odds[0] = max(sure, 1 / ops)
        columns.append(torch.multinomial(odds, EPOCHS * STEPS, replacement=True, generator=generator))
    calls: OrderedDict[tuple[int, ...], int] = OrderedDict()
    found = 0
    for n, draw in enumerate(map(tuple, torch.stack(columns, 1).tolist())):
        if n % STEPS == 0:
            calls = OrderedDict((drawn, min(before, WARM_UP - 1)) for drawn, before in calls.items())
        before = calls.pop(draw, 0)
        found += before >= WARM_UP
        if not before and len(calls) >= kept:
            calls.popitem(last=False)
        calls[draw] = before + 1
    return found / (EPOCHS * STEPS)


def _parts(text: str) -> tuple[str, ...]:
    wanted = text.split(",")
    if not set(wanted) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(PARTS)}, got {text!r}")
    return tuple(part for part in PARTS if part in wanted)


def rows_of(part: str, supernets: Mapping[str, Sizes], rounds: int) -> Iterator[dict[str, Any]]:
    if part == "update":
        for space, method in ((space, method) for space, method in CASES if space in supernets):
            for static in (False, True):
                if (method, static) != ("gdas", True):  # captured with flat weights alone (`graphed.refusals`)
                    yield update(space, method, supernets[space], static, rounds)
    elif part == "images":
        yield images()
    else:
        for space, sizes in supernets.items():
            yield {"checkpointed": checkpointed, "sampled": sampled}[part](space, sizes)


def main(argv: Sequence[str] | None = None, supernets: Mapping[str, Sizes] = SUPERNETS) -> None:
    parser = parser_for(__doc__, rounds=15, device=False)
    parser.add_argument("--only", type=_parts, default=PARTS, help=f"some of {','.join(PARTS)}")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    result = begun("prepared", argv, device) | {"rounds": options.rounds, "rows": []}
    for part in options.only:
        for row in rows_of(part, supernets, options.rounds):
            result["rows"].append(row)
            print(" | ".join(cells(row)), flush=True)
    write(options.json, result)


def cells(row: Mapping[str, Any]) -> list[str]:
    """One line of the table."""
    sides = [f"{row[side]['operations']:,} / {row[side]['launches']:,}" for side in ("before", "after")]
    note = ""
    if row["part"] == "update":
        steps = [f"{row[side]['step']['operations']:,} / {row[side]['step']['launches']:,}" for side in ("before", "after")]
        note = (f"{row['tensors']:,} of {row['parameters']:,} tensors; whole step {steps[0]}, then {steps[1]}; processor "
                f"{1e3 * row['before']['cpu_s']:.1f}, then {1e3 * row['after']['cpu_s']:.1f} ms")
    if row["part"] == "sampled":
        note = "draws with a graph: " + ", ".join(
            f"{step['sure']:.0%} sure " + " or ".join(f"{step[str(kept)]:.0%} ({kept} kept)" for kept in KEPT) for step in row["replayed"])
    return [row["part"], row["case"], *sides, note]


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What came out for the space of DARTS, for docs/measured.md."""
    names = {"update": "clipping and step of the weights, flat", "images": "a batch of images as a graph",
             "checkpointed": "a weight step of cells computed again, with Triton kernels"}
    return [(f"{names[row['part']]} ({row['case']}; counted)", f"{row['after']['launches']:,} of {row['before']['launches']:,} launches")
            for row in result["rows"] if row["part"] in names and "nasbench201" not in row["case"] and "gdas" not in row["case"]]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    return ("part", "case", "before: operations / launches", "after", "beside"), [cells(row) for row in result["rows"]]


if __name__ == "__main__":
    main()
