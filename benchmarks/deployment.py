"""Sub-networks within limits: the exact solver against evolution on the same scores, and whether what is deployed keeps its limits.

    python train_search.py space=ofa_mobilenet 'space.kernels=[3,5]' 'space.expansions=[2,4]' 'space.depths=[1,2]' \
        'space.strides=[1,2,1,2,1]' space.stem_stride=1 passes=sandwich relaxation=uniform dataset=digits channels=8 epochs=30
    python -m benchmarks.deployment runs/RUN          # a search of images in a chain of decisions; needs the extra exact

Scores of the first part are random numbers, one a choice; both methods have two limits that are random quantiles of what architectures
take. The gap is of the random architectures' standard deviation. The second part holds 50 pairs of limits against the network that is
taken out, counted anew; the third holds limits on latency against a further measurement. Writes benchmarks/results/deployment.json.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import supernet
from supernet.app.command_line import register
from supernet.app.options import CONF, override
from supernet.commands import deploying
from supernet.costs.chain import ChainCost, Term, chain_costs
from supernet.costs.exact import optimum
from supernet.deployment.limits import Bound, Quantity, within
from supernet.deployment.methods import Evolution, Exact, Gradient, Problem
from supernet.deployment.models import sampled
from supernet.genotype import Genotype
from supernet.networks.measure import multiply_adds_of, parameters
from supernet.runs.environment import describe
from supernet.runs.folder import write_json
from supernet.space import Space
from supernet.spaces import accel_mnasnet, layerwise, ofa_mobilenet

OUT = Path(__file__).resolve().parent / "results/deployment.json"
SPACES = {"layerwise": layerwise.make, "ofa_mobilenet": lambda: ofa_mobilenet.make(stem_stride=1),
          "accel_mnasnet": lambda: accel_mnasnet.make(stem_stride=1)}
RANDOM = 200  # architectures that stand for all


def random_score(space: Space, seed: int) -> ChainCost:
    draw = torch.Generator().manual_seed(seed)
    return ChainCost(space, [Term(((kind, e),), torch.randn(len(spec.ops), generator=draw, dtype=torch.float64))
                             for kind, spec in space.cells.items() for e in range(len(spec.edges))], "score")


def random_bounds(costs: dict[str, ChainCost], drawn: Sequence[Genotype], rng: random.Random) -> list[Bound]:
    """On each cost, at a random quantile."""
    made = []
    for name, cost in costs.items():
        values = sorted(map(cost, drawn))
        made.append(Bound(Quantity(name, cost.unit, cost, cost, True), values[int(rng.uniform(0.1, 0.6) * len(values))]))
    return made


def solvers(seeds: int, trials: int) -> list[dict[str, Any]]:
    """The exact optimum, and the best of an evolution, of the same scores within the same limits."""
    rows = []
    for name, make in SPACES.items():
        space = make()
        costs = chain_costs(space, channels=16, num_classes=10, **space.sizes)
        for seed in range(seeds):
            drawn = sampled(space, RANDOM, seed, "benchmark")
            bounds = random_bounds(costs, drawn, random.Random(seed))
            score = random_score(space, seed)
            began = time.perf_counter()
            best = optimum(space, score, {b.quantity.name: (b.quantity.plan, b.limit) for b in bounds})
            exact_s, began = time.perf_counter() - began, time.perf_counter()
            problem = Problem(space, bounds, score, drawn[:100], lambda g: True, seed)
            found = next(Evolution(trials=trials)(problem))
            evolved_s = time.perf_counter() - began
            spread = statistics.stdev(map(score, drawn))
            rows.append({"space": name, "seed": seed, "exact": best.value, "bound": best.bound, "exact_s": exact_s,
                         "evolution": score(found), "evolution_s": evolved_s, "gap_in_deviations": (best.value - score(found)) / spread})
            print(" ".join(f"{key} {value if type(value) is str else round(value, 4)}" for key, value in rows[-1].items()), flush=True)
    return rows


def work_on(run: Path, output: str, **options: Any) -> deploying.Work:
    words = [override("run", str(run)), override("output", output), "limits={parameters:1e12}", *(f"{k}={v}" for k, v in options.items())]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return deploying.prepared(compose("deploy", overrides=words))


def problem_of(work: deploying.Work, bounds: Sequence[Bound], seed: int) -> Problem:
    return Problem(work.space, bounds, work.score, work.samples, lambda g: all(b.holds(g) for b in bounds), seed)


def kept(work: deploying.Work, number: int) -> list[dict[str, Any]]:
    """Pairs of limits; what the chosen network takes is counted on the network itself."""
    rows, drawn = [], sampled(work.space, RANDOM, 0, "benchmark")
    for seed in range(number):
        bounds = random_bounds(work.made.costs, drawn, random.Random(seed))
        if within(work.space, bounds) is None:  # one limit leaves no room for the other: asked for anew
            bounds = random_bounds(work.made.costs, drawn, random.Random(number + seed))
        began = time.perf_counter()
        chosen = next(Exact(candidates=3)(problem_of(work, bounds, seed)))
        seconds = time.perf_counter() - began
        net = work.made.network(chosen)
        takes = {"parameters": parameters(net), "multiply_adds": multiply_adds_of(net, work.made.input(1))}
        rows.append({"limits": {b.quantity.name: b.limit for b in bounds}, "takes": takes, "score": work.score(chosen), "seconds": seconds,
                     "kept": all(takes[b.quantity.name] <= b.limit for b in bounds)})
    print(f"{sum(row['kept'] for row in rows)} of {len(rows)} keep their limits, by what is counted on the network", flush=True)
    return rows


def latencies(work: deploying.Work, number: int) -> list[dict[str, Any]]:
    """Limits on latency; each chosen network is measured again, twice: once, and the least of three medians of 30 calls."""
    rows, quantity = [], work.quantity("latency_ms")
    low, high = work.least("latency_ms"), work.most("latency_ms")
    for n in range(number):
        limit = low + (high - low) * (n + 1) / (number + 1)
        bounds = [Bound(quantity, limit)]
        problem = problem_of(work, bounds, n)
        rejected = 0
        for chosen in Evolution(trials=10)(problem):
            if problem.holds(chosen):
                break
            rejected += 1
        again = work.here.latency_ms(chosen)
        rows.append({"limit_ms": limit, "measured_ms": quantity.of(chosen), "again_ms": again, "rejected": rejected,
                     "within_5_percent": again <= 1.05 * limit})
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def methods(work: deploying.Work, number: int) -> list[dict[str, Any]]:
    """The score that each method finds within one limit on parameters, on the supernet itself, and its seconds; what others evaluated
    before costs nothing, so the order is that of the list."""
    rows, cost = [], work.made.costs["parameters"]
    low, high = work.least("parameters"), work.most("parameters")
    made, steps = work.made, work.cfg.gradient_steps
    for n in range(number):
        bounds = [Bound(work.quantity("parameters"), low + (high - low) * (n + 1) / (number + 1))]
        for name, method in {"gradient": Gradient(made.supernet, made.read.task, made.alpha_batches, steps), "exact": Exact(10),
                             "evolution": Evolution(100)}.items():
            began, problem = time.perf_counter(), problem_of(work, bounds, n)
            chosen = next(method(problem))
            rows.append({"limit": bounds[0].limit, "by": name, "score": work.score(chosen), "parameters": cost(chosen),
                         "seconds": time.perf_counter() - began})
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a search in a chain of decisions")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100, help="of an evolution on random scores")
    parser.add_argument("--limits", type=int, default=50)
    parser.add_argument("--latencies", type=int, default=10)
    parser.add_argument("--methods", type=int, default=5, help="limits that all methods are asked for")
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(argv)
    supernet.use(threads=1)
    with tempfile.TemporaryDirectory() as output:
        work = work_on(options.run, output, threads=1)
        with work.known.journal.held():
            result = {"solvers": solvers(options.seeds, options.trials), "methods": methods(work, options.methods),
                      "limits": kept(work, options.limits), "latencies": latencies(work, options.latencies)}
    gaps = [row["gap_in_deviations"] for row in result["solvers"]]
    said = {"solver_gap_mean": statistics.fmean(gaps), "solver_gap_largest": max(gaps), "solver_equal": sum(gap < 1e-9 for gap in gaps),
            "exact_s": statistics.median(row["exact_s"] for row in result["solvers"]),
            "evolution_s": statistics.median(row["evolution_s"] for row in result["solvers"]),
            "kept": [sum(row["kept"] for row in result["limits"]), len(result["limits"])],
            "latency_within_5_percent": [sum(row["within_5_percent"] for row in result["latencies"]), len(result["latencies"])]}
    print(said)
    write_json(options.json, {"command": "python -m benchmarks.deployment RUN", "space": work.space.name,
                              "data": work.made.read.data.name, "options": {key: value for key, value in vars(options).items()
                                                                            if key not in ("run", "json")},
                              "environment": describe(torch.device("cpu")), "summary": said, **result})


if __name__ == "__main__":
    main()
