"""What the scores of a search by trials are of, as its page names them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from supernet.objectives import Objective
from supernet.report.names import plain
from supernet.report.run_files import UNEXPECTED, RunFiles

LONGEST = 60  # characters of a name: a weighted sum is one


class Score(NamedTuple):
    """metric: what it is of. sign: -1 where it is the negative of that, so that less is better."""

    metric: str
    sign: int

    @property
    def label(self) -> str:
        return label(self.metric)

    def shown(self, value: float) -> float:
        """A score as the metric's value."""
        return self.sign * value + 0.0


def label(metric: str) -> str:
    return plain(metric.replace("_", " "), LONGEST)


def objective(run: RunFiles) -> Objective | None:
    """As the run's options have it; None where they do not say, or are not those of this objective."""
    options = run.options.get("objective")
    try:
        return Objective(**{key: value for key, value in options.items() if not key.startswith("_")})
    except UNEXPECTED:
        return None


def scores_of(run: RunFiles) -> list[Score]:
    """One for each score of a trial."""
    many = max((len(trial.scores) for trial in run.trials), default=0)
    wanted = objective(run)
    names = wanted.names if wanted is not None and len(wanted.names) == many else [f"score {n + 1}" for n in range(many)]
    minimised = wanted.minimise if wanted is not None and wanted.weights is None else ()
    return [Score(name[1:], -1) if name[:1] == "-" and name[1:] in minimised else Score(name, 1) for name in names]


def limits(run: RunFiles) -> Mapping[str, list[float]]:
    """The hard limits of each metric."""
    wanted = objective(run)
    found: dict[str, list[Any]] = {}
    for some in () if wanted is None else (wanted.at_most, wanted.at_least):
        for metric, limit in some.items():
            found.setdefault(metric, []).append(float(limit))
    return found
