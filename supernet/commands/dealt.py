"""Trials of one search, evaluated by processes that were started together: the first one proposes and records, each evaluates its share."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from supernet.genotype import Genotype
from supernet.processes.group import Group
from supernet.runs.interrupt import Interrupt
from supernet.runs.run import Interrupted
from supernet.trials import Evaluation

Asked = tuple[Genotype, float]  # an architecture and its fidelity
Found = tuple[Evaluation, float]  # what it came to, and the seconds that it took


class Dealt:
    """Deals out architectures in rounds: in each, every process of the group evaluates one, as it would do it alone, on whole batches; so
    they find what one process finds, bit for bit. Within the block the first process asks for `evaluations`, and the others `follow`.

    A signal to any process counts as one to all: after the round the first one raises Interrupted where it would go on, and so do the
    others. evaluated: evaluates one, with the seconds that it took; interrupt: what has come to this process.
    """

    def __init__(self, group: Group, evaluated: Callable[[Genotype, float], Found], interrupt: Interrupt):
        self.group, self.evaluated, self.interrupt = group, evaluated, interrupt

    def __enter__(self) -> "Dealt":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if self.group.leads and (kind is None or issubclass(kind, Interrupted)):  # else the others hear of the error
            self.group.first(lambda: {"signal": self.interrupt.signal})

    def evaluations(self, asked: Sequence[Asked]) -> Iterator[Found]:
        """In their order, as rounds end."""
        for begin in range(0, len(asked), self.group.size):
            part = asked[begin: begin + self.group.size]
            self.group.first(lambda part=part: {"asked": [[genotype.to_json(), fidelity] for genotype, fidelity in part]})
            for found in self._round(part):
                if found is None:
                    break
                yield Evaluation(found["metrics"], found["images"], found["simulated_s"]), found["seconds"]
            if self.interrupt.signal is not None:
                raise Interrupted

    def follow(self) -> None:
        """Takes part in rounds until the first process has done. Raises Interrupted where that was asked to stop."""
        while "asked" in (said := self.group.first(dict)):
            self._round([(Genotype.from_json(genotype), fidelity) for genotype, fidelity in said["asked"]])
        self.interrupt.signal = said["signal"]
        if self.interrupt.signal is not None:
            raise Interrupted

    def _round(self, asked: Sequence[Asked]) -> list[dict[str, Any] | None]:
        """What each process found, as plain data; None of one that was asked to stop."""
        found = None
        for genotype, fidelity in asked[self.group.rank: self.group.rank + 1]:  # there may be none left for this process
            try:
                with self.group.apart():
                    (metrics, images, simulated_s), seconds = self.evaluated(genotype, fidelity)
            except Interrupted:
                break
            found = {"metrics": {name: float(value) for name, value in metrics.items()}, "images": images, "simulated_s": simulated_s,
                     "seconds": seconds}
        every = [json.loads(text) for text in self.group.texts(json.dumps([self.interrupt.signal, found]))]
        self.interrupt.signal = next((signal for signal, _ in every if signal is not None), None)
        return [found for _, found in every[: len(asked)]]
