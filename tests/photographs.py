"""Folders of photographs, and the same in tar files."""

import io
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def photographs(root, per_class=12, test=3, sizes=((60, 44), (50, 70), (48, 48))):
    """JPEGs of several sizes, classes told apart by colour and stripes."""
    rng, drawn = np.random.default_rng(0), random.Random(0)
    for n, name in enumerate(("ant", "bee", "cat")):
        for part, count in (("train", per_class), ("val", test)):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                width, height = drawn.choice(sizes)
                stripes = 30 * np.sin(np.arange(width) / (n + 2))[None, :, None]
                pixels = rng.normal(100, 30, (height, width, 3)) + 60 * np.eye(3)[n] + stripes
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / part / name / f"{k:03}.jpg", quality=92)
    return root


def tarred(path: Path, files: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def in_shards(folder: Path, root: Path, shards: int = 3) -> Path:
    """The images of a folder of parts in so many tar files a part, drawn at random, by the names that they have in the folder."""
    for part in sorted(folder.iterdir()):
        paths = [path for path in sorted(part.rglob("*")) if path.is_file()]
        random.Random(1).shuffle(paths)
        for n in range(shards):
            tarred(root / part.name / f"{n:03}.tar", [(str(path.relative_to(part)), path.read_bytes()) for path in paths[n::shards]])
    return root
