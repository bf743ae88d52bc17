"""On what data a run is, by their name."""

from collections.abc import Mapping
from typing import Any


def data_name(options: Mapping[str, Any]) -> str:
    """Of the options of a run: the data set that it reads; of a search that asks a table alone, that of which the table tells, for its own
    option `dataset` is then read by nobody."""
    searcher, evaluator = options.get("searcher"), options.get("evaluator") or {}
    own = evaluator.get("dataset") if searcher is not None and options.get("epochs") == 0 else None
    name = str(own or options["dataset"]["name"])
    return "".join(letter if letter.isprintable() and letter != "/" else "-" for letter in name[:100])  # it names folders
