"""What a search offers the evaluator of its trials, and how a search by trials is made from its options."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra import compose as hydra_compose
from omegaconf import DictConfig
from torch import nn

from ops.kernels import Backend
from supernet.app import compose
from supernet.app.build import build
from supernet.app.checks import validate
from supernet.app.compose import FinalRead, Machine, Met, Read, SearchParts
from supernet.app.options import choices, overrides, plain
from supernet.app.retraining import carried
from supernet.costs.base import CostError
from supernet.data.base import Data
from supernet.data.loader import SearchLoaders
from supernet.errors import UsageError
from supernet.evaluators.base import Known, SearchEvaluator, check_share
from supernet.genotype import Genotype
from supernet.interfaces import check_interface
from supernet.networks.build import final_normalisation
from supernet.objectives import Objective
from supernet.processes.group import ALONE, Group
from supernet.relaxations.base import Relaxation
from supernet.searchers.base import Searcher
from supernet.searchers.given import Given
from supernet.searchers.hybrid import Hybrid
from supernet.searchers.loop import Budget, Trials
from supernet.select.learned import learned
from supernet.space import Space
from supernet.tables.table import Table
from supernet.tasks.base import Task
from supernet.training.final import FinalLoop
from supernet.training.records import Generators
from supernet.training.stages import Stages, widen_genotype

CARRIED = ("device", "threads", "backend", "workers", "channels_last", "deterministic", "amp", "tf32")  # to what is trained alone


class SearchOffer:
    """As `supernet.evaluators.base.Offer`, from the options of a search. words: the overrides that chose it, of which trainings of
    architectures alone get those of the data; working: what they call now and then; group: of the processes that search together."""

    def __init__(self, cfg: DictConfig, space: Space, words: Sequence[str] = (), working: Callable[[], None] = lambda: None,
                 group: Group = ALONE):
        self.cfg, self.whole, self.words, self.working, self.group = cfg, space, words, working, group
        self.space = compose.without_ops(space, cfg.exclude_ops)
        self.seed, self.folder = cfg.seed, None
        self._met: Met | None = None  # by trainings of architectures alone
        self._read: tuple[dict[str, Any], FinalRead] | None = None  # by them, with the options that it was read by
        self._final: dict[tuple[str, ...], DictConfig] = {}
        self.folder: Path | None

    @cached_property
    def machine(self) -> Machine:
        return compose.search_machine(self.cfg, self.group)

    @cached_property
    def read(self) -> Read:
        return compose.search_read(self.cfg, self.machine)

    @cached_property
    def parts(self) -> SearchParts:
        return compose.search_parts(self.cfg, self.machine, self.read)

    @cached_property
    def stages(self) -> Stages:
        return compose.search_stages(self.cfg, self.parts)

    @cached_property
    def table(self) -> Table | None:
        """What is known of architectures, for the record."""
        return self.parts.table if self.made("parts") else None if self.cfg.table is None else build(self.cfg.table)(self.whole)

    def made(self, what: str) -> bool:
        """Whether somebody has asked for it."""
        return what in vars(self)

    @property
    def met(self) -> Met:
        """What the run has met of data so far."""
        return Met.of(self.read.data, self.read.loaders) if self.made("read") else self._met or Met()

    @property
    def device(self) -> torch.device:
        return self.machine.device

    @property
    def backend(self) -> Backend:
        return self.machine.backend

    @cached_property
    def data(self) -> Data:
        return self.read.data if self.made("read") else build(self.cfg.dataset.data)

    @property
    def loaders(self) -> SearchLoaders:
        return self.read.loaders

    @property
    def task(self) -> Task:
        return self.read.task

    @property
    def net(self) -> nn.Module:
        return self.parts.net

    @property
    def relaxation(self) -> Relaxation:
        return self.parts.relaxation

    @property
    def dataset(self) -> str:
        return str(self.cfg.dataset.name)

    def widened(self, genotype: Genotype) -> Genotype:
        return genotype if self.space is self.whole else widen_genotype(self.whole, genotype)

    def generator(self, name: str) -> torch.Generator:
        return Generators.from_seed(self.seed, {f"trials/{name}": self.device})[f"trials/{name}"]

    def network(self, genotype: Genotype) -> nn.Module:
        norm = final_normalisation(self.cfg.compat.pool_norm, self.cfg.compat.bn_statistics)
        candidates = self.whole.candidates(self.widened(genotype))
        return compose.network(self.cfg, self.whole, candidates, self.data, norm, self.device)

    def final(self, genotype: Genotype, *, seed: int, options: Mapping[str, Any]) -> FinalLoop:
        cfg = self.final_options(options).copy()
        read, cfg.seed = self._final_read(cfg), seed
        read.restart(seed, self.device)
        return compose.final_loop(cfg, self.whole, self.widened(genotype), read, self.device)

    def _final_read(self, cfg: DictConfig) -> FinalRead:
        """What trainings with these options read: the same images for all, by the seed of the search, and read once. Trainings of one
        process follow each other."""
        if self._read is None or self._read[0] != plain(cfg):
            self.machine  # noqa: B018  (settles threads and device)
            cfg.seed = self.seed
            self._read = plain(cfg), compose.final_read(cfg, self.device)
            self._met = Met.of(self._read[1].data, self._read[1].loaders)
        return self._read[1]

    def final_options(self, options: Mapping[str, Any]) -> DictConfig:
        """train_final.py's options for an architecture of this search. Raises UsageError through `validate`."""
        words = carried(self.words, dataset=self.dataset, retrain=self.cfg.retrain, task=plain(self.cfg.task), space=self.whole.name,
                        spaces=choices("space"))
        words += [*overrides({key: self.cfg[key] for key in CARRIED}), *overrides(dict(options))]
        key = tuple(words)
        if key not in self._final:
            self._final[key] = hydra_compose("final", overrides=words)
            validate(self._final[key], "train_final")
            compose.settle_sizes(self._final[key], self.whole, lambda name: False)
        return self._final[key]


def content_of(cfg: DictConfig, space: Space) -> dict[str, Any]:
    """Options of a search by trials that count by what lies behind them: an evaluator's table by the digests of its files, wherever they
    lie. Raises UsageError, TableError."""
    if cfg.searcher is None or cfg.evaluator.get("table") is None:
        return {}
    table = build(cfg.evaluator.table)(space)
    return {"evaluator": plain(cfg.evaluator) | {"table": {} if table is None else dict(table.files)}}


def evaluator_of(cfg: DictConfig, offer: SearchOffer) -> SearchEvaluator:
    """Raises UsageError, InterfaceError: it cannot be had, or is none."""
    with offer.group.apart():  # as it evaluates
        made = build(cfg.evaluator)(offer)
    check_interface(made, SearchEvaluator, "evaluator")
    if made.alone and offer.group.size > 1:
        raise UsageError(f"evaluator {type(made).__name__} works in one process, got {offer.group.size}: {made.alone}")
    return made


def trials_of(cfg: DictConfig, offer: SearchOffer, evaluator: SearchEvaluator) -> Trials:
    """The search by trials. Raises UsageError where its parts do not fit each other, or nothing could come of it."""
    budget, objective = Budget(**cfg.budget), build(cfg.objective)
    searcher = searcher_of(cfg, offer)
    known = costs_of(cfg, offer, objective, evaluator)
    trials = Trials(offer.space, searcher, evaluator, objective, budget, cfg.seed, known, repeats=cfg.repeats, patience=cfg.patience,
                    images_before=evaluator.images_before)
    check_limits(objective, known, offer.whole)
    check_population(searcher, offer.space)
    check_share(searcher.shortest, evaluator.shortest)
    return trials


def searcher_of(cfg: DictConfig, offer: SearchOffer) -> Searcher:
    """The searcher; with `learned`, after so many trials of what the relaxation will have learned. Raises UsageError: it learns nothing."""
    searcher = build(cfg.searcher)(offer.space)
    check_interface(searcher, Searcher, "searcher")
    if not cfg.learned:
        return searcher
    if not any(True for _ in offer.relaxation.parameters()):
        raise UsageError(f"learned={cfg.learned} begins with what the relaxation has learned, and {type(offer.relaxation).__name__} learns "
                         "nothing: pass learned=0, or another relaxation")

    def genotypes() -> list[Genotype]:
        return learned(offer.space, offer.relaxation, cfg.learned, offer.generator("learned"))

    return Hybrid(offer.space, parts={"learned": lambda space: Given(genotypes, "learned"), "then": lambda space: searcher},
                  trials={"learned": cfg.learned})


def costs_of(cfg: DictConfig, offer: SearchOffer, objective: Objective, evaluator: SearchEvaluator) -> dict[str, Known]:
    """What is known of architectures before an evaluation: what the evaluator knows, the search's `cost`, and such costs as the objective
    names, with the sizes that their yaml has."""
    found = dict(evaluator.costs)
    nodes = [] if cfg.cost is None else [cfg.cost]
    made = [cost_of(node, offer) for node in nodes]
    found |= dict(made)
    for name in objective.needs:
        if name not in found and name not in evaluator.gives and name in choices("cost"):
            own = cfg.copy()
            own.cost = hydra_compose(f"cost/{name}").cost
            found |= dict([cost_of(own.cost, offer)])
    return found


def cost_of(node: DictConfig, offer: SearchOffer) -> tuple[str, Known]:
    """A cost by its name."""
    cost = build(node)(offer.whole, **offer.data.sizes)
    least = None
    with suppress(CostError):  # of a measured one nothing is known before
        least = cost.least()
    return cost.name, Known(lambda genotype: cost(offer.widened(genotype)), least)


def check_limits(objective: Objective, known: Mapping[str, Known], space: Space) -> None:
    """Raises UsageError: a limit that no architecture keeps."""
    for name, limit in objective.at_most.items():
        if name in known and known[name].least is not None and known[name].least > limit:
            raise UsageError(f"objective.at_most.{name} is {limit:g}, and every architecture of space {space.name} has at least "
                             f"{known[name].least:g}")
    for name, limit in objective.at_least.items():
        if name in known and known[name].most is not None and known[name].most < limit:
            raise UsageError(f"objective.at_least.{name} is {limit:g}, and every architecture of space {space.name} has at most "
                             f"{known[name].most:g}")


def check_population(searcher: Searcher, space: Space) -> None:
    """Raises UsageError: a searcher that begins with more architectures than there are."""
    if searcher.population > (count := space.count()):
        raise UsageError(f"searcher: a population of {searcher.population:,} needs as many architectures, and space {space.name} has "
                         f"{count:,}: pass a smaller one")
