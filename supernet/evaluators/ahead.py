"""Evaluations that were done before their turn: kept in the run's folder, so that whoever goes on after a kill need not do them again."""

from pathlib import Path

from supernet.genotype import Genotype
from supernet.runs.journal import Journal
from supernet.space import Space
from supernet.trials import Evaluation, Trial

FILE = "evaluated_ahead.jsonl"  # of a run; there while trials are evaluated together

Asked = tuple[Genotype, float]  # an architecture and its fidelity
Found = tuple[Evaluation, float]  # what it came to, and the seconds that it took


class Ahead:
    """Those of one evaluator. folder: None where nothing is kept. of: a digest of all that decides what evaluations come to, beside the
    architecture and its fidelity; lines of another one do not count, nor do those that were damaged."""

    def __init__(self, folder: Path | None, of: str, space: Space):
        self.of, self.space = of, space
        self._journal = None if folder is None else Journal(folder / FILE)

    def known(self) -> dict[Asked, Found]:
        if self._journal is None:
            return {}
        found: dict[Asked, Found] = {}
        for record in Journal.readable(self._journal.path):
            try:
                if record.pop("of", None) == self.of:
                    trial = Trial.from_json(record, self.space)
                    found[trial.genotype, trial.fidelity] = Evaluation(trial.metrics, trial.images, trial.simulated_s), trial.wall_s
            except ValueError:
                continue
        return found

    def add(self, asked: Asked, found: Found) -> None:
        """Raises JournalError: it cannot be written."""
        if self._journal is not None:
            (genotype, fidelity), (evaluation, seconds) = asked, found
            trial = Trial(0, genotype, (), evaluation.metrics, fidelity=fidelity, images=evaluation.images, wall_s=seconds,
                          simulated_s=evaluation.simulated_s)
            self._journal.keep({"of": self.of, **trial.to_json()})

    def clear(self) -> None:
        """All had their turn."""
        if self._journal is not None:
            self._journal.path.unlink(missing_ok=True)
