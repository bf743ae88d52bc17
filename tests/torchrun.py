"""The two scripts started as torchrun starts them, without it, which takes seconds."""

from pathlib import Path

import torch.distributed

from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from tests.helpers import Ended, Process, start, until
from tests.runs import folders

EVERY_STEP = "checkpoint_every_s=0"
STORES: list[torch.distributed.Store] = []  # kept until the tests are over


def started(script: str, *options: str, cwd: Path, size: int = 2, **env: str) -> list[Process]:
    """As torchrun starts `size` processes: they meet in a store of the process that starts them."""
    STORES.append(torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    common = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(STORES[-1].port),
              "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0", **env}
    return [start(script, *options, cwd=cwd, report=False, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(size)]


def both(script: str, *options: str, cwd: Path, **how: str | int) -> list[Ended]:
    """How each of two processes, or of `size`, ended."""
    return [process.wait() for process in started(script, *options, cwd=cwd, **how)]


def has_saved(where: Path) -> RunFolder | None:
    return next((folder for folder in folders(where) if checkpoint.has_checkpoint(folder.checkpoints)), None)


def at_work(script: str, *options: str, cwd: Path) -> list[Process]:
    """Two processes that have saved something, and have more to do."""
    processes = started(script, *options, EVERY_STEP, cwd=cwd)
    until(lambda: has_saved(cwd) or any(process.has_ended() for process in processes), "a checkpoint")
    return processes
