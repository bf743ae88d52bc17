"""A process that evaluates trials of a search for the command that asks for them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from supernet.app.build import space_from
from supernet.app.command_line import register
from supernet.app.offer import SearchOffer, evaluator_of
from supernet.app.options import CONF
from supernet.evaluators.base import SearchEvaluator
from supernet.genotype import Genotype
from supernet.runs import checkpoint
from supernet.runs.checkpoint import CheckpointError
from supernet.runs.folder import RunFolder
from supernet.trials import Evaluation

ATTEMPTS = 5  # to read a checkpoint, beside the command that may be writing a newer one

_evaluator: SearchEvaluator | None = None


def start_worker(options: Mapping[str, Any], words: Sequence[str], folder: str, threads: int) -> None:
    """Makes the evaluator as the command did, over the supernet of its newest checkpoint. threads: of the command, since another number
    rounds differently."""
    global _evaluator
    register()
    GlobalHydra.instance().clear()
    initialize_config_dir(str(CONF), version_base="1.3")
    cfg = OmegaConf.create(dict(options))
    offer = SearchOffer(cfg, space_from(cfg.space), words)
    offer.folder = Path(folder)
    _evaluator = evaluator_of(cfg, offer)
    if offer.made("parts"):
        offer.net.load_state_dict(newest(RunFolder(Path(folder)))["parts"]["net"])
    torch.set_num_threads(threads)


def newest(folder: RunFolder) -> Mapping[str, Any]:
    for _ in range(ATTEMPTS - 1):
        try:
            return checkpoint.load(folder.checkpoints).state
        except CheckpointError:
            time.sleep(0.5)
    return checkpoint.load(folder.checkpoints).state


def evaluated(task: tuple[Genotype, float]) -> tuple[Evaluation, float]:
    """The evaluation of an architecture with this fidelity, and the seconds that it took."""
    started = time.perf_counter()
    found = _evaluator(*task)
    return found._replace(metrics=dict(found.metrics)), time.perf_counter() - started
