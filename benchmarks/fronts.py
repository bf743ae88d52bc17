"""NSGA-II by three hands on NAS-Bench-201: how much of a true front each finds, over trials and seeds: of accuracy and the latency of a
device, and of accuracy, energy and accuracy under attack.

    python -m benchmarks.fronts --table nb201.csv.gz --seeds 20      # needs moocore, pymoo and optuna

Each has generations of the same size, crosses with probability 0.9 and changes each of the six edges with probability 1/6; a trial is one
evaluation, a repeated one too; pymoo's, as is its default, asks for none of its population twice. Ours and Optuna's know ops as unordered
choices; pymoo's are whole numbers, with its operators for these (uniform crossover, polynomial mutation, rounded). Scores are scaled
to 0 to 1 over the table, the hypervolume is above its worst values, and what is told is log10(1 - share of the true front's): plain shares
flatter whoever draws at random. Writes benchmarks/results/fronts.json.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from supernet.evaluators.tabular import Tabular
from supernet.objectives import Objective
from supernet.report.statistics import mean_interval
from supernet.runs.environment import describe
from supernet.runs.folder import write_json
from supernet.runs.progress import tracked
from supernet.searchers.base import Searcher
from supernet.searchers.decisions import decided
from supernet.searchers.fronts import front, hypervolume, igd_plus
from supernet.searchers.loop import Budget, Trials
from supernet.searchers.nsga2 import NSGA2
from supernet.searchers.random import Random
from supernet.searchers.tpe import optuna, silent
from supernet.space import Space
from supernet.spaces import nasbench201
from supernet.tables.files import read_table
from supernet.trials import History

OUT = Path(__file__).resolve().parent / "results/fronts.json"
Points = np.ndarray  # (trials, scores), in the order of the trials


class Problem(NamedTuple):
    """Beside the validation accuracy: metrics that are to be high and to be low, each with the table's column."""

    maximise: Mapping[str, str]
    minimise: Mapping[str, str]


PROBLEMS = {"accuracy, latency": Problem({}, {"latency_ms": "help_fpga_ms"}),
            "accuracy, energy, accuracy under attack": Problem({"accuracy_under_attack": "pgd_eps_1.0"},
                                                               {"energy_mj": "c10_edgegpu_energy_mj"})}


class Bench:
    """The table as some scores of an architecture, all higher is better."""

    def __init__(self, path: Path, problem: Problem):
        self.space = nasbench201.make()
        self.table = read_table(path, self.space)
        self.evaluator = Tabular(self.table, "cifar10", columns={**problem.maximise, **problem.minimise})
        self.objective = Objective(maximise=["accuracy", *problem.maximise], minimise=list(problem.minimise))
        columns = {name: self.table.column(column).tolist() for name, column in self.evaluator.columns.items()}
        every = np.array([self.objective.scores(dict(zip(columns, row))) for row in zip(*columns.values())])
        self.worst = np.zeros(every.shape[1])  # once scaled
        self.low, self.high = every.min(0), every.max(0)
        self.front = self.scaled(every[front(every)])
        self.whole = hypervolume(self.front, self.worst)

    def scaled(self, points: Points) -> Points:
        return (np.asarray(points) - self.low) / (self.high - self.low)

    def scores(self, ops: Sequence[int]) -> tuple[float, ...]:
        """Of the architecture with these ops on the edges, in order."""
        left = iter(ops)
        return self.objective.scores(self.evaluator(decided(self.space, lambda *_: int(next(left)))).metrics)

    def measured(self, points: Points, at: Sequence[int]) -> list[tuple[float, float]]:
        """(log10 of the missing share of the hypervolume, IGD+) after so many trials."""
        scaled = self.scaled(points)
        missing = [1 - hypervolume(scaled[:n], self.worst) / self.whole for n in at]
        return [(float(np.log10(max(share, 1e-12))), igd_plus(scaled[:n], self.front)) for share, n in zip(missing, at)]


def ours(make: Callable[[Space], Searcher]) -> Callable[[Bench, int, int, int], Points]:
    def run(bench: Bench, seed: int, trials: int, population: int) -> Points:
        history = History()
        search = Trials(bench.space, make(bench.space, population), bench.evaluator, bench.objective, Budget(trials=trials), seed, {})
        return np.array([trial.scores for trial in search.run(history)])

    return run


def by_pymoo(bench: Bench, seed: int, trials: int, population: int) -> Points:
    from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.pm import PolynomialMutation
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    found = []

    class Architectures(ElementwiseProblem):
        def _evaluate(self, x, out, *args, **kwargs):
            found.append(bench.scores(x))
            out["F"] = [-score for score in found[-1]]

    edges = len(bench.space.cells["cell"].edges)
    problem = Architectures(n_var=edges, n_obj=len(bench.worst), xl=0, xu=len(nasbench201.OPS) - 1, vtype=int)
    algorithm = PymooNSGA2(pop_size=population, sampling=IntegerRandomSampling(),
                           crossover=UniformCrossover(prob=0.9, repair=RoundingRepair()),
                           mutation=PolynomialMutation(prob=1.0, prob_var=1 / edges, vtype=float, repair=RoundingRepair()))
    minimize(problem, algorithm, ("n_eval", trials), seed=seed)
    return np.array(found[:trials])


def by_optuna(bench: Bench, seed: int, trials: int, population: int) -> Points:
    package, found = optuna(), []
    edges = range(len(bench.space.cells["cell"].edges))

    def objective(trial) -> tuple[float, ...]:
        found.append(bench.scores([trial.suggest_categorical(f"edge {e}", tuple(range(len(nasbench201.OPS)))) for e in edges]))
        return found[-1]

    with silent(package):
        sampler = package.samplers.NSGAIISampler(population_size=population, crossover_prob=0.9, mutation_prob=1 / len(edges), seed=seed)
        package.create_study(directions=["maximize"] * len(bench.worst), sampler=sampler).optimize(objective, n_trials=trials)
    return np.array(found)


HANDS = {"random": ours(lambda space, population: Random(space)),
         "nsga2": ours(lambda space, population: NSGA2(space, population=population, mutation_prob=1 / 6)),
         "pymoo's": by_pymoo, "optuna's": by_optuna}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="nb201.csv.gz, with its companions beside it")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--population", type=int, default=20)
    options = parser.parse_args()
    at = [n for n in (50, 100, 200, 300, 500, 1000) if n < options.trials] + [options.trials]
    rows, fronts = [], {}
    for about, problem in PROBLEMS.items():
        bench = Bench(options.table, problem)
        fronts[about] = {"points": len(bench.front), "columns": bench.evaluator.columns}
        for name, hand in HANDS.items():
            seeds = tracked(range(options.seeds), f"searches of {name}")
            found = np.array([bench.measured(hand(bench, seed, options.trials, options.population), at) for seed in seeds])
            for n, each in zip(at, found.transpose(1, 2, 0)):  # (2, seeds)
                low, high = mean_interval(each[0], np.random.default_rng(0))
                rows.append({"scores": about, "searcher": name, "trials": n, "log10_missing_hypervolume": float(each[0].mean()),
                             "interval_95": [low, high], "igd_plus": float(each[1].mean()), "seeds": each[0].tolist()})
                print(f"{about}: {name:10} {n:5} trials  log10(1 - share) {each[0].mean():6.2f} [{low:.2f}, {high:.2f}]  "
                      f"IGD+ {each[1].mean():.4f}", flush=True)
    write_json(OUT, {"command": "python -m benchmarks.fronts", "options": vars(options) | {"table": options.table.name}, "fronts": fronts,
                     "table": dict(bench.table.files), "environment": describe(torch.device("cpu")), "rows": rows})


if __name__ == "__main__":
    main()
