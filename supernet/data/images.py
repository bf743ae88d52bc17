"""`ImageData`: an image data set as the scripts see it, from the options of a split to batches on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernet.data.augment import Augment
from supernet.data.base import Data, DataError, Part, Source
from supernet.data.describe import described
from supernet.data.loader import FinalLoaders, Loader, Loading, SearchLoaders, final_loaders, search_loaders, test_loader
from supernet.data.shared import shared_split
from supernet.data.split import Split, lacking, make_split
from supernet.interfaces import check_interface


@dataclass(frozen=True)
class ImageData(Data):
    """The images of `source`, augmented in training by `augment`. `sampling`: how batches that train are drawn (`sampling.SAMPLINGS`)."""

    source: Source
    augment: Augment
    sampling: str = "shuffled"

    item = "image"

    def __post_init__(self) -> None:
        check_interface(self.source, Source, "dataset.source")

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def sizes(self) -> dict[str, Any]:
        side = self.augment.crop
        return {"num_classes": self.source.num_classes, "in_channels": self.source.in_channels,
                "image_size": self.source.image_size if side is None else (side, side)}

    def check(self) -> None:
        self.source.check()
        self.augment.check(*self.source.image_size)

    def facts(self) -> dict[str, Any]:
        source = self.source
        return {"kind": "images", "name": self.name, "class_names": list(source.class_names), "image_size": list(source.image_size),
                "mean": list(source.mean), "std": list(source.std), "crop": self.augment.crop,
                "background": getattr(source, "background", 255), "white": getattr(source, "white", None)}  # of those that read files

    def example(self, device: torch.device) -> Tensor:
        return torch.zeros(1, self.source.in_channels, *self.sizes["image_size"], device=device)

    def search(self, loading: Loading, *, split: Mapping[str, Any], augment_val: bool,
               generators: Mapping[str, torch.Generator]) -> SearchLoaders:
        images = self.source.train()
        limits = {**_limits(split, len(images) - images.own_val), "generator": generators["split"]}
        if split.get("shared") and images.own_val:
            raise DataError(f"split.shared=true trains weights and alphas on the same images, and data set {self.source.name} has "
                            f"{images.own_val} of its own for validation: pass dataset.source.val=null to leave them out")
        if split.get("shared"):
            chosen = shared_split(len(images), **limits)
        else:
            chosen = make_split(images.labels, mode=split["mode"], train_portion=split["train_portion"], own_val=images.own_val, **limits)
        return search_loaders(self.source, chosen, images=images, augment=self.augment, augment_val=augment_val, sampling=self.sampling,
                              generators=(generators["train"], generators["val"]), about=self._about(images, chosen, split["mode"]),
                              **vars(loading))

    def final(self, loading: Loading, *, split: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> FinalLoaders:
        images = self.source.train()
        chosen = make_split(images.labels, mode=split["mode"], train_portion=1 - split["val_portion"], max_train=split["max_train"],
                            max_val=split.get("max_val"), generator=generators["split"], own_val=images.own_val)
        return final_loaders(self.source, chosen, images=images, augment=self.augment, generator=generators["train"],
                             sampling=self.sampling, about=self._about(images, chosen, split["mode"]), **vars(loading))

    def _about(self, images: Part, chosen: Split, mode: str) -> tuple[str, ...]:
        """What was read. Raises DataError where the split leaves out a class without need."""
        names = self.source.class_names
        return (*described(self.source, images), *lacking(images.labels, chosen, names, mode=mode, own_val=images.own_val))

    def test(self, loading: Loading) -> Loader:
        return test_loader(self.source, batch_size=loading.eval_batch_size, augment=self.augment, device=loading.device,
                           workers=loading.workers, channels_last=loading.channels_last, group=loading.group)


def _limits(split: Mapping[str, Any], count: int) -> dict[str, int | None]:
    """`max_train` and `max_val` of a search's split of so many images, which may take a portion of them only."""
    limits = {"max_train": split["max_train"], "max_val": split["max_val"]}
    portion = split.get("portion", 1.0)
    if portion == 1:
        return limits
    shares = {"max_train": split["train_portion"], "max_val": 1 - split["train_portion"]}
    most = {name: max(1, round(portion * share * count)) for name, share in shares.items()}
    return {name: most[name] if limit is None else min(limit, most[name]) for name, limit in limits.items()}
