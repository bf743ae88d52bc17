"""Ways to find the best sub-network within limits. Each gives architectures, the best by its own lights first; whoever asked holds them
against what is measured, and takes the first that keeps all limits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from supernet.costs.base import CostError
from supernet.costs.exact import additive_score, optimum, solved
from supernet.deployment.limits import Bound, none_within, repaired, within, worst
from supernet.errors import UsageError
from supernet.evaluators.shared_weights import as_found
from supernet.genotype import Genotype
from supernet.networks.stacked import batch_norms
from supernet.penalties.cost import CostLimit
from supernet.relaxations.base import Relaxation
from supernet.relaxations.reinmax import ReinMax
from supernet.searchers.spos import SinglePathEvolution
from supernet.select.within_cost import strongest_within
from supernet.space import Space
from supernet.tasks.base import Batch, Task
from supernet.trials import History, Trial, source


@dataclass
class Problem:
    """score(genotype): higher is better; found once an architecture, with the supernet's weights. sampled: architectures, the same for all
    limits, of which scores are known or will be. holds(genotype): whether it keeps all bounds, by what is counted and measured. working:
    to be called now and then; ends the work where that was asked for. told(line): for people. evaluated(): all architectures of which
    scores are known, also from other limits. facts: what a method says of its result, plain values."""

    space: Space
    bounds: Sequence[Bound]
    score: Callable[[Genotype], float]
    sampled: Sequence[Genotype]
    holds: Callable[[Genotype], bool]
    seed: int
    working: Callable[[], None] = lambda: None
    told: Callable[[str], None] = lambda line: None
    evaluated: Callable[[], Sequence[Genotype]] = tuple
    facts: dict[str, Any] = field(default_factory=dict)

    def best_first(self, found: Sequence[Genotype]) -> list[Genotype]:
        """These and all evaluated ones that are within the bounds by their plans; of equal scores the furthest within, then the first."""
        others = [genotype for genotype in self.evaluated() if worst(self.bounds, genotype) <= 0]
        return sorted(dict.fromkeys([*found, *others]), key=lambda g: (-self.score(g), worst(self.bounds, g)))


class Method(Protocol):
    def __call__(self, problem: Problem) -> Iterator[Genotype]: ...


# ---- evolution over the shared weights


@dataclass(frozen=True)
class Evolution:
    """The evolution of single path one-shot (`searchers.spos`), after the sampled architectures that are within the bounds: so many
    `trials` more, each brought within the bounds before it is evaluated, so that nothing is spent on what could not be deployed. Of each
    trial so many are `drawn`, and that which an additive model of all scores so far puts first is evaluated; the model is made at the
    beginning of a generation."""

    trials: int = 100
    population: int = 20
    drawn: int = 8

    def __call__(self, problem: Problem) -> Iterator[Genotype]:
        space, history = problem.space, History()
        anchor = anchor_of(problem)
        for genotype in problem.sampled:
            fits = worst(problem.bounds, genotype) <= 0
            same = space.canonical(genotype)
            history.append(Trial(len(history), same, (problem.score(same),) if fits else (), refused=None if fits else "beyond a limit"))
        begin = len(history)
        searcher = SinglePathEvolution(space, population=self.population, parents=max(1, self.population // 2),
                                       mutations=self.population // 2, crossovers=self.population // 2)
        model: Callable[[Genotype], float] = lambda genotype: 0.0
        for number in range(begin, begin + self.trials):
            if (number - begin) % self.population == 0 and (known := history.evaluated()):
                model = additive_score(space, [trial.genotype for trial in known], [trial.scores[0] for trial in known])
            children = []
            for n in range(self.drawn):
                problem.working()
                history.number, history.begin, rng = number, begin, source(problem.seed, number, str(n))
                child = repaired(space, searcher.ask(history, rng).genotype, problem.bounds, anchor, rng)
                children.append(space.canonical(child))
            kept = [child for child in children if worst(problem.bounds, child) <= 0] or children  # a plan may count what does not run
            child = max(kept, key=lambda g: (g not in history.met, model(g)))  # of equals the first
            history.append(Trial(number, child, (problem.score(child),)))
        problem.facts |= {"evaluated": len({t.genotype for t in history.evaluated()})}
        yield from problem.best_first([trial.genotype for trial in history.evaluated()])


def anchor_of(problem: Problem) -> Genotype:
    """An architecture within all bounds. Raises UsageError: none was found."""
    if not problem.bounds:
        return problem.space.canonical(problem.sampled[0])
    found = within(problem.space, problem.bounds)
    if found is None:
        raise UsageError(none_within(problem.space, problem.bounds))
    return found


# ---- alphas on the frozen supernet

LESS = 0.98  # of what an architecture was planned to take that takes too much: what the next one may be planned to take


@dataclass(frozen=True)
class Gradient:
    """Alphas alone are trained, the supernet being as it is: each draw is one architecture, with a gradient for all choices (ReinMax, Liu
    et al. 2023; of four relaxations it served best on one supernet of digits), norms go by each batch's own statistics, and
    each bound is an augmented Lagrangian on the expected plan (`penalties.cost`). Then the most probable architecture within the bounds
    (`select.within_cost`); where what is measured says that it is not, the next is sought within so much less.

    batches(): an endless stream of the part that alphas learn from. steps: updates of the alphas.
    """

    net: nn.Module
    task: Task
    batches: Callable[[], Iterator[Batch]]
    steps: int = 150
    lr: float = 0.1
    tries: int = 20

    def __call__(self, problem: Problem) -> Iterator[Genotype]:
        anchor = anchor_of(problem)
        weights = self._trained(problem).mean().detach()
        limit = 1.0
        for _ in range(self.tries):
            share = _Largest(problem.bounds)
            try:
                found = strongest_within(problem.space, weights, share, limit, problem.working)
            except CostError:  # its walk of single changes has met no way to less
                break
            yield problem.space.canonical(found)
            over = max((b.quantity.of(found) / b.limit for b in problem.bounds if not b.quantity.counted), default=1.0)
            limit = share(found) * min(LESS, LESS / over)
        yield anchor

    def _trained(self, problem: Problem) -> Relaxation:
        device = next(self.net.parameters()).device
        generator = torch.Generator().manual_seed(problem.seed)
        relaxation = ReinMax(problem.space, generator).to(device)
        penalties = [CostLimit(problem.space, bound.quantity.plan, limit=max(bound.limit, bound.quantity.plan.least()))
                     for bound in problem.bounds]
        optimizer = torch.optim.Adam(relaxation.parameters(), lr=self.lr)
        norms = [norm for norm in batch_norms(self.net) if norm.running_mean is not None]
        draws = torch.Generator(device).manual_seed(problem.seed)
        wanted = [(p, p.requires_grad) for p in self.net.parameters()]
        with as_found(self.net, norms, draws):
            self.net.eval().requires_grad_(False)
            for norm in norms:
                norm.by_batch = True
            try:
                for step, batch in zip(range(self.steps), self.batches()):
                    problem.working()
                    relaxation.anneal(step / max(1, self.steps - 1), step)
                    draw = relaxation(draws)
                    loss = self.task(self.net, batch, draw, generator=draws).loss
                    total = loss + sum(penalty(loss, draw, relaxation) for penalty in penalties)
                    optimizer.zero_grad()
                    total.backward()
                    optimizer.step()
                    for penalty in penalties:
                        penalty.after_step(relaxation)
            finally:
                for p, is_wanted in wanted:
                    p.requires_grad_(is_wanted)
        problem.facts |= {"steps": self.steps, "multipliers": {b.quantity.name: float(p.multiplier)
                                                               for b, p in zip(problem.bounds, penalties)}}
        return relaxation


class _Largest:
    """The largest of the planned costs, each as a share of its limit, as a cost."""

    name, unit = "largest share", "of its limit"

    def __init__(self, bounds: Sequence[Bound]):
        self.bounds = bounds

    def __call__(self, genotype: Genotype) -> float:
        return 1 + max(worst(self.bounds, genotype), -1.0)


# ---- the exact optimum of an additive model


@dataclass(frozen=True)
class Exact:
    """A number for each choice, fitted to the scores of the sampled architectures; the best sums within the bounds, exactly, one after the
    other (`costs.exact`). The first so many `candidates` that keep all limits are evaluated, and are given by their real scores, among
    all that were evaluated. The certificate is the model's: no architecture within the planned bounds has a higher sum than `bound`."""

    candidates: int = 10
    tries: int = 100

    def __call__(self, problem: Problem) -> Iterator[Genotype]:
        space = problem.space
        model = additive_score(space, problem.sampled, [problem.score(genotype) for genotype in problem.sampled])
        found: list[Genotype] = []
        met: list[Genotype] = []
        for number in range(self.tries):
            problem.working()
            limits = {b.quantity.name: (b.quantity.plan, b.limit) for b in problem.bounds}
            best = optimum(space, model, limits) if not met else solved(space, model, limits, met)
            if best is None:
                break
            same = space.canonical(best.genotype)
            met.append(best.genotype)
            if number == 0:
                problem.facts |= {"model_value": best.value, "model_bound": best.bound, "fitted_to": len(problem.sampled)}
                problem.told(f"additive model of {len(problem.sampled)} architectures: best sum {best.value:.4f}, and no architecture "
                             f"within the limits has more than {best.bound:.4f}")
            if problem.holds(same):
                found.append(same)
                if len(found) == 1:
                    problem.facts |= {"first_model_value": model(best.genotype), "first_score": problem.score(same)}
            if len(found) == self.candidates:
                break
        yield from problem.best_first(found)
