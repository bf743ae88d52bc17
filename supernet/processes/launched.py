"""Where this process stands among those that `torchrun` has started together. Read from the environment; PyTorch is not imported here."""

import os
from typing import NamedTuple

from supernet.errors import UsageError


class Place(NamedTuple):
    """rank: of this process, from 0, of `size`; here: among those on this machine, of `beside`."""

    rank: int = 0
    size: int = 1
    here: int = 0
    beside: int = 1


def place() -> Place:
    """What torchrun says; a process that was started alone is the first of one. Raises UsageError: the environment says half of it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Place()
    try:
        found = Place(*(int(os.environ[name]) for name in names))
    except (KeyError, ValueError) as error:
        raise UsageError(f"WORLD_SIZE={os.environ['WORLD_SIZE']} asks for many processes, which need whole numbers in {', '.join(names)} "
                         f"({error} is none): start them with torchrun, or unset WORLD_SIZE") from error
    if not (0 <= found.rank < found.size and 0 <= found.here < found.beside):
        raise UsageError(f"RANK must be below WORLD_SIZE and LOCAL_RANK below LOCAL_WORLD_SIZE, got {', '.join(map(str, found))}")
    return found


def speaks() -> bool:
    """Whether this process says what all of them would say: the first one does."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def launcher() -> list[str]:
    """The words between the interpreter and a script that start it in as many processes again; none where there is one."""
    where = place()
    if where.size == 1:
        return []
    nodes = where.size // where.beside
    return ["-m", "torch.distributed.run", f"--nproc-per-node={where.beside}", *([f"--nnodes={nodes}"] if nodes > 1 else [])]


def refuse_many(command: str) -> None:
    """Raises UsageError: torchrun has started several processes of a command that works in one."""
    if place().size > 1:
        raise UsageError(f"{command} works in one process, got {place().size}: start it without torchrun")
