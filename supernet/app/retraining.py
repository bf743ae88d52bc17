"""By which protocol the authors of a cell train it, where that is not the data set's own."""

import json
from importlib import resources
from pathlib import Path

from supernet.genotype import GenotypeError, published_names, read_text, short


def retraining_of(genotype: str) -> str | None:
    """The protocol that a genotype file names, by its path or published name; None where it names none, or is no such file."""
    name = genotype.lower()
    path = resources.files("supernet") / "genotypes" / f"{name}.json" if name in published_names() else Path(genotype)
    try:
        data = json.loads(read_text(path))
    except (GenotypeError, ValueError, RecursionError):
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
