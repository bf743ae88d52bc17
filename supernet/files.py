"""Writing files so that a kill, a full disk or a power cut leaves the old one or the whole new one."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes beside the file, syncs, renames. Two processes that write at once do not meet. Raises OSError; nothing is left then."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
