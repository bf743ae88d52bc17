"""The mark of errors that whoever runs a script can mend, and a hint for misspelt names."""

import difflib
from collections.abc import Iterable

MOST = 1000  # characters of a message


class Mendable(Exception):  # noqa: N818  (a mark beside the real error type, never raised itself)
    """Its message is one line that says what was expected and what was seen; scripts show it without a traceback. What it tells of a file
    of somebody else can neither break that line nor move a terminal's cursor."""

    def __str__(self) -> str:
        return message(super().__str__())


def message(text: str) -> str:
    """What is shown of the text of an error: in one line, of a length that can be read."""
    text = printable(text)
    return text if len(text) <= MOST else f"{text[:MOST - 300]} ... {text[-290:]}"


class UsageError(Mendable):
    """An option is wrong."""


class Elsewhere(Mendable):
    """What was asked for is under way, or can be gone on with, in another place alone: nothing failed, and nothing is begun here."""


class LeftAlone(Exception):  # noqa: N818  (nothing went wrong)
    """What was asked for is done already. The message, one line, says where."""


def printable(text: str) -> str:
    """In one line that a terminal shows and does not obey: all else is escaped as in a string of Python."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def nearest(word: str, known: Iterable[str], most: int = 10) -> str:
    """The names in `known` as a list in words, those most like `word` first; what more than `most` there are is counted."""
    names = sorted(known)
    shown = difflib.get_close_matches(word, names, n=most, cutoff=0.0) if len(names) > most else names
    return ", ".join([*shown, *([f"and {len(names) - most} more"] if len(names) > most else [])])
