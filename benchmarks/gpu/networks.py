"""Whole supernets: the losses, the weights' gradients and the hypergradient under every variant, beside plain PyTorch in float64.

Networks in float32 are off from float64 by a little, whoever computes, and by how much depends on their depth. So a variant of float32
passes where it is off by at most `SLACK` times what plain PyTorch in float32 is off by, which must be little. One of lower precision passes
where its losses come near and its gradients point the same way.
"""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu import searches
from benchmarks.gpu.checks import Bench, Check, Failed, Report, Values
from benchmarks.gpu.searches import CASES, Case, Made
from benchmarks.gpu.variants import PLAIN, VARIANTS, Variant

SLACK, FLOOR = 4.0, 1e-5  # of plain PyTorch's own distance, or this distance
LITTLE = 0.02
LOSS, COSINE = 0.05, 0.9  # what lower precision must reach: relative, of gradients
BATCH = 32

Numbers = dict[str, Any]


def run(bench: Bench, report: Report) -> None:
    report.each(checks(bench))


def checks(bench: Bench) -> Iterator[Check]:
    """Nothing is kept from check to check but the truth of one case, so that each can be run alone."""
    wanted = CASES[:2] if bench.toy else CASES
    chosen = [variant for variant in VARIANTS if not variant.graph]
    for case in wanted:
        truth: dict[str, Numbers] = {}
        for variant in chosen:
            yield Check(f"{case.name}, {variant.name}",
                        lambda case=case, variant=variant, truth=truth: compare(bench, case, variant, truth))


def numbers(bench: Bench, case: Case, variant: Variant, dtype: torch.dtype) -> Numbers:
    """On the host and in float64, so that two networks never live side by side."""
    with variant.computing(bench.device):
        made: Made = searches.make(case, variant, bench.device, toy=bench.toy, batch=BATCH, dtype=dtype)
        losses = {name: loss.detach().double().cpu() for name, loss in made.losses().items()}
        found = searches.gradients(made.search, made.batches)
        return losses | {kind: [None if g is None else g.detach().double().cpu() for g in gs] for kind, gs in found.items()}


def compare(bench: Bench, case: Case, variant: Variant, truth: dict[str, Numbers]) -> Values:
    if not truth:
        truth["float64"] = numbers(bench, case, PLAIN, torch.float64)
        truth["float32"] = numbers(bench, case, PLAIN, torch.float32)
    got, want = numbers(bench, case, variant, torch.float32), truth["float64"]
    off = distances(got, want)
    own = distances(truth["float32"], want)
    values = {"off": off, "plain float32": own} | {"cosine": {k: cosine(got[k], want[k]) for k in ("w", "alpha")}}
    if not all(value <= LITTLE for value in own.values()):
        raise Failed(f"plain PyTorch in float32 is itself off by more than {LITTLE}", values)
    if variant.exact:
        for kind, value in off.items():
            if not value <= (limit := max(FLOOR, SLACK * own[kind])):
                raise Failed(f"{kind} is off by {value:.3g}, more than {limit:.3g} ({SLACK:g} times plain float32's)", values)
    else:
        for kind in ("train", "val"):
            if not off[kind] <= LOSS:
                raise Failed(f"the {kind} loss is off by {off[kind]:.3g}, more than {LOSS}", values)
        for kind, value in values["cosine"].items():
            if not value >= COSINE:
                raise Failed(f"the gradient of {kind} points elsewhere: a cosine of {value:.3f}, less than {COSINE}", values)
    return values


def distances(got: Numbers, want: Numbers) -> dict[str, float]:
    return {kind: searches.distance(*([v] if torch.is_tensor(v) else v for v in (got[kind], want[kind]))) for kind in want}


def cosine(got: list[Any], want: list[Any]) -> float:
    pairs = [(a.flatten(), b.flatten()) for a, b in zip(got, want, strict=True) if a is not None and b is not None]
    a, b = (torch.cat(column) for column in zip(*pairs))
    return torch.cosine_similarity(a, b, dim=0).item()
