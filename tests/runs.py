"""What runs of the scripts leave behind, compared bit for bit."""

import hashlib
from pathlib import Path

import numpy as np
import torch
import yaml

from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder, write_json
from supernet.runs.journal import TIME_FIELDS, Journal
from supernet.spaces import toy
from tests.helpers import Ended, run


def folders(where: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(where.glob("runs/[!.]*")) if path.is_dir()]


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
             "genotype": folder.genotype.read_text(), "drawing": folder.cell_svg.read_text()}
    if folder.split.exists():
        found["split"] = exactly(dict(np.load(folder.split)))
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


SOFTMAX = {"_target_": "supernet.relaxations.softmax.Softmax", "init_scale": 1e-3}
OPTIONS = {"dataset": {"name": "digits", "root": "data"}, "relaxation": SOFTMAX, "epochs": 2, "output": "runs", "name": None}


def planted_run(where: Path, *, job: str, seed: int = 0, accuracy: float = 90.0, script: str = "train_search", commit: str = "a" * 40,
                status: str = "finished", genotype: int = 0, validation: float | None = None, **options) -> Path:
    """A run's folder as the scripts leave it, without a run. genotype: the number of an architecture of the toy space; validation: the
    accuracy in its last epoch."""
    folder = RunFolder(where)
    where.mkdir(parents=True)
    folder.start(script=script, command="python", config_hash=f"hash of {job}", identity={"job": job})
    folder.write(folder.config, yaml.safe_dump(OPTIONS | {"seed": seed} | options).encode())
    folder.set_status(status)
    write_json(folder.environment, {"git_commit": commit, "git_dirty": False})
    list(toy.make().enumerate())[genotype].save(folder.genotype)
    Journal(folder.metrics).append({"epoch": 0, "val_accuracy": validation, "elapsed_s": 5.0})
    key = "val_accuracy" if script == "train_search" else "test_accuracy"
    write_json(folder.summary, {"title": "", "rows": [], "values": {key: accuracy, "elapsed_s": 10.0}})
    return where
