"""A short training of each architecture alone, as train_final.py trains one: the evaluation that shares nothing with any other."""

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supernet.errors import UsageError
from supernet.evaluators.base import Offer, SearchEvaluator, check_share, metrics_of
from supernet.genotype import Genotype
from supernet.ranges import Count, NonNegative, ranged
from supernet.runs import checkpoint
from supernet.runs.checkpoint import CheckpointError
from supernet.runs.claim import claim, claimed
from supernet.training.final import FinalLoop, fit_final
from supernet.training.guard import Diverged
from supernet.training.records import Silent
from supernet.trials import Evaluation

FOLDER = "trainings"  # of a run
MB = 1_000_000


@ranged
class FromScratch(SearchEvaluator):
    """The task's metrics on images that are held out of the training part, after `epochs` epochs; the test part is not opened. What is
    trained, and how, is what train_final.py does with `options`, {name: value} in the form of its configs, on the data of the search.

    patience: a training ends early once its validation loss has not fallen for so many epochs, and its metrics are those of the epoch
    with the lowest (Prechelt 1998); None: it does not, and they are those of the last epoch. A training whose loss is not finite any more
    ends there, and has NaN for all metrics.

    The same architecture is trained to the same bits wherever and whenever it is asked for: initial values, order of images and
    augmentation come from the seed and from the architecture's canonical form, the split of the images from the seed alone.

    fidelity: the share of the epochs that is trained, rounded to whole ones; learning rate and drop path run over all of them in any
    case. A training that is cut short is kept in the run's folder, and is gone on with when more of it is asked for, to the bits of one
    that was not cut; only the epochs that are added count as images. Of those that can be gone on with, the newest are kept, up to
    `kept_mb` million bytes; one that was not kept begins anew, for the images that it takes.
    """

    shortens = True
    alone = "a training takes longer than those that were started together may wait for each other; pass processes=N without torchrun"

    def __init__(self, offer: Offer, *, epochs: Count = 2, patience: Count | None = None, kept_mb: NonNegative = 1000.0,
                 options: Mapping[str, Any] | None = None):
        self.offer, self.epochs, self.patience, self.kept_mb = offer, epochs, patience, kept_mb
        self.shortest = 1 / epochs
        self.options = dict(full_names(options or {})) | {"epochs": epochs}
        loop = self._loop(offer.space.sample(random.Random(0)))  # so that what cannot be trained says so before any work
        if loop.val is None:
            raise UsageError("evaluator=from_scratch compares by images that are held out of the training part, and there are none: pass "
                             "evaluator.options.split.val_portion above 0")
        self.gives = metrics_of(loop.task)

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        """Raises UsageError: the share of the epochs is less than one epoch."""
        until, genotype = self._until(fidelity), self.offer.whole.canonical(self.offer.widened(genotype))
        folder = self._folder(genotype)
        with nullcontext() if folder is None else claim(folder.parent, genotype.digest):  # of several processes one trains it
            return self._evaluated(genotype, until)

    def _evaluated(self, genotype: Genotype, until: int) -> Evaluation:
        kept = self._kept(genotype)
        if (known := kept.known(until)) is not None:
            return known
        loop = self._loop(genotype)
        watch = Watch(loop, self.patience, self.offer)
        if kept.moving is not None and kept.epoch <= until:
            for name, part in (loop.stateful() | {"watch": watch}).items():
                part.load_state_dict(kept.moving[name])
        before = watch.images
        try:
            fit_final(loop, self.epochs, watch, until=until, enough=watch.enough)
        except Diverged:
            watch.diverge()
        found = Evaluation(watch.metrics(sorted(self.gives)), images=watch.images - before)
        self._keep(genotype, kept.after(until, found, loop, watch, ended=loop.position.epoch == self.epochs or watch.ended()))
        return found

    def _until(self, fidelity: float) -> int:
        check_share(fidelity, self.shortest)
        return round(fidelity * self.epochs)

    def _loop(self, genotype: Genotype) -> FinalLoop:
        name = self.offer.whole.canonical(self.offer.widened(genotype)).digest
        drawn = hashlib.sha256(f"{self.offer.seed}/{name}".encode()).digest()
        return self.offer.final(genotype, seed=int.from_bytes(drawn[:7], "little"), options=self.options)

    # ---- what is kept between evaluations

    def _folder(self, genotype: Genotype) -> Path | None:
        return None if self.offer.folder is None else self.offer.folder / FOLDER / genotype.digest

    def _kept(self, genotype: Genotype) -> "Kept":
        folder = self._folder(genotype)
        if folder is None or not checkpoint.has_checkpoint(folder):
            return Kept()
        try:
            return Kept(**checkpoint.load(folder).state)
        except CheckpointError:
            return Kept()  # damaged: it begins anew, and comes to the same bits

    def _keep(self, genotype: Genotype, kept: "Kept") -> None:
        """Raises CheckpointError: it cannot be written."""
        folder = self._folder(genotype)
        if folder is None:
            return
        kept.save(folder)
        partial = sorted(folder.parent.glob(f"*/{PARTIAL}*.pt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        left = sum(path.stat().st_size for path in partial)
        for path in partial:
            if left <= self.kept_mb * MB:
                return
            if path.parent == folder or not claimed(folder.parent, path.parent.name):  # what another process trains is left to it
                left -= path.stat().st_size
                Kept(results=checkpoint.load(path.parent).state["results"]).save(path.parent)


PARTIAL, RESULTS = "epoch_", "results_"  # files that trainings can be gone on with from, and files of what has come out alone


@dataclass
class Kept:
    """What is known of the training of one architecture.

    epoch: up to which it was trained. results: by the epoch that it was to be trained to, metrics and images of that evaluation. moving:
    all that moves, to go on with; None where nothing was kept. final: where the training has ended, so that longer ones would be the same,
    its metrics.
    """

    epoch: int = 0
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    moving: dict[str, Any] | None = None
    final: dict[str, float] | None = None

    def known(self, until: int) -> Evaluation | None:
        """What was found before: that of a trial which a run could not write before it was ended, and is asked for again, costs what it has
        cost; to go on with a training that has ended costs nothing."""
        if until in self.results:
            return Evaluation(self.results[until]["metrics"], images=self.results[until]["images"])
        return None if self.final is None or until < self.epoch else Evaluation(self.final)

    def after(self, until: int, found: Evaluation, loop: FinalLoop, watch: "Watch", *, ended: bool) -> "Kept":
        """With one more evaluation. What was trained less far than what is kept adds its result alone."""
        results = self.results | {until: {"metrics": dict(found.metrics), "images": found.images}}
        if loop.position.epoch < self.epoch:
            return Kept(self.epoch, results, self.moving, self.final)
        moving = None if ended else {name: part.state_dict() for name, part in (loop.stateful() | {"watch": watch}).items()}
        epoch = loop.position.epoch + watch.diverged  # the one in which it went astray counts
        return Kept(epoch, results, moving, dict(found.metrics) if ended else None)

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, vars(self), name=f"{RESULTS if self.moving is None else PARTIAL}{self.epoch:06d}", keep=1)


class Watch(Silent):
    """Counts images, knows the best epoch, and says when a training is to end. offer: who is asked whether the run is to stop."""

    def __init__(self, loop: FinalLoop, patience: int | None, offer: Offer):
        self.loop, self.patience, self.offer = loop, patience, offer
        self.images, self.waited = 0, 0  # in all, and epochs since the best
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.diverged = False
        self._within = 0  # images of an epoch that is not over

    def step(self, items: int, totals: Any) -> None:
        self._within += items
        self.offer.working()

    def epoch(self, record: dict[str, Any], genotype: Genotype | None) -> None:
        self.images, self._within = self.images + self.loop.train.num_items + self.loop.val.num_items, 0
        self.last = {name.removeprefix("val_"): value for name, value in record.items() if name.startswith("val_")}
        if not self.best or self.last["loss"] < self.best["loss"]:
            self.best, self.waited = self.last, 0
        else:
            self.waited += 1
        self.offer.working()

    def enough(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def diverge(self) -> None:
        """The loss was not finite any more."""
        self.images, self.diverged = self.images + self._within, True

    def ended(self) -> bool:
        """Before its last epoch."""
        return self.diverged or self.enough()

    def metrics(self, names: list[str]) -> dict[str, float]:
        if self.diverged:
            return dict.fromkeys(names, math.nan)
        return {name: (self.last if self.patience is None else self.best)[name] for name in names}

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "waited": self.waited, "last": dict(self.last), "best": dict(self.best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images, self.waited, self.last, self.best = state["images"], state["waited"], dict(state["last"]), dict(state["best"])


def full_names(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{split: {max_train: 9}}` as `split.max_train` and its value."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from full_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
