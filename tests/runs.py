"""What runs of the scripts leave behind, compared bit for bit."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from supernet.runs.run import TIME_FIELDS
from tests.helpers import Ended, run


def folders(where: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(where.glob("runs/*")) if path.is_dir()]


def finished(where: Path) -> RunFolder:
    """The one finished run under `where`."""
    (folder,) = [f for f in folders(where) if (f.status() or {}).get("status") == "finished"]
    return folder


def exactly(value):
    """Nested data with every tensor and array as a digest of its bits, so that `==` compares them all."""
    if isinstance(value, dict):
        return {key: exactly(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [exactly(v) for v in value]
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous().numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    return value


def outcome(folder: RunFolder) -> dict:
    """All that a run computed, by what it is; clocks and paths left out."""
    found = {"metrics": [{k: v for k, v in record.items() if k not in TIME_FIELDS} for record in Journal.read(folder.metrics)],
             "genotype": folder.genotype.read_text(), "drawing": folder.cell_svg.read_text(),
             "split": exactly(dict(np.load(folder.split)))}
    found |= {f"checkpoint: {name}": exactly(part) for name, part in checkpoint.load(folder.checkpoints).state["parts"].items()}
    if folder.alphas.exists():
        found |= {"alphas": exactly(dict(np.load(folder.alphas))), "genotypes": folder.genotypes.read_text()}
    if folder.weights.exists():
        found["weights"] = exactly(dict(torch.load(folder.weights, weights_only=True)))
    return found


def assert_same(seen: dict, wanted: dict) -> None:
    assert seen.keys() == wanted.keys()
    assert [key for key in wanted if seen[key] != wanted[key]] == []


def go_on(script: str, *options: str, where: Path) -> Ended:
    """Runs with resume=auto to the end. It must go on with the newest run that has a checkpoint, or say that there is none."""
    saved = [f.path for f in folders(where) if checkpoint.has_checkpoint(f.checkpoints)]
    ended = run(script, *options, "resume=auto", cwd=where, report=False)
    assert ended.code == 0, ended.err
    told = f"resuming {saved[-1].relative_to(where)} at epoch" if saved else "nothing to resume under runs: starting anew"
    assert told in ended.err
    return ended
