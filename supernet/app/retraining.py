"""By which protocol the authors of a cell train it, where that is not the data set's own."""

import json
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path

from supernet.app.options import override
from supernet.genotype import MAX_FILE_BYTES, published_names, short


def retraining_of(genotype: str) -> str | None:
    """The protocol that a genotype file names, by its path or published name; None where it names none, or is no such file."""
    name = genotype.lower()
    path = resources.files("supernet") / "genotypes" / f"{name}.json" if name in published_names() else Path(genotype)
    try:
        if isinstance(path, Path) and path.stat().st_size > MAX_FILE_BYTES:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # whether it is a genotype is asked elsewhere
    own = data.get("retrain") if type(data) is dict else None
    return own if type(own) is str else None


def retraining_note(genotype: str, protocol: str) -> list[str]:
    """A line for the record of a final training by `protocol`, where the cell's authors trained it by another."""
    own = retraining_of(genotype)
    if own is None or own == protocol:
        return []
    return [f"note: the authors of this cell train it by protocol={short(own)[1:-1]}, this training follows protocol={protocol}: it is not "
            "comparable with what they published"]


def carried(own: Sequence[str], *, dataset: str, retrain: str | None, space: str, spaces: Collection[str]) -> list[str]:
    """Of the overrides that chose a search, those that its retraining needs too: what they say of the data, of the protocol, and of a
    space of the user's own, which the genotype alone does not lead to. retrain: the protocol that its authors train such cells by; space:
    the name of the one that was searched; spaces: those that the project has."""
    found = [option for option in own if option.startswith(("dataset", "protocol"))]
    if not any(option.startswith("dataset=") for option in found):
        found.insert(0, override("dataset", dataset))
    if retrain is not None and not any(option.startswith("protocol") for option in found):
        found.append(override("protocol", retrain))
    if space not in spaces:
        found += [option for option in own if option.startswith("space")]
    return found
