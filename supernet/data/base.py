"""What a data set hands over: `Source`, and `Images` for one part of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.data.crops import ResizedCrop
from supernet.errors import Mendable


class DataError(Mendable, ValueError):
    """The data, or what was asked of it, is not as it must be. The message is one line: what was expected and what was seen."""


class Part(Protocol):
    """Images with labels, read by position. `Images` holds them; `image_files.ImageFiles` decodes them when they are read."""

    @property
    def labels(self) -> Tensor: ...  # int64 (N,)

    @property
    def resident(self) -> bool: ...  # whether all pixels are in memory, so that `read` costs a copy and no decoding

    @property
    def own_val(self) -> int: ...  # of the training part: so many at its end are a validation part that came with it

    @property
    def stored(self) -> str: ...  # as what pixels were found: `8 bits`, `16 bits`

    @property
    def notes(self) -> tuple[str, ...]: ...  # what whoever uses them should know of how they were read, a line each

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor: ...  # uint8 (B, C, H, W), for int64 (B,) on the device the images are on

    def crops(self, indices: Tensor, crop: ResizedCrop, numbers: Tensor, side: int) -> Tensor:
        """uint8 (B, C, side, side): of each image the box that a row of `numbers` (B, crop.numbers), on the host, means in it. Read where
        `augment.resized_crop` asks for it."""

    def to(self, device: torch.device) -> "Part": ...  # resident pixels move; files stay where they are


@dataclass(frozen=True, eq=False)
class Images:
    """One part of a data set, in memory: `pixels` uint8 (N, C, H, W) and `labels` int64 (N,), read by a source onto the host."""

    pixels: Tensor
    labels: Tensor
    own_val: int = 0
    stored: str = "8 bits"
    notes: tuple[str, ...] = ()
    resident = True

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise DataError(f"pixels must be uint8 (N, C, H, W), got {self.pixels.dtype} {tuple(self.pixels.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"labels must be int64 ({len(self.pixels)},), one an image, got {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Tensor) -> Tensor:
        return self.pixels.index_select(0, indices)  # copies whole images, where indexing goes byte by byte

    def crops(self, indices: Tensor, crop: ResizedCrop, numbers: Tensor, side: int) -> Tensor:
        found = []
        for image, row in zip(self.read(indices), numbers):
            top, left, high, wide = crop.box(row, *image.shape[1:])
            part = image[None, :, top : top + high, left : left + wide].float()
            found.append(F.interpolate(part, (side, side), mode="bilinear", antialias=True, align_corners=False))
        return torch.cat(found).round().clamp(0, 255).to(torch.uint8)

    def to(self, device: torch.device) -> "Images":
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))


class Source(Protocol):
    """A data set. Making one touches no file; `train()` reads the training part only and `test()` the test part only."""

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...  # in label order

    @property
    def num_classes(self) -> int: ...

    @property
    def in_channels(self) -> int: ...

    @property
    def image_size(self) -> tuple[int, int]: ...  # height, width in pixels

    @property
    def mean(self) -> tuple[float, ...]: ...  # per channel, of the training part, with pixels in 0..1

    @property
    def std(self) -> tuple[float, ...]: ...

    def check(self) -> None:
        """Before any work starts: raise `DataError` if files are missing (fetching them first where asked to)."""

    def train(self) -> Part: ...  # a validation part that came with the data follows behind, `own_val` images

    def test(self) -> Part: ...


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Raise `DataError` unless every label is in 0..num_classes-1; `where` names the file in the message."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(f"{where}: labels must be in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")


class Data(Protocol):
    """A data set as the scripts see it. Loaders are streams whose position can be saved (`loader.Loader`)."""

    item: str  # what is counted: image, character, word; loaders say in `about` what was read, for the head of a run

    @property
    def name(self) -> str: ...

    @property
    def sizes(self) -> dict[str, Any]: ...  # what the builder of a network must know of the data

    def check(self) -> None: ...  # raises DataError unless the files are there and as they must be

    def facts(self) -> dict[str, Any]:
        """What who uses a trained network must know, as plain values that are kept with its weights; `kind` says which class of
        `preprocess` reads them. Nothing is known where a data set does not say."""
        return {}

    def example(self, device: torch.device) -> Tensor: ...  # one input of a network

    def search(self, loading: Any, *, split: Mapping[str, Any], augment_val: bool, generators: Mapping[str, torch.Generator]) -> Any: ...

    def final(self, loading: Any, *, split: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> Any: ...

    def test(self, loading: Any) -> Any: ...  # the only way to the test part
