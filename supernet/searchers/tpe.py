"""The tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, as a searcher; extra `search`."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.ranges import Count, Whole, ranged
from supernet.searchers.base import Searcher
from supernet.searchers.decisions import Key, check_decidable, decided, decisions
from supernet.space import Space
from supernet.trials import History, Proposal, Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@ranged
class TPE(Searcher):
    """Each decision about an architecture (`searchers.decisions`) is a categorical parameter by itself, since which there are depends on
    those before. The first `initial` trials are random; then each parameter is the best of `candidates` draws.

    For each trial a new study is made, with the history put back and a sampler of the trial's own seed, so that the next proposal follows
    from the history alone; Optuna's defaults apart from the two. Of several scores its own extension is used (Ozaki et al. 2022). What was
    refused teaches nothing, and is not asked for again. Raises UsageError: Optuna is missing; an edge of the space may hold several ops.
    """

    many = True

    def __init__(self, space: Space, *, initial: Whole = 10, candidates: Count = 24):
        check_decidable(space, "tpe")
        self.space, self.initial, self.candidates, self._optuna = space, initial, candidates, optuna()
        self._known: dict[Genotype, tuple[dict[str, int], dict[str, Any]]] = {}  # parameters and their distributions

    def ask(self, history: History, rng: random.Random) -> Proposal:
        told = [trial for trial in history if trial.refused is None]
        longest = max((trial.fidelity for trial in told), default=1.0)
        told = [trial for trial in told if trial.fidelity == longest]
        with silent(self._optuna):
            sampler = self._optuna.samplers.TPESampler(n_startup_trials=self.initial, n_ei_candidates=self.candidates,
                                                       seed=rng.getrandbits(32))
            study = self._optuna.create_study(directions=["maximize"] * (len(told[0].scores) if told else 1), sampler=sampler)
            for trial in told:
                study.add_trial(self._frozen(trial))
            asked = study.ask()

            def chosen(key: Key, size: int, allowed: tuple[int, ...]) -> int:
                return asked.suggest_categorical(name(key, allowed), allowed)

            found = decided(self.space, chosen)
        if found in history.refused:  # which teaches nothing, so that it would come again and again
            return Proposal(self.space.sample(rng), change="random, after one refused before")
        return Proposal(found, change="tpe")

    def _frozen(self, trial: Trial) -> "FrozenTrial":
        if trial.genotype not in self._known:
            made = decisions(self.space, trial.genotype)
            self._known[trial.genotype] = ({name(d.key, d.allowed): d.taken for d in made}, {
                name(d.key, d.allowed): self._optuna.distributions.CategoricalDistribution(d.allowed) for d in made})
        params, distributions = self._known[trial.genotype]
        return self._optuna.trial.create_trial(params=params, distributions=distributions, values=trial.scores)


def name(key: Key, allowed: tuple[int, ...]) -> str:
    """Of a parameter: Optuna wants the same choices wherever one stands, so that those which are left belong to the name."""
    return f"{'/'.join(map(str, key))}/{','.join(map(str, allowed))}"


def optuna() -> ModuleType:
    """Optuna, which takes a second to import. Raises UsageError."""
    try:
        import optuna
    except ImportError as error:
        raise UsageError(f"searcher=tpe needs Optuna ({error}): pip install \"supernet[search]\", or choose another searcher") from error
    return optuna


@contextmanager
def silent(package: ModuleType) -> Iterator[None]:
    """Without a line for each study that is made; as it was afterwards."""
    before = package.logging.get_verbosity()
    package.logging.set_verbosity(package.logging.WARNING)
    try:
        yield
    finally:
        package.logging.set_verbosity(before)
