"""What was found of architectures, each once, a line each: kept for the next limit, and for who goes on after a break."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from supernet.genotype import Genotype, GenotypeError
from supernet.runs.journal import Journal
from supernet.space import Space

FILE = "known.jsonl"


class Known:
    """Values by what they are of (a digest of all that they depend on beside the architecture) and architecture; architectures that
    compute the same are one. `journal` is to be held while any are asked for. What is damaged in the file is found again."""

    def __init__(self, folder: Path, space: Space):
        self.space, self.journal = space, Journal(folder / FILE)
        self._values: dict[tuple[str, str], Mapping[str, float]] = {}
        self._read = False

    def __call__(self, of: str, genotype: Genotype, make: Callable[[Genotype], Mapping[str, float]]) -> Mapping[str, float]:
        """What is known, or what `make` finds of the architecture, which is kept at once."""
        self._catch_up()
        same = self.space.canonical(genotype)
        place = of, self.space.text(same)
        if place not in self._values:
            found = {name: float(value) for name, value in make(same).items()}
            self.journal.append({"of": of, "architecture": place[1], "values": found}, sync=True)
            self._values[place] = found
        return self._values[place]

    def has(self, of: str, genotype: Genotype) -> bool:
        self._catch_up()
        return (of, self.space.text(self.space.canonical(genotype))) in self._values

    def all(self, of: str) -> Iterator[tuple[Genotype, Mapping[str, float]]]:
        """In the order in which they were found."""
        self._catch_up()
        for (what, text), values in list(self._values.items()):
            if what == of:
                yield self.space.parse(text), values

    def _catch_up(self) -> None:
        if self._read:
            return
        for record in Journal.readable(self.journal.path):
            of, text, values = (record.get(key) for key in ("of", "architecture", "values"))
            if type(of) is str and type(text) is str and _are_numbers(values) and self._is_ours(text):
                self._values[of, text] = values
        self._read = True

    def _is_ours(self, text: str) -> bool:
        try:
            self.space.parse(text)
        except (GenotypeError, ValueError):
            return False
        return True


def _are_numbers(values: object) -> bool:
    return isinstance(values, Mapping) and all(type(name) is str and type(value) in (int, float) for name, value in values.items())
