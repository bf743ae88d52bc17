"""What the records of a long search take: its alphas over time and the genotypes of its epochs, which every checkpoint holds, and its
journals."""

import io
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from supernet.relaxations.softmax import Softmax
from supernet.runs.journal import Journal
from supernet.spaces import darts
from supernet.training.records import SearchRecords, snapshots

EACH = 20  # snapshots of an epoch, as a search takes them


def measured(epochs: int) -> dict[str, Any]:
    """Of a search of DARTS's space: MB in memory (what tensors hold) and in a checkpoint, and the lines of its journals; every epoch finds
    another genotype, the worst case."""
    space, rng = darts.make(), random.Random(0)
    relaxation, records = Softmax(space, generator=torch.Generator()), SearchRecords()
    each = snapshots(EACH, epochs)
    with tempfile.TemporaryDirectory(prefix="soak_") as where:
        metrics, genotypes = Journal(Path(where) / "metrics.jsonl"), Journal(Path(where) / "genotypes.jsonl")
        for epoch in range(epochs):
            for n in range(each):
                records.trajectory.add(epoch + (n + 1) / each, relaxation)
            genotype = space.sample(rng)
            records.verdict.add(genotype)
            genotypes.append({"epoch": epoch, "digest": genotype.digest, "genotype": genotype.to_json()})
            metrics.append({f"value_{n}": rng.random() for n in range(24)} | {"epoch": epoch})
        journals = sum(journal.path.stat().st_size for journal in (metrics, genotypes))
    saved = io.BytesIO()
    torch.save({"trajectory": records.trajectory.state_dict(), "verdict": records.verdict.state_dict()}, saved)
    held = sum(table.numel() * table.element_size() for pieces in records.trajectory.tables.values() for table in pieces)
    return {"epochs": epochs, "snapshots": each * epochs, "alphas_mb": round(held / 1e6, 2),
            "checkpoint_mb": round(len(saved.getvalue()) / 1e6, 2), "journals_mb": round(journals / 1e6, 2)}


MEASURED: Mapping[str, Callable[[], dict[str, Any]]] = {f"{epochs} epochs": lambda epochs=epochs: measured(epochs)
                                                       for epochs in (50, 200, 1000)}
