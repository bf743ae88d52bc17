"""How time and memory of a search step grow: `python -m benchmarks.scaling`, from the repository root.

Weight step and first-order alpha step of the DARTS supernet, ours and edge by edge (`benchmarks.search_step` says what both are), with one
size changed at a time: batch, channels, nodes of a cell, ops of an edge (as many of each family with every doubling), layers. An exponent
is the slope of the least-squares line through log(quantity) over log(size): 1 is proportional.

The largest batch that fits a memory is predicted for the published sizes (8 cells, C=16) from the line a + b * batch through the peaks of
a few small batches; `--check` measures the peak at that batch.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.compare import SIDES, begun, clock, measure, parser_for, prepared, weigh, where, write
from benchmarks.sides import STEPS, Sizes, make_sides
from supernet.runs.dry_run import available_memory
from supernet.runs.progress import Counted
from supernet.spaces import darts

STEPS_HERE = STEPS[:2]
OPS = {2: ("skip_connect", "sep_conv_3x3"), 4: ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"), 8: darts.OPS}
PUBLISHED = Sizes(cells=8, channels=16, batch=16, image_size=32)
SMALL_BATCHES = (2, 4, 8)


@dataclass(frozen=True)
class Point:
    batch: int = 8
    channels: int = 8
    nodes: int = 4
    ops: int = 8
    layers: int = 6


SIZES: Mapping[str, Sequence[int]] = {"batch": (4, 8, 16), "channels": (4, 8, 16), "nodes": (2, 3, 4, 5), "ops": (2, 4, 8),
                                      "layers": (3, 6, 12)}


def points(base: Point, sizes: Mapping[str, Sequence[int]]) -> list[Point]:
    """Every point once: the base itself lies on every line."""
    return list(dict.fromkeys(replace(base, **{name: value}) for name, values in sizes.items() for value in values))


def measure_point(point: Point, rounds: int, device: torch.device, image_size: int = 32) -> dict[str, Any]:
    sizes = Sizes(point.layers, point.channels, point.batch, image_size)
    sides = make_sides(sizes, device, space=darts.make(nodes=point.nodes, ops=OPS[point.ops]))
    return asdict(point) | {"steps": {step: measure(sides, step, rounds, device) for step in STEPS_HERE}}


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the least-squares line through (log x, log y)."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(measured: Sequence[Mapping[str, Any]], base: Point, sizes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """By size, step and side: those of wall time, CPU time, peak memory and kernels."""
    quantities = {"wall": "wall_s", "cpu": "cpu_s", "memory": "peak_bytes", "kernels": "kernels"}
    found: dict[str, Any] = {}
    for name, values in sizes.items():
        line = [next(m for m in measured if all(m[k] == v for k, v in asdict(replace(base, **{name: value})).items())) for value in values]
        found[name] = {step: {side: {quantity: exponent(values, [m["steps"][step][side][key] for m in line])
                                     for quantity, key in quantities.items()} for side in SIDES} for step in STEPS_HERE}
    return found


def peaks(batch: int, device: torch.device, of: Sequence[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], int]]:
    """((side, step), bytes) of the published sizes at a batch, a side at a time."""
    for side, step in of:
        made = make_sides(replace(PUBLISHED, batch=batch), device)[side]
        gc.collect()  # the other side
        made.steps[step]()  # makes the optimizer's state
        yield (side, step), weigh(made, step, device)[1]


def largest_batches(limit: int, device: torch.device, check: bool) -> dict[str, Any]:
    """By side and step: the line through the peaks of small batches, the largest batch within `limit` bytes, and its peak if measured."""
    every = [(side, step) for side in SIDES for step in STEPS_HERE]
    seen: dict[tuple[str, str], list[int]] = {key: [] for key in every}
    for batch in SMALL_BATCHES:
        for key, peak in peaks(batch, device, every):
            seen[key].append(peak)
    found: dict[str, Any] = {side: {} for side in SIDES}
    for (side, step), values in seen.items():
        slope, start = np.polyfit(SMALL_BATCHES, values, 1)
        batch = int((limit - start) // slope)
        found[side][step] = {"bytes": float(start), "bytes_an_image": float(slope), "largest_batch": batch, "measured_bytes": None}
        if check:
            ((_, found[side][step]["measured_bytes"]),) = peaks(batch, device, [(side, step)])
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__, rounds=2)
    parser.add_argument("--only", default=",".join(SIZES), help=f"some of {','.join(SIZES)}")
    parser.add_argument("--memory-gib", type=float, default=8.0, help="what the largest batch must fit")
    parser.add_argument("--check", action="store_true", help="measure the peak at the largest batch, too (minutes, and that much memory)")
    options = parser.parse_args(argv)
    device = prepared(parser, options)
    wanted = options.only.split(",")
    if not set(wanted) <= set(SIZES):
        parser.error(f"--only must be some of {','.join(SIZES)}, got {options.only!r}")
    limit = int(options.memory_gib * 2**30)
    if options.check and available_memory(device) < 1.5 * limit:
        parser.error(f"--check needs about {1.5 * options.memory_gib:.0f} GiB free, {available_memory(device) / 2**30:.1f} are")
    base, sizes = Point(), {name: SIZES[name] for name in wanted}
    measured = []
    progress = Counted(len(points(base, sizes)), "sizes")
    for point in points(base, sizes):
        measured.append(measure_point(point, options.rounds, device))
        steps = measured[-1]["steps"]
        progress.hide()
        print("  ".join([f"{name} {value:<3}" for name, value in asdict(point).items()] +
                        [f"{step}: {steps[step]['ours']['cpu_s']:.3f} / {steps[step]['reference']['cpu_s']:.3f} s CPU" for step in steps]),
              flush=True)
        progress.add()
    progress.hide()
    result = begun("scaling", argv, device) | {
        "backend": options.backend, "rounds": options.rounds, "points": measured, "exponents": exponents(measured, base, sizes),
        "memory_gib": options.memory_gib, "published": asdict(PUBLISHED), "small_batches": SMALL_BATCHES,
        "largest_batches": largest_batches(limit, device, options.check)}
    head, rows = table(result)
    print("\n".join(" | ".join(cells) for cells in (head, *rows)))
    for what, came_out in figures(result):
        print(f"{what}: {came_out}")
    write(options.json, result)


def figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured and what came out, for docs/measured.md."""
    time = ", ".join(f"{name} {lines['w']['ours'][clock(result)]:.2f}" for name, lines in result["exponents"].items())
    alpha = ", ".join(f"{name} {lines['alpha']['ours'][clock(result)]:.2f}" for name, lines in result["exponents"].items())
    rows = [(f"exponents of a step's time, ours, {result['backend']} backend ({where(result)})",
             f"weight step: {time}; alpha step: {alpha}")]
    batches = {side: min(step["largest_batch"] for step in result["largest_batches"][side].values()) for side in SIDES}
    one = next(iter(result["largest_batches"]["ours"].values()))
    how = "predicted by a line through small batches" + ("" if one["measured_bytes"] is None else ", measured there")
    rows.append((f"largest batch whose steps fit {result['memory_gib']:g} GiB (8 cells, C=16, float32; {how})",
                 f"{batches['ours']} images, edge by edge {batches['reference']}"))
    return rows


def table(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Exponents, and the largest batches, by side and step."""
    head = ("size", *(f"{side}, `{step}`: wall, CPU, memory, kernels" for side in SIDES for step in STEPS_HERE))
    rows: list[Sequence[str]] = [(name, *(", ".join(f"{value:.2f}" for value in lines[step][side].values())
                                          for side in SIDES for step in STEPS_HERE)) for name, lines in result["exponents"].items()]
    cells = []
    for side in SIDES:
        for step in STEPS_HERE:
            found = result["largest_batches"][side][step]
            checked = "" if found["measured_bytes"] is None else f", measured {found['measured_bytes'] / 2**30:.2f} GiB"
            cells.append(f"{found['largest_batch']} images ({found['bytes_an_image'] / 2**20:.1f} MiB each{checked})")
    return head, [*rows, (f"fits {result['memory_gib']:g} GiB", *cells)]


if __name__ == "__main__":
    main()
