"""How long steps take under every variant, beside the published loop, edge by edge, on the same device.

Per variant and space the weight step, the alpha step and the second order's alpha step; of a final network its training step. Eager or
captured, each is timed to its end on the device: medians of rounds, after the first few. The published loop keeps what PyTorch does by
default: TF32 in convolutions, NCHW. Launches are counted by the profiler (of graphs, their nodes), peak memory by the allocator.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmarks import final
from benchmarks.compare import seconds, summary
from benchmarks.gpu import searches
from benchmarks.gpu.card import launches, wait
from benchmarks.gpu.checks import Bench, Check, Report, Skipped, Values
from benchmarks.gpu.searches import CASES, Case, Made
from benchmarks.gpu.variants import PLAIN, VARIANTS, Variant
from benchmarks.sides import Sizes, make_sides
from supernet.hypergradients.finite_difference import finite_difference
from supernet.networks.measure import live_tensors, peak_memory
from supernet.tasks.base import Batch

ROUNDS, ROUNDS_S = 12, 1.0  # so many rounds of a step, or those of so many seconds, at least three
WARM = 4  # steps before: libraries choose their kernels, Triton compiles, graphs are captured
PUBLISHED = "published loop"

Step = Callable[[], object]


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    """The published loop first, then the variants on DARTS, where most is at stake; then the final network; then the other spaces."""
    first, *others = CASES[:2] if bench.toy else CASES
    variants = VARIANTS[:2] + tuple(v for v in VARIANTS if v.graph)[:1] if bench.toy else VARIANTS
    yield from of_case(bench, first, variants)
    yield Check(f"final, {PUBLISHED}", lambda: final_step(bench, None))
    for variant in variants:
        if variant.final:
            yield Check(f"final, {variant.name}", lambda variant=variant: final_step(bench, variant))
    for case in others:
        yield from of_case(bench, case, variants)


def of_case(bench: Bench, case: Case, variants: tuple[Variant, ...]) -> Iterator[Check]:
    if case.method != "gdas":  # whose edge-by-edge loop would be that of the softmax
        yield Check(f"{case.name}, {PUBLISHED}", lambda: published(bench, case))
    for variant in variants:
        yield Check(f"{case.name}, {variant.name}", lambda variant=variant: search_steps(bench, case, variant))


def timed(step: Step, device: torch.device, warm: int) -> dict[str, Any]:
    for _ in range(warm):
        step()
    wait(device)
    took: list[tuple[float, float]] = []
    while len(took) < 3 or (len(took) < ROUNDS and sum(wall for wall, _ in took) < ROUNDS_S):
        took.append(seconds(step, device))
    found = summary(took)
    return {"wall_s": found["wall_s"], "cpu_s": found["cpu_s"], "rounds": len(took), "least_s": min(found["rounds"]["wall_s"])}


def measured(steps: Mapping[str, Step], device: torch.device, warm: int, *, graphs: bool = False) -> dict[str, Any]:
    """Of each step its time, peak memory and launches. The profiler comes last: it slows what follows. graphs: whose memory the allocator
    only has reserved."""
    found = {name: timed(step, device, warm) for name, step in steps.items()}
    for name, step in steps.items():
        found[name]["peak_bytes"] = peak_memory(step, device, live_tensors(device), reserved=graphs)
    for name, step in steps.items():
        found[name]["launches"] = launches(step, device)
    return found


def cleaned(device: torch.device) -> None:
    """What the check before held is given back: cycles hold networks."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def search_steps(bench: Bench, case: Case, variant: Variant) -> Values:
    cleaned(bench.device)
    warm = 1 if bench.toy else WARM
    with variant.computing(bench.device):
        made = searches.make(case, variant, bench.device, toy=bench.toy)
        second = searches.with_hypergradient(made, finite_difference)
        if not variant.graph:
            return measured(eager(made, second), bench.device, warm)
        found: dict[str, Any] = {}
        for name, search in {"first": made, "second": second}.items():
            graphed = searches.captured(search, warm_up=2)
            try:
                for _ in range(3):
                    graphed.step(*search.batches)
                halves = {part: next(iter(of_draws.values())) for part, of_draws in graphed.halves.items()}  # one: these draws run all ops
                parts = {"second": halves["alpha"]} if name == "second" else {part: halves[part] for part in ("w", "alpha")}
                found |= measured({step: lambda half=half: half(half.inputs, graphed.capturing) for step, half in parts.items()},
                                  bench.device, 1, graphs=True)
                found |= {f"nodes of {name}": graphed.nodes()}
            finally:
                searches.released(graphed)
        return found


def eager(made: Made, second: Made) -> dict[str, Step]:
    train, val = made.batches
    return {"w": lambda: made.search.w_step(train), "alpha": lambda: made.search.alpha_step(train, val),
            "second": lambda: second.search.alpha_step(train, val)}


def published(bench: Bench, case: Case) -> Values:
    cleaned(bench.device)
    with replace(PLAIN, tf32=True).computing(bench.device):
        torch.set_float32_matmul_precision("highest")  # as PyTorch begins: TF32 in convolutions alone
        sides = make_sides(case.sizes(bench.toy), bench.device, space=case.made(bench.toy), method=case.method)
        theirs = sides.pop("reference")
        del sides
        return measured(theirs.steps, bench.device, 1)


def final_step(bench: Bench, variant: Variant | None) -> Values:
    """darts_v2, 20 cells, C=36, batch 96, drop path 0.2, auxiliary head; None for the published network under its loop."""
    cleaned(bench.device)
    sizes = Sizes(3, 4, 2, 32) if bench.toy else Sizes(20, 36, 96, 32)
    with (variant or replace(PLAIN, tf32=True)).computing(bench.device):
        sides = final.make_sides("darts_v2", sizes, bench.device)
        final.set_drop_path(sides, 0.2)
        side = sides.pop("reference" if variant is None else "ours")
        del sides
        if variant is None:
            torch.set_float32_matmul_precision("highest")
            return measured(side.steps, bench.device, 1)
        if variant.graph:
            raise Skipped("the final network's step is not captured")
        net = side.net.to(memory_format=variant.memory_format)
        batch: Batch = (side.batches[0][0].to(memory_format=variant.memory_format), side.batches[0][1])
        loop = final.loop_of(net, batch, context=variant.context(bench.device), w_optimizer=variant.w_optimizer)
        return measured({"train": lambda: loop.step(batch)}, bench.device, 1 if bench.toy else WARM)


def best_exact(records: list[dict[str, Any]], case: str, *, allowed: Callable[[Variant], bool] = lambda variant: True) -> Variant | None:
    """Of what a journal holds, the variant of float32 whose pair of steps was fastest on a case; None where nothing was measured."""
    times = {}
    for variant in VARIANTS:
        values = next((r.get("values", {}) for r in reversed(records) if r.get("kind") == "check" and r.get("part") == "speed"
                       and r.get("check") == f"{case}, {variant.name}" and r.get("verdict") == "passed"), None)
        if values and variant.exact and allowed(variant):
            times[variant.name] = values["w"]["wall_s"] + values["alpha"]["wall_s"]
    return next((v for v in VARIANTS if times and v.name == min(times, key=times.__getitem__)), None)
