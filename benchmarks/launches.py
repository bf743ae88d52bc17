"""What a search step asks of a GPU, in calls, by backend: `python -m benchmarks.launches`, from the repository root. No GPU is needed.

Steps run on PyTorch's device "meta", where everything is dispatched and nothing is computed; optimizers and clipping take lists of tensors,
as they do on a GPU. Counted are the calls that compute (`counting.Kernels`), and for `triton` the kernels that would be launched beside
them. A call is one launch on a GPU, or a few (a batch norm, a convolution's backward, a list of hundreds of tensors): these are counts,
and no times. What is counted depends neither on channels nor on batch.

`w`: weight step; `alpha`: alpha step, first order; `second`: alpha step, second order by a finite difference.
"""

import argparse
import importlib
import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.optim import optimizer as optimizers
from torch.utils import _foreach_utils as foreach

try:
    from benchmarks import compare, counting
    from benchmarks.sides import METHODS, SPACES, STEPS, Sizes, ours_of, supernet
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run from the repository root, as python -m benchmarks.launches") from None
from ops import kernels
from supernet.space import Space

WAYS = ("plain", "triton", "packed", "merged")
META = torch.device("meta")
TRITON = ("batch_statistics", "depthwise", "pool", "weighted_sum")  # its modules with kernels


class Counted:
    """Stands for a Triton kernel, and counts its launches."""

    def __init__(self, counter: Counter[str], name: str):
        self.counter, self.name = counter, name

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **options: self.counter.update([self.name])


@contextmanager
def in_lists() -> Iterator[None]:
    """Within, "meta" has functions for lists of tensors, as a GPU has."""
    devices = [*foreach._get_foreach_kernels_supported_devices(), META.type]
    with (patch.object(foreach, "_get_foreach_kernels_supported_devices", lambda: devices),
          patch.object(optimizers, "_get_foreach_kernels_supported_devices", lambda: devices)):
        yield


@contextmanager
def computing(way: str) -> Iterator[Counter[str]]:
    """Within, a way computes; gives what is launched past the dispatcher."""
    launched: Counter[str] = Counter()
    try:
        if way != "triton":
            kernels.use(way)
            yield launched
            return
        kernels.use("native", device="cuda")
        fused = importlib.import_module("ops.kernels.triton_kernels")
        with patch.object(fused, "computes", lambda x: x.dim() == 4), patch.object(torch, "is_autocast_enabled", lambda device: False):
            parts = [importlib.import_module(f"{fused.__name__}.{name}") for name in TRITON]
            found = [(part, name) for part in parts for name in vars(part) if name.endswith("_kernel")]
            changes = [patch.object(part, name, Counted(launched, f"{part.__name__.split('.')[-1]}.{name}")) for part, name in found]
            for change in changes:
                change.start()
            try:
                yield launched
            finally:
                for change in changes:
                    change.stop()
    finally:
        kernels.use("plain")


def launches(space: str | Space, way: str, step: str, *, method: str = "softmax", cells: int = 8, channels: int = 16, batch: int = 64,
             image_size: int = 32) -> int:
    """Calls of one step, of a search that has taken one before."""
    sizes, how = Sizes(cells, channels, batch, image_size), METHODS[method]
    made = SPACES[space]() if isinstance(space, str) else space
    with in_lists(), computing(way) as launched:
        side = ours_of(supernet(made, sizes, how, torch.float32), how.relaxation(made, torch.Generator().manual_seed(0)), sizes, META)
        side.steps[step]()  # makes the optimizer's state
        launched.clear()
        return counting.kernels(side.steps[step]).total() + launched.total()


def counts(spaces: Sequence[str], ways: Sequence[str], sizes: Sizes) -> dict[str, dict[str, dict[str, int]]]:
    """By space and relaxation, way and step."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for space, method in [(space, "softmax") for space in spaces] + [("darts", "pc_darts")] * ("darts" in spaces):
        name = space if method == "softmax" else f"{space}, {method}"
        found[name] = {way: {step: launches(space, way, step, method=method, **asdict(sizes)) for step in STEPS} for way in ways}
        for way, steps in found[name].items():
            print(f"{name:18}{way:8}" + "".join(f"{step:>8}{number:8,}" for step, number in steps.items()), flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    if options.cells < 3:
        parser.error(f"--cells must be at least 3, got {options.cells}")
    sizes = Sizes(options.cells, 16, 64, 32)
    ways = [way for way in WAYS if way != "triton" or importlib.util.find_spec("triton") is not None]
    result = compare.begun("launches", argv, torch.device("cpu")) | {"rounds": 1, "sizes": asdict(sizes)}
    compare.write(options.json, result | {"counts": counts(options.spaces, ways, sizes)})


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was counted and what came out, for docs/measured.md."""
    found = result["counts"]["darts"]
    pairs = {way: steps["w"] + steps["alpha"] for way, steps in found.items()}
    what = f"calls of a weight and an alpha step, darts, {result['sizes']['cells']} cells (counted, not timed)"
    return [(what, ", ".join(f"{way} {number:,}" for way, number in pairs.items()))]


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    return ("space", "backend", "w", "alpha", "second", "w and alpha"), [
        (space, way, *(f"{steps[step]:,}" for step in STEPS), f"{steps['w'] + steps['alpha']:,}")
        for space, ways in result["counts"].items() for way, steps in ways.items()]


if __name__ == "__main__":
    main()
