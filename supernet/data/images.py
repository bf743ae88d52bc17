"""`ImageData`: an image data set as the scripts see it, from the options of a split to batches on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernet.data.augment import Augment
from supernet.data.base import Data, Source
from supernet.data.loader import FinalLoaders, Loader, Loading, SearchLoaders, final_loaders, search_loaders, test_loader
from supernet.data.split import make_split


@dataclass(frozen=True)
class ImageData(Data):
    """The images of `source`, augmented in training by `augment`."""

    source: Source
    augment: Augment

    item = "image"

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def sizes(self) -> dict[str, Any]:
        return {"num_classes": self.source.num_classes, "in_channels": self.source.in_channels, "image_size": self.source.image_size}

    def check(self) -> None:
        self.source.check()
        self.augment.check(*self.source.image_size)

    def example(self, device: torch.device) -> Tensor:
        return torch.zeros(1, self.source.in_channels, *self.source.image_size, device=device)

    def search(self, loading: Loading, *, split: Mapping[str, Any], augment_val: bool,
               generators: Mapping[str, torch.Generator]) -> SearchLoaders:
        images = self.source.train()
        chosen = make_split(images.labels, mode=split["mode"], train_portion=split["train_portion"], max_train=split["max_train"],
                            max_val=split["max_val"], generator=generators["split"])
        return search_loaders(self.source, chosen, images=images, augment=self.augment, augment_val=augment_val,
                              generators=(generators["train"], generators["val"]), **vars(loading))

    def final(self, loading: Loading, *, split: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> FinalLoaders:
        images = self.source.train()
        chosen = make_split(images.labels, mode=split["mode"], train_portion=1 - split["val_portion"], max_train=split["max_train"],
                            generator=generators["split"])
        return final_loaders(self.source, chosen, images=images, augment=self.augment, generator=generators["train"], **vars(loading))

    def test(self, loading: Loading) -> Loader:
        return test_loader(self.source, batch_size=loading.eval_batch_size, augment=self.augment, device=loading.device,
                           workers=loading.workers, channels_last=loading.channels_last)
