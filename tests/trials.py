"""What tests of searches by trials share: an architecture whose worth is known, and searches on it."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from supernet.genotype import Genotype
from supernet.objectives import Objective
from supernet.runs.journal import Journal
from supernet.searchers.base import Searcher
from supernet.searchers.loop import Budget, Trials
from supernet.space import Space
from supernet.trials import Evaluation, History, Trial, best
from tests.runs import planted_run


class Additive:
    """Each (edge, op) of a space is worth something, drawn once; an architecture is worth the sum (`accuracy`), of which the best is the
    sum of each node's best. `size` is the sum of other draws, and counts as a second metric. An evaluation sees 10 images, and is said to
    take 1 to 2 seconds."""

    gives = frozenset({"accuracy", "size"})
    shortens = True

    def __init__(self, space: Space, seed: int = 0):
        rng = random.Random(seed)
        self.space = space
        self.worth = {kind: [[rng.random() for _ in spec.ops] for _ in spec.edges] for kind, spec in space.cells.items()}
        self.sizes = {kind: [[rng.random() for _ in spec.ops] for _ in spec.edges] for kind, spec in space.cells.items()}
        self.calls: list[Genotype] = []

    def _sum(self, genotype: Genotype, table: Mapping[str, list[list[float]]]) -> float:
        return sum(table[kind][e][o] for kind, spec in self.space.cells.items() for e, o in spec.rows(genotype[kind]))

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        self.calls.append(genotype)
        metrics = {"accuracy": fidelity * self._sum(genotype, self.worth), "size": self._sum(genotype, self.sizes)}
        return Evaluation(metrics, images=10, simulated_s=1 + metrics["size"] % 1)


def trials(searcher: Searcher, space: Space, *, seed: int = 0, objective: Objective | None = None, evaluator: Additive | None = None,
           budget: Budget | None = None, **options) -> Trials:
    """A search of 60 trials unless another budget is told."""
    return Trials(space, searcher, evaluator or Additive(space), objective or Objective(), budget or Budget(trials=60), seed,
                  options.pop("costs", {}), **options)


def run(search: Trials, history: History | None = None) -> list[Trial]:
    """All trials of a search, those of `history` among them, without the seconds that passed."""
    history = history or History()
    for _ in search.run(history):
        pass
    return [trial._replace(wall_s=0.0) for trial in history]


def planted_search(where: Path, found: Sequence[Trial], *, status: str = "finished", **objective) -> Path:
    """The folder that a search of these trials leaves. objective: options of it, by which the trials were scored."""
    planted_run(where, job="trials", status=status, objective={"_target_": "supernet.objectives.Objective", "maximise": ["accuracy"],
                                                               **objective})
    for path in (where / "metrics.jsonl", *([where / "summary.json", where / "genotype.json"] if status != "finished" else [])):
        path.unlink()
    if (top := best(found)) is not None and status == "finished":
        top.genotype.save(where / "genotype.json")
    journal = Journal(where / "trials.jsonl")
    for trial in found:
        journal.append(trial.to_json(), chained=True)
    return where
