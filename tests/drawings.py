"""What drawings and pages are made of in tests, and boxes of a drawing compared."""

import json
import random
from pathlib import Path

import numpy as np

from supernet.genotype import Edge, Genotype
from supernet.space import CellSpec, Space

OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
EVIL = "<script>alert('x')</script>"


def overlap(a, b, slack: float = 1e-6) -> bool:
    return abs(a.x - b.x) < (a.width + b.width) / 2 - slack and abs(a.y - b.y) < (a.height + b.height) / 2 - slack


def space(num_nodes: int = 4, num_inputs: int = 2, keep: tuple[int, int] | None = (2, 2), parallel: int = 1) -> Space:
    spec = CellSpec.full(num_inputs=num_inputs, num_nodes=num_nodes, ops=OPS, keep=keep, parallel=parallel,
                         outputs=range(num_inputs, num_inputs + num_nodes))
    return Space("toy", {}, {"normal": spec, "reduce": spec}, build=None)


def write_run(run: Path, epochs: int = 6, text: str = "plain") -> None:
    """A folder as a search leaves it, whose files say `text` wherever a stranger may write."""
    rng, toy = random.Random(0), space()
    drawn = [toy.sample(rng) for _ in range(epochs)]
    drawn[1] = drawn[0]
    numbers = np.random.default_rng(0)
    arrays = {"epoch": np.arange(1.0, epochs + 1)}
    for kind, spec in toy.cells.items():
        shape = (epochs, len(spec.edges), len(spec.ops))
        arrays |= {f"alpha.{kind}": numbers.normal(size=shape),
                   f"weights.{kind}": numbers.dirichlet(np.ones(shape[2]), shape[:2]),
                   f"edges.{kind}": np.array(spec.edges), f"ops.{kind}": np.array([*OPS[:-1], text])}
    np.savez(run / "alphas.npz", **arrays)
    records = [{"kind": "epoch", "epoch": e, "train_loss": 2.0 / (e + 1), "train_accuracy": 50.0 + e / epochs, "val_loss": None,
                "val_accuracy": 40.0 if e % 2 else None, "lr": 0.1, f"alpha_entropy/{text}": 1.5, "genotype": g.digest,
                "seconds": 3.0}
               for e, g in enumerate(drawn)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"kind": "step", "epoch": 0}\n{"kind": "ep')
    (run / "genotypes.jsonl").write_text("\n".join(json.dumps({"epoch": e, "digest": g.digest, "genotype": g.to_json()})
                                                   for e, g in enumerate(drawn)))
    last = Genotype("toy", text, drawn[-1].cells[:1] + ((text, (Edge(2, 0, text), Edge(3, 2, "skip_connect"))),), {"note": text})
    last.save(run / "genotype.json")
    (run / "config.yaml").write_text(f"seed: 0\nname: {text}\n")
    (run / "run.json").write_text(json.dumps({"script": "train_search", "status": text, "started": "2025-01-01T00:00:00",
                                              "command": f"python train_search.py x={text}"}))
    (run / "environment.json").write_text(json.dumps({"torch": "2.13.0", text: {"inner": text}}))
    (run / "summary.json").write_text(json.dumps({"title": f"A search {text}", "rows": [["accuracy", "97.0 %"], [text, text]]}))
