"""What is wanted of an architecture: scores from metrics and costs, and limits that it must keep. No torch."""

import math
from collections.abc import Mapping, Sequence

from supernet.errors import UsageError, did_you_mean, nearest
from supernet.ranges import Finite, Positive, ranged


@ranged
class Objective:
    """Scores of an architecture, all higher is better: the metrics named by `maximise`, and the negative of those named by `minimise`, in
    this order. Several are a front; with `weights`, one number for each, they are summed into one score.

    at_most, at_least: hard limits by metric. An architecture beyond one is refused; where the metric is a cost that is known without
    training, it is refused before anything is spent on it.
    """

    def __init__(self, *, maximise: Sequence[str] = ("accuracy",), minimise: Sequence[str] = (),
                 weights: Mapping[str, Positive] | None = None, at_most: Mapping[str, Finite] | None = None,
                 at_least: Mapping[str, Finite] | None = None):
        self.maximise, self.minimise = tuple(maximise), tuple(minimise)
        self.weights, self.at_most, self.at_least = weights, dict(at_most or {}), dict(at_least or {})
        named = [*self.maximise, *self.minimise]
        if not named or len(set(named)) < len(named):
            raise UsageError(f"objective.maximise and objective.minimise must name metrics, each once, got {named}")
        if weights is not None and set(weights) != set(named):
            raise UsageError(f"objective.weights must have a number for each of {', '.join(named)}, got {', '.join(weights) or 'none'}")

    @property
    def names(self) -> tuple[str, ...]:
        """What the scores are of, in words."""
        single = (*self.maximise, *(f"-{name}" for name in self.minimise))
        if self.weights is None:
            return single
        return (" ".join(f"{sign} {self.weights[name]:g} {name}" for sign, names in (("+", self.maximise), ("-", self.minimise))
                         for name in names).removeprefix("+ "),)

    @property
    def needs(self) -> tuple[str, ...]:
        """All metrics that scores and limits are made from."""
        return tuple(dict.fromkeys((*self.maximise, *self.minimise, *self.at_most, *self.at_least)))

    def check(self, known: Sequence[str]) -> None:
        """Raises UsageError: a metric is asked for that is not among those `known`."""
        for name in self.needs:
            if name not in known:
                raise UsageError(f"objective: there is no metric {name!r} here, expected one of {nearest(name, known)}"
                                 f"{did_you_mean(name, known)}")

    def scores(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Minus infinity, the worst there is, for NaN (a training that went astray), and all of them where a limit is broken that only
        the evaluation could tell."""
        if self.broken(metrics) is not None:
            return (-math.inf,) * len(self.names)
        single = [metrics[name] for name in self.maximise] + [-metrics[name] for name in self.minimise]
        if self.weights is not None:
            signed = [self.weights[name] * value for name, value in zip((*self.maximise, *self.minimise), single)]
            single = [math.fsum(signed)]
        return tuple(-math.inf if math.isnan(value) else float(value) for value in single)

    def broken(self, metrics: Mapping[str, float]) -> str | None:
        """The first limit that these metrics break, in words; limits on others are not looked at."""
        for limits, sign, word in ((self.at_most, 1, "above"), (self.at_least, -1, "below")):
            for name, limit in limits.items():
                if name in metrics and not sign * metrics[name] <= sign * limit:  # NaN keeps no limit
                    return f"{name} {metrics[name]:g} is {word} {limit:g}"
        return None
