"""Fetching a data set by the way torchvision knows, with a failure told in one line."""

from pathlib import Path

from supernet.data.base import DataError
from supernet.data.torchvision_import import import_torchvision


def download(dataset: str, root: Path, by_hand: str) -> None:
    """Have `torchvision.datasets.<dataset>` fetch, check and unpack its files under `root`; `by_hand` says what to do without."""
    try:
        getattr(import_torchvision().datasets, dataset)(str(root), download=True)
    except (ImportError, OSError, RuntimeError) as error:  # not installed; no network, no server, disk full; wrong checksum
        reason = " ".join(str(error).split())
        raise DataError(f"could not download {dataset} to {root} ({type(error).__name__}: {reason}): {by_hand}") from error
