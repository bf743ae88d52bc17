"""The folder of a deployed network: what it holds, and whether it is what was asked for.

    genotype.json     the architecture
    weights.pt        its weights, as final trainings leave them: `supernet.load(FOLDER)`, `python -m supernet.export FOLDER`
    plain/            the network in plain PyTorch, which needs nothing of this package, as `supernet.export` writes it
    results.json      what was asked, found and measured
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supernet.files import read_bytes, read_text
from supernet.formats import Format, FormatError
from supernet.runs.folder import write_json

FORMAT = Format("supernet.deployment")
RESULTS, GENOTYPE, WEIGHTS, PLAIN = "results.json", "genotype.json", "weights.pt", "plain"
MAX_BYTES, MAX_FILE_BYTES = 10_000_000, 2**34


def read_result(folder: Path) -> dict[str, Any] | None:
    """What results.json says, where every file is as it was written; None where one is not, or there are no such results."""
    try:
        found = FORMAT.current(json.loads(read_text(folder / RESULTS, MAX_BYTES)))
        files = found["files"]
        if type(found.get("key")) is str and type(files) is dict and files and files == digests(folder):
            return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError, FormatError):
        pass
    return None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files but the results, by path within the folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(read_bytes(path, MAX_FILE_BYTES)).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RESULTS}


def free_name(output: Path, name: str, key: str) -> str:
    """`name`, or with the beginning of `key` where something else stands there: a result of other options, or somebody's folder."""
    return name if not (output / name).exists() or _key_in(output / name) == key else f"{name}_{key[:6]}"


def _key_in(folder: Path) -> str | None:
    """That of the result that a folder is of, also where its files are damaged."""
    try:
        return json.loads(read_text(folder / RESULTS, MAX_BYTES))["key"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def seal(part: Path, output: Path, record: Mapping[str, Any]) -> None:
    """Writes the results into `part` and moves it to its place, whole; what was there, damaged, goes. Raises OSError."""
    write_json(part / RESULTS, {**FORMAT.stamp(), **record, "files": digests(part)})
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # of a kill before the last line
    with contextlib.suppress(FileNotFoundError):
        os.replace(output, old)
    os.replace(part, output)
    shutil.rmtree(old, ignore_errors=True)
