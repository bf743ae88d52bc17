"""Searches as the command line composes them, run in this process."""

from contextlib import contextmanager

import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from supernet.app import compose
from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.training.stages import fit_stages


class Records(list):
    """A recorder that keeps the epochs' records, the lines that people would see, and how far work between epochs was."""

    def __init__(self):
        super().__init__()
        self.lines, self.done = [], []

    def step(self, items, totals):
        pass

    def line(self, text):
        self.lines.append(text)

    def working(self, done=0, total=0, item=""):
        self.done += [(done, total, item)] if total else []

    def epoch(self, record, genotype):
        self.append(record)


@contextmanager
def configs():
    """Within, Hydra composes the project's options, as in a script."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides):
    """The options of a search, checked."""
    with configs():
        cfg = hydra_compose("search", overrides=list(overrides))
        validate(cfg, "train_search")
        return cfg


def searched(*overrides):
    """A search to its end: its stages, the records of its epochs, and the genotype."""
    cfg = composed(*overrides)
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    try:
        parts = compose.search_parts(cfg)
        stages = compose.search_stages(cfg, parts)
        records = Records()
        fit_stages(stages, records)
        return stages, records, stages.loop.genotype()
    finally:
        torch.set_num_threads(threads)
