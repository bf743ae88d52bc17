"""The edge weights of a search over its epochs, from what its folder holds: `alphas.npz` of one that ended, the newest checkpoint of one
that goes on or was killed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from supernet.files import check_zip
from supernet.report.document import Missing
from supernet.report.run_files import MAX_CHECKPOINT_BYTES, RunFiles
from supernet.runs import checkpoint


@dataclass(frozen=True)
class AlphaTable:
    """Of one kind of cell. epochs (T,): epochs done at each snapshot. weights (T, E, O): the mean edge weights; where each of the L cells
    of a kind has its own, their mean. strengths (T, E): what edges are weighted with beside; ones where they are not. edges (E, 2): source
    and destination. cells: L, or 1."""

    epochs: np.ndarray
    weights: np.ndarray
    strengths: np.ndarray
    edges: list[tuple[int, int]]
    ops: list[str]
    cells: int = 1


def alpha_tables(run: RunFiles) -> dict[str, AlphaTable]:
    """By kind of cell. Raises Missing, or one of `run_files.UNEXPECTED`."""
    if (run.path / "alphas.npz").exists() or not checkpoint.has_checkpoint(run.folder.checkpoints):
        with np.load(run.existing("alphas.npz"), allow_pickle=False) as arrays:
            return tables_of({name: arrays[name] for name in arrays.files}, "alphas.npz")
    path = checkpoint.all_files(run.folder.checkpoints)[-1]
    check_zip(path, MAX_CHECKPOINT_BYTES)
    loaded = checkpoint.load(run.folder.checkpoints)
    state, run.passed_over = loaded.state, loaded.skipped
    about, record = state["about"].get("tables"), state["parts"].get("trajectory")
    if record is None or not about:
        raise Missing("the run has no alphas.npz yet, and its checkpoint does not tell")
    arrays: dict[str, Any] = {"epoch": np.array(record["epochs"], float)}
    arrays |= {name: np.stack([table.numpy() for table in tables]) for name, tables in record["tables"].items()}
    for kind, rows in about.items():
        arrays |= {f"edges.{kind}": np.array(rows["edges"]).reshape(-1, 2), f"ops.{kind}": np.array(rows["ops"])}
    return tables_of(arrays, path.name)


def tables_of(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, AlphaTable]:
    """Of the arrays of a record (`training.records.Trajectory.arrays`, with `summary.edge_tables`). Raises Missing, ValueError."""
    kinds = [key.removeprefix("weights.") for key in arrays if key.startswith("weights.")]
    epochs = np.asarray(arrays["epoch"], float)
    if not kinds or not len(epochs):
        raise Missing(f"{name} holds no weights")
    found = {}
    for kind in kinds:
        weights = np.asarray(arrays[f"weights.{kind}"], float)
        cells = weights.shape[1] if weights.ndim == 4 else 1
        weights = weights.mean(1) if weights.ndim == 4 else weights
        edges = [(int(s), int(d)) for s, d in arrays[f"edges.{kind}"]]
        ops = [str(op) for op in arrays[f"ops.{kind}"]]
        if weights.shape != (len(epochs), len(edges), len(ops)):
            raise ValueError(f"weights of {kind} must be (T, E, O) = {(len(epochs), len(edges), len(ops))}, got {weights.shape}")
        strengths = np.asarray(arrays.get(f"edge_weights.{kind}", np.ones(weights.shape[:2])), float)
        strengths = strengths.mean(1) if strengths.ndim == 3 else strengths
        found[kind] = AlphaTable(epochs, weights, strengths, edges, ops, cells)
    return found
