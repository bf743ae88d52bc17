"""Formats of files: which one a file has, which version of the project wrote it, and how one of an earlier version is read.

A file says `format`, as "supernet.genotype/1", and `written_by`, a version of the project. The number rises with a change that a reader of
the number before would misread; what is added beside does not raise it. For each number before the newest there is a step, a function that
makes of what a file of that number held what one of the next number holds; a file is read through all that are left. docs/checkpoints.md
lists the formats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supernet.errors import Mendable

VERSION = "0.1.0"  # of the project, as in setup.cfg

Step = Callable[[dict[str, Any]], dict[str, Any]]


class FormatError(Mendable, ValueError):
    """A file is of another kind, or of a version that cannot be read. The message is one line, without the file's name."""


@dataclass(frozen=True)
class Format:
    """name: as `supernet.genotype`. number: of what is written now. steps: by the number of what they read; a number that has none is read
    no more. Number 0: of files from before they said a format; read where there is a step for it."""

    name: str
    number: int = 1
    steps: Mapping[int, Step] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    def stamp(self) -> dict[str, str]:
        """What a file says of itself."""
        return {"format": str(self), "written_by": VERSION}

    def current(self, data: Any) -> dict[str, Any]:
        """What a file held, `data`, as the newest format has it. Raises FormatError."""
        if type(data) is not dict:
            raise FormatError(f"expected format {str(self)!r}, got {type(data).__name__}")
        said = data.get("format")
        number = self._number(said)
        if number is None:
            raise FormatError(f"expected format {str(self)!r}, got {_short(said)}")
        who = f"version {_short(data['written_by'])[1:-1]}" if type(data.get("written_by")) is str else "another version"
        if number > self.number:
            raise FormatError(f"{who} of the project wrote this, in format {self.name}/{number}, and version {VERSION} reads {self}: use "
                              "that version, or a newer one")
        while number < self.number:
            step = self.steps.get(number)
            if step is None:
                raise FormatError(f"{who} of the project wrote this, in format {self.name}/{number}, and version {VERSION} reads only "
                                  f"{self}: use that version")
            data, number = step(data), number + 1
        return data

    def _number(self, said: Any) -> int | None:
        """None where it is another kind of file."""
        if said is None:
            return 0 if 0 in self.steps else None
        name, _, number = said.rpartition("/") if type(said) is str else ("", "", "")
        return int(number) if name == self.name and number.isascii() and number.isdigit() and len(number) < 6 else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
