"""By which protocol the authors of a cell train it, where that is not the data set's own."""

import json
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from supernet.app.options import override, overrides
from supernet.genotype import GenotypeError, published_names, read_text, short
from supernet.spaces.named import OWN

PUBLISHED = "darts"  # the recipe by which all values are the protocol's


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


def retraining_note(genotype: str, protocol: str, recipe: str = PUBLISHED) -> list[str]:
    """A line for the record of a final training by `protocol`, where the cell's authors trained it by another, or of a published cell by
    another recipe than that of all of them."""
    own = retraining_of(genotype)
    if recipe != PUBLISHED and (own is not None or genotype.lower() in published_names()):
        return [f"note: the authors of this cell train it by recipe={PUBLISHED}, this training follows recipe={recipe}: it is not "
                "comparable with what they published"]
    if own is None or own == protocol:
        return []
    return [f"note: the authors of this cell train it by protocol={short(own)[1:-1]}, this training follows protocol={protocol}: it is not "
            "comparable with what they published"]


def carried(own: Sequence[str], *, dataset: str, retrain: str | None, task: Mapping[str, Any], space: str,
            spaces: Collection[str], searched_on: str | None = None) -> list[str]:
    """Of the overrides that chose a search, those that its retraining needs too: what they say of the data, of the protocol, and of a
    space of the user's own, which the genotype alone does not lead to. retrain: the protocol that its authors train such cells by; task:
    its options, of which the weights of the classes are the data's; space: the name of the one that was searched; spaces: those that the
    project has; searched_on: the name of the data that the search is on, where that is another than `dataset`, which was not read."""
    unread = searched_on is not None and searched_on != dataset
    dataset = searched_on if searched_on is not None else dataset
    found = [option for option in own if option.startswith("protocol" if unread else ("dataset", "protocol"))]
    if not any(option.startswith("dataset=") for option in found):
        found.insert(0, override("dataset", dataset))
    if retrain is not None and not any(option.startswith("protocol") for option in found):
        found.append(override("protocol", retrain))
    if (weights := task.get("class_weights")) is not None:
        found += overrides({"task.class_weights": weights})
    if space not in spaces or space in OWN:
        found += [option for option in own if option.startswith("space")]
    return found
