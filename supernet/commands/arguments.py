"""The command line of what only reads folders and files: flags by argparse, one line for each mistake, the same exit codes everywhere.

    0   done; of `diff`: nothing differs       1   of `diff`: something differs       2   a mistake, told in one line
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from supernet.errors import Mendable, UsageError, did_you_mean
from supernet.processes.launched import refuse_many, speaks


class Arguments(argparse.ArgumentParser):
    """Of `python -m supernet.<name>`. Flags have one spelling."""

    def __init__(self, name: str, about: str, examples: Sequence[str]) -> None:
        super().__init__(prog=f"python -m supernet.{name}", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.description = "\n".join([about, "", *(f"  {self.prog} {example}".rstrip() for example in examples)])

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parsed(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """arguments: those of the command line unless given. Raises UsageError."""
        given, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            word = unknown[0].partition("=")[0]
            raise UsageError(f"{self.prog} takes no {word!r}{did_you_mean(word, flags)} (--help says what it takes)")
        return given


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    """The type of an argument that is one of these words."""
    words = list(known)

    def word(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(words)}, got {text!r}{did_you_mean(text, words)}")
        return text

    return word


def at_least_one(text: str) -> int:
    """The type of an argument that counts something."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text[:9])


def exit_code(act: Callable[[], int], *, stopped: str = "") -> int:
    """What `act` returns; 2 after a mistake, with its line, and what a shell shows where a signal or a closed pipe (`| head`) ended it.
    stopped: what is said after Ctrl-C."""
    try:
        refuse_many("this command")
        code = act()
        sys.stdout.flush()
        return code
    except Mendable as error:
        if speaks():  # what each of several processes would say
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if stopped:
            print(stopped, file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer is wanted by nobody
        return 141


@contextmanager
def writing(path: Path | None, flag: str = "--output") -> Iterator[None]:
    """Within, what cannot be written becomes one line about the path that the flag has. Raises UsageError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{flag} {path or error.filename}: cannot write there ({error.strerror or error})") from error
