"""What a network said of every item of the test, kept beside its weights: predictions.npz."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supernet.data.arrays import read_arrays
from supernet.data.base import DataError
from supernet.tasks.base import Batch, Result, State, Task
from supernet.weights import EdgeWeights

MAX_BYTES = 128 * 2**20  # of all probabilities together
ARRAYS = ("index", "true", "predicted", "probabilities", "class_names", "digest")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of N items with one of K classes each, in the order of the test part: `true` and `predicted` int64 (N,), places in `class_names`;
    `probabilities` (N, K), float32, or float16 where those would take more than MAX_BYTES, and (N, 0) where these would too."""

    true: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the arrays and names."""
        sha = hashlib.sha256()
        for array in (self.true, self.predicted, self.probabilities, np.array(self.class_names, dtype=str)):
            sha.update(f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    @property
    def confusion(self) -> np.ndarray:
        """Items by true class (rows) and predicted class, int64 (K, K)."""
        classes = len(self.class_names)
        return np.bincount(self.true * classes + self.predicted, minlength=classes * classes).reshape(classes, classes)

    def as_bytes(self) -> bytes:
        """The .npz file: these, `index`, an item's place in the test part, and `digest`."""
        file = io.BytesIO()
        np.savez_compressed(file, index=np.arange(len(self.true)), true=self.true, predicted=self.predicted,
                            probabilities=self.probabilities, class_names=np.array(self.class_names, dtype=str),
                            digest=np.array(self.digest))
        return file.getvalue()

    @staticmethod
    def load(path: Path) -> "Predictions":
        """What `as_bytes` made. Raises DataError: the file is missing, is something else, or was changed."""
        arrays = read_arrays(path, ARRAYS, max_mb=1024)
        found = Predictions(*(arrays[name] for name in ("true", "predicted", "probabilities")),
                            tuple(map(str, np.atleast_1d(arrays["class_names"]))))
        for name, labels in (("true", found.true), ("predicted", found.predicted)):
            if labels.dtype != np.int64 or labels.ndim != 1 or not np.isin(labels, np.arange(len(found.class_names))).all():
                raise DataError(f"{path}: {name} must be labels in 0..{len(found.class_names) - 1}, got {labels.dtype} {labels.shape}")
        if found.digest != str(arrays["digest"]):
            raise DataError(f"{path} is damaged: its predictions do not have the digest that was written with them")
        return found


class Keeping:
    """A task that keeps what the network says of every item it is asked about: what `summed` calls in place of it. num_items: that will
    be asked; class_names: in label order, where the data set has them."""

    def __init__(self, task: Task, num_items: int, class_names: Sequence[str] = ()):
        self.task, self.num_items, self.class_names = task, num_items, tuple(class_names)
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # of each batch: true, predicted, probabilities, on its device
        self.classes = 0

    def __call__(self, net: nn.Module, batch: Batch, weights: EdgeWeights | None = None, *, state: State = None,
                 generator: torch.Generator | None = None) -> Result:
        outputs: list[Any] = []
        hook = net.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        try:
            result = self.task(net, batch, weights, state=state, generator=generator)
        finally:
            hook.remove()
        logits = self.task.logits(outputs[-1])
        if logits is not None:
            p, self.classes = logits.softmax(-1), logits.shape[-1]
            self.kept.append((batch[1], logits.argmax(-1), p[:, :0] if (dtype := self._kept_as()) is None else p.to(dtype)))
        return result

    def _kept_as(self) -> torch.dtype | None:
        for dtype in (torch.float32, torch.float16):
            if self.num_items * self.classes * dtype.itemsize <= MAX_BYTES:
                return dtype
        return None

    def predictions(self) -> Predictions | None:
        """All that was kept; None where the task's items have no classes."""
        if not self.kept:
            return None
        true, predicted, p = (torch.cat(parts).cpu().numpy() for parts in zip(*self.kept))
        names = self.class_names if len(self.class_names) == self.classes else tuple(map(str, range(self.classes)))
        return Predictions(true, predicted, p, names)
