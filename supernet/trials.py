"""What a search by trials hands around: a proposal, what evaluating it gave, and the journal of all trials. Plain data, no torch."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from supernet.genotype import FORMAT, Genotype, short
from supernet.space import Space


class Proposal(NamedTuple):
    """What a searcher asks for. parents: numbers of the trials that it was made from, with `change`, what was done to them, in a few words.
    fidelity: the share, above 0 and at most 1, of the whole training that it is to get, where the evaluator trains."""

    genotype: Genotype
    parents: tuple[int, ...] = ()
    change: str = ""
    fidelity: float = 1.0


class Evaluation(NamedTuple):
    """What evaluating an architecture gave: metrics by name; images that were seen for it, in training and in evaluation; seconds that a
    table says it would have taken."""

    metrics: Mapping[str, float]
    images: int = 0
    simulated_s: float = 0.0


class Evaluator(Protocol):
    """`gives`: the names of the metrics that every evaluation has. `shortens`: whether it can train less than whole (`fidelity`)."""

    gives: frozenset[str]
    shortens: bool

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation: ...


class Trial(NamedTuple):
    """A proposal that was dealt with; `number` counts from 0. scores: by the objective, all higher is better; empty where the proposal was
    refused and not evaluated. repeats: the number of the trial that evaluated the same architecture first, where this one only read its
    values. images, wall_s, simulated_s: what this trial alone has cost. sees: how many of the first trials decided what this one asked
    for, where these are not all before it; trials of one generation share it."""

    number: int
    genotype: Genotype
    scores: tuple[float, ...]
    metrics: Mapping[str, float] = {}
    parents: tuple[int, ...] = ()
    change: str = ""
    fidelity: float = 1.0
    images: int = 0
    wall_s: float = 0.0
    simulated_s: float = 0.0
    repeats: int | None = None
    refused: str | None = None  # why, in a few words
    sees: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, without what is as usual; numbers that JSON cannot spell are words (`inf`, `-inf`, `nan`)."""
        told = self._asdict() | {"genotype": self.genotype.to_json()["cells"], "scores": [_spelt(score) for score in self.scores],
                                 "metrics": {name: _spelt(value) for name, value in self.metrics.items()}}
        usual = Trial._field_defaults
        return {key: value for key, value in told.items() if key not in usual or value != usual[key]}

    @classmethod
    def from_json(cls, data: Any, space: Space) -> "Trial":
        """The inverse of `to_json`, of an architecture of `space`. Raises ValueError (GenotypeError is one): it is none."""
        like = {"space": space.name, "arguments": dict(space.arguments), "fingerprint": space.fingerprint}
        found = cls.unchecked(data, like)
        space.validate(found.genotype)
        return found

    @classmethod
    def unchecked(cls, data: Any, like: Mapping[str, Any]) -> "Trial":
        """The same of a space that is not at hand; like: what a genotype's data holds beside its cells. Raises ValueError: the form is not
        that of a trial."""
        if type(data) is not dict or not {"number", "genotype", "scores"} <= set(data) <= set(cls._fields):
            raise ValueError(f"expected a trial with number, genotype and scores, got {short(data)}")
        wrong = [key for key, value in data.items() if not _FORMS[key](value)]
        if wrong:
            raise ValueError(f"a trial's {wrong[0]} cannot be {short(data[wrong[0]])}")
        genotype = Genotype.from_json({"format": str(FORMAT), **like, "cells": data["genotype"]})
        return cls(**(data | {"genotype": genotype, "scores": tuple(map(float, data["scores"])), "parents": tuple(data.get("parents", ())),
                              "metrics": {name: float(value) for name, value in data.get("metrics", {}).items()}}))


def _spelt(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _amount(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) or value in ("inf", "-inf", "nan")


_FORMS: Mapping[str, Callable[[Any], bool]] = {  # what each field of a trial may be, as plain data
    "number": _whole, "genotype": lambda value: type(value) is dict,
    "scores": lambda value: type(value) is list and all(map(_number, value)),
    "metrics": lambda value: type(value) is dict and all(map(_number, value.values())),
    "parents": lambda value: type(value) is list and all(map(_whole, value)), "change": lambda value: type(value) is str,
    "fidelity": lambda value: _amount(value) and 0 < value <= 1, "images": _whole, "wall_s": _amount, "simulated_s": _amount,
    "repeats": _whole, "refused": lambda value: type(value) is str, "sees": _whole}


@dataclass
class History:
    """The trials so far, by number, and what was found of each architecture. `number` is that of the trial which is asked for next: of a
    generation, whose members see the same trials, each has its own. `begin` is the first trial of the searcher that is asked: what came
    before it was handed on by another (`searchers.hybrid`)."""

    trials: list[Trial] = field(default_factory=list)
    number: int = 0
    begin: int = 0

    def __post_init__(self) -> None:
        self.met: set[Genotype] = set()  # every architecture that was evaluated, of trainings of any length, or refused
        self.refused: set[Genotype] = set()
        self.repeated: list[bool] = []  # of each trial, whether the same was evaluated or refused before
        self._first: dict[tuple[Genotype, float], Trial] = {}
        self._part: History | None = None
        for trial in self.trials:
            self._note(trial)
        self.number = max(self.number, len(self.trials))

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def append(self, trial: Trial) -> None:
        if trial.number != len(self.trials):
            raise ValueError(f"trials are numbered from 0 without a gap: expected {len(self.trials)}, got {trial.number}")
        self.trials.append(trial)
        self._note(trial)
        self.number = len(self.trials)

    def first(self, size: int, number: int) -> "History":
        """As the `number`-th trial sees it: the first `size` trials, all where there are fewer. The same object for the members of a
        generation."""
        if size < len(self.trials) and (self._part is None or len(self._part) != size):
            self._part = History(self.trials[:size])
        seen = self if size >= len(self.trials) else self._part
        seen.number, seen.begin = number, 0
        return seen

    def _note(self, trial: Trial) -> None:
        self.repeated.append(trial.repeats is not None if trial.refused is None else trial.genotype in self.refused)
        self.met.add(trial.genotype)
        if trial.refused is not None:
            self.refused.add(trial.genotype)
        else:
            self._first.setdefault((trial.genotype, trial.fidelity), trial)

    def known(self, genotype: Genotype, fidelity: float = 1.0) -> Trial | None:
        """The first trial that evaluated this architecture so."""
        return self._first.get((genotype, fidelity))

    def evaluated(self) -> list[Trial]:
        """All trials but those refused."""
        return [trial for trial in self.trials if trial.refused is None]

    def own(self) -> int:
        """How many trials the searcher that is asked has asked for before."""
        return self.number - self.begin


def best(trials: Iterable[Trial]) -> Trial | None:
    """That of the highest first score, the first of equals; None where there is none that was evaluated. Of trainings of different length
    the longest are compared."""
    top = None
    for trial in trials:
        top = better(trial, top)
    return top


def better(trial: Trial, top: Trial | None) -> Trial | None:
    """The one that `best` prefers; `top` came first."""
    if trial.refused is not None:
        return top
    return trial if top is None or (trial.fidelity, trial.scores[0]) > (top.fidelity, top.scores[0]) else top


def source(seed: int, number: int, what: str = "") -> random.Random:
    """What the trial of this number draws from, the same whatever happened before it. what: tells several sources of one trial apart."""
    return random.Random(f"{seed}/{number}/{what}")
