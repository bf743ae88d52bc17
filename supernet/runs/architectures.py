"""Architectures as people name them: a published one, a file, a text in a notation of the field, or the run that found it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supernet import genotype as genotypes
from supernet.genotype import MAX_NODES, Genotype, GenotypeError, short
from supernet.runs.folder import RunFolder, check_in_run


@dataclass(frozen=True)
class Named:
    """outputs: per kind of cell, the nodes that are joined; num_inputs: per kind. Both as far as is known. run: where it comes from."""

    genotype: Genotype
    outputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    num_inputs: Mapping[str, int] = field(default_factory=dict)
    run: RunFolder | None = None


def named(text: str) -> Named:
    """The architecture. Raises GenotypeError, with one line that says what may be given."""
    path = Path(text)
    try:
        is_folder, is_file = path.is_dir(), path.exists()
    except OSError:  # a text in a notation is longer than a file's name may be
        is_folder = is_file = False
    if is_folder:
        run = RunFolder(path)
        if not run.genotype.exists():
            what = "this run has found nothing yet" if run.run_json.exists() else "expected the folder of a run"
            raise GenotypeError(f"{text}: {what}; no genotype.json there")
        run.check_unchanged(run.genotype.name)
        return _noted(run.genotype, run)
    if text.lower() in genotypes.published_names():
        return _described(genotypes.find(text), {}, None)
    if is_file:
        check_in_run(path)
        content = genotypes.read_text(path)
        if content.lstrip()[:1] in ("{", ""):
            return _noted(path, None)
        return _described(_read(content, text), {}, None)
    if "Genotype(" in text or "|" in text and "~" in text:
        return _described(_read(text, "genotype"), {}, None)
    try:
        return _described(genotypes.find(text), {}, None)
    except GenotypeError as error:
        raise GenotypeError(f"{error}; a run's folder, or the text of a cell in a notation of the field, may stand there too".replace(
            "genotype=", "", 1)) from None


def _read(text: str, origin: str) -> Genotype:
    from supernet import notation  # it knows spaces, which import PyTorch

    return notation.read(text, None, origin)


def _noted(path: Path, run: RunFolder | None) -> Named:
    """From a file of ours, which holds what a drawing needs to know of the space beside the genotype."""
    text = genotypes.read_text(path)
    return _described(Genotype.from_text(text, str(path)), json.loads(text), run)


def _described(genotype: Genotype, notes: Mapping[str, Any], run: RunFolder | None) -> Named:
    # a genotype that no run of ours wrote: cells that join only some of their nodes have them among their space's arguments
    told = genotype.arguments.get("concat")
    outputs = notes.get("outputs") or (told if _are_tables(told, list) else {})
    inputs = notes.get("num_inputs") or {}
    if not _are_tables(outputs, list) or not _are_tables(inputs, int):
        raise GenotypeError(f"expected outputs and num_inputs by kind of cell beside the genotype, got {short(outputs)}, {short(inputs)}")
    return Named(genotype, outputs, inputs, run)


def _are_tables(value: Any, kind: type) -> bool:
    """Whether it has a node, or a list of nodes, for each kind of cell."""
    return type(value) is dict and all(type(entry) is kind and all(
        type(node) is int and 0 <= node <= MAX_NODES for node in (entry if kind is list else [entry])) for entry in value.values())
