"""What goes along to a machine that can reach nothing: packages, data and the commit, in one folder that git ignores, `.gpu/`.

    python -m benchmarks.gpu --pack 1,2        # here: fills .gpu/ and says how large all of it is with the tree
    python -m benchmarks.gpu --unpack FOLDER   # there: lays the data ready outside the tree; several calls add up

Hydra and what it needs are copied from the environment that runs this: pure Python, no network, no installing there. CIFAR-10 goes as it is
published, packed by xz: two of the five files fit a call.
"""

import importlib.metadata
import json
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu.batches import FOLDER, unpacked
from benchmarks.gpu.truth import TABLE
from supernet.data.cifar10 import BATCHES
from supernet.errors import UsageError
from supernet.files import write_whole
from supernet.runs.environment import describe

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ROOT / ".gpu"
PACKAGES = ("hydra-core", "omegaconf", "antlr4-python3-runtime")
MOST_BYTES = 64 * 2**20  # of one call
SHARED = ROOT.parent / "shared" / "data"


def pack(numbers: Sequence[int], source: Path = SHARED, into: Path = CARRIED) -> list[tuple[str, int]]:
    """Fills the folder anew, with these of CIFAR-10's files (1 to 5; none for none); what travels and its bytes, the tree included.

    Raises UsageError: it is more than a call takes, or a file is not there."""
    import torch

    wanted = [source / "cifar-10-batches-bin" / f"{BATCHES[n - 1]}.bin.xz" for n in numbers]
    for path in wanted:
        if not path.is_file():
            raise UsageError(f"looked for {path}: there is none (--source FOLDER says where cifar-10-batches-bin lies)")
    for name in ("site", "data"):
        shutil.rmtree(into / name, ignore_errors=True)
    (into / "data" / FOLDER).mkdir(parents=True)
    environment = describe(torch.device("cpu"))
    (into / "commit.json").write_text(json.dumps({k: environment[k] for k in ("git_commit", "git_dirty")}) + "\n")
    for name in PACKAGES:
        copy_package(name, into / "site")
    for path in wanted:
        shutil.copyfile(path, into / "data" / FOLDER / path.name)
    if (table := source / "nas" / TABLE).is_file():
        shutil.copyfile(table, into / "data" / TABLE)
    pieces = [("the tree", sum(tree_bytes())), *((str(p.relative_to(into)), size_of(p)) for p in (into / "site", into / "data"))]
    if (whole := sum(size for _, size in pieces)) > MOST_BYTES:
        raise UsageError(f"{whole / 2**20:.1f} MiB would travel, and a call takes {MOST_BYTES / 2**20:.0f}: pack fewer files")
    return pieces


def copy_package(name: str, into: Path) -> None:
    """An installed package, its metadata included. Raises UsageError: it is not installed."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(f"{name} must be installed here to go along: pip install '.[scripts]'") from None
    for file in files:
        if ".." not in file.parts and file.suffix != ".pyc":
            target = into / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


def tree_bytes() -> list[int]:
    """Of every file that git tracks or does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    return [path.lstat().st_size for name in names if name and (path := ROOT / name).exists()]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def unpack(into: Path, carried: Path = CARRIED) -> list[str]:
    """Lays what came along into a folder that outlives the tree, beside what is there. The data files that are there then."""
    folder = into / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    packed = sorted((carried / "data" / FOLDER).glob("*.bin.xz"))
    with ThreadPoolExecutor() as pool:  # lzma computes without Python's lock
        for path, rows in zip(packed, pool.map(unpacked, packed)):
            write_whole(folder / path.name.removesuffix(".xz"), rows.tobytes())
    if (table := carried / "data" / TABLE).is_file():
        write_whole(into / TABLE, table.read_bytes())
    return sorted(path.name for path in [*folder.iterdir(), *into.glob(TABLE)])


def commit() -> dict[str, Any]:
    """That of the tree: git's, or what was written down before it travelled."""
    import torch

    known = {k: v for k, v in describe(torch.device("cpu")).items() if k.startswith("git_")}
    path = CARRIED / "commit.json"
    return json.loads(path.read_text()) if known["git_commit"] is None and path.is_file() else known


def site() -> list[str]:
    """The packages that came along, for the path; none where they are installed."""
    try:
        importlib.metadata.version("hydra-core")
        return []
    except importlib.metadata.PackageNotFoundError:
        return [str(CARRIED / "site")] if (CARRIED / "site").is_dir() else []
