"""Where the time of a step goes, and whether the dry run knows what memory it takes."""

from collections.abc import Iterator

import torch

from benchmarks.gpu import searches
from benchmarks.gpu.card import timeline
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Values
from benchmarks.gpu.searches import CASES, Case
from benchmarks.gpu.speed import cleaned, eager
from benchmarks.gpu.variants import BY_NAME, VARIANTS, Variant
from supernet.hypergradients.finite_difference import finite_difference
from supernet.networks.measure import live_tensors, peak_memory
from supernet.runs.dry_run import peak_of_training

STEPS = 10
PREDICTED = 0.10  # by so much a search's peak may differ from what the dry run said
SMALL_BATCH = 8


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    names = ("channels_last", "graph") if bench.toy else ("channels_last", "native", "graph", "graph_native", "native_bf16", "plain")
    for name in names:
        yield Check(f"timeline of {name}", lambda name=name: profiled(bench, CASES[0], BY_NAME[name]))
    for case in CASES[:1] if bench.toy else CASES[:3]:
        for variant in [v for v in VARIANTS if v.name in ("channels_last", "native", "graph")]:
            if not (variant.graph and case.method == "gdas"):
                yield Check(f"memory of {case.name}, {variant.name}", lambda case=case, variant=variant: memory(bench, case, variant))
    yield Check("memory of a step on a CPU beside the device's", lambda: memory_on_cpu(bench, CASES[0]))


def profiled(bench: Bench, case: Case, variant: Variant) -> Values:
    """A pair of steps: the weights' and the alphas'; and the second order's, where that is not captured."""
    cleaned(bench.device)
    with variant.computing(bench.device):
        made = searches.make(case, variant, bench.device, toy=bench.toy)
        graphed = searches.captured(made, warm_up=2) if variant.graph else None
        try:
            if graphed is not None:
                steps = {"pair": lambda: graphed.step(*made.batches)}
            else:
                steps = eager(made, searches.with_hypergradient(made, finite_difference))
            for step in steps.values():
                for _ in range(3):
                    step()
            return {name: timeline(step, bench.device) for name, step in steps.items()}
        finally:
            searches.released(graphed)


def memory(bench: Bench, case: Case, variant: Variant) -> Values:
    """The dry run's number, of a network that is thrown away, beside what a search's steps and an evaluation then take."""
    predicted, taken = (peak(bench, case, variant, steps) for steps in (1, STEPS))
    values = {"predicted_bytes": predicted, "taken_bytes": taken, "ratio": taken / predicted}
    if case.method != "gdas" and not abs(taken / predicted - 1) <= PREDICTED:  # draws run other ops each time
        raise Failed(f"the dry run says {predicted / 2**20:.0f} MiB, and the search takes {taken / 2**20:.0f} MiB", values)
    return values


def peak(bench: Bench, case: Case, variant: Variant, steps: int) -> int:
    cleaned(bench.device)
    with variant.computing(bench.device):
        made = searches.make(case, variant, bench.device, toy=bench.toy)
        search, batches = made.search, made.batches
        graphed = searches.captured(made, warm_up=3) if variant.graph else None
        step = search.step if graphed is None else graphed.step

        @torch.no_grad()
        def evaluation() -> None:
            with search.context():
                search.net(batches[1][0], search.relaxation.mean(), generator=search.net_generator)

        try:
            return peak_of_training(lambda: step(*batches), evaluation, bench.device, settling=1 if graphed is None else 4,
                                    steps=steps, graphs=graphed is not None)
        finally:
            searches.released(graphed)


def memory_on_cpu(bench: Bench, case: Case) -> Values:
    """Live tensors on the CPU, as `dry_run=true device=cpu` counts them, beside the device's allocator, for one small batch."""
    on_cpu, here = (peak_of_a_step(bench, case, device) for device in (torch.device("cpu"), bench.device))
    return {"cpu_bytes": on_cpu, "bytes": here, "ratio": here / on_cpu}


def peak_of_a_step(bench: Bench, case: Case, device: torch.device) -> int:
    cleaned(bench.device)
    variant = BY_NAME["channels_last"]
    with variant.computing(device):
        made = searches.make(case, variant, device, toy=bench.toy, batch=SMALL_BATCH)
        made.search.step(*made.batches)
        return peak_memory(lambda: made.search.step(*made.batches), device, live_tensors(device))
