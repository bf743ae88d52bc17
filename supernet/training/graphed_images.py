"""What is done to a batch of images as one CUDA graph: five draws and some twenty operations are then one launch."""

import torch
from torch import Tensor

from supernet.data.base import Data, DataError
from supernet.data.loader import Loader, Transform
from supernet.training.graphed import Capturing, Half


class GraphedTransform:
    """A `loader.Transform` that draws the same numbers from `generator` as `transform`, to the same images: whole batches of it through the
    graph, those of another size or from another generator through `transform`.

    It stands beside the graphs of a step, not within one: both halves of a step see the same training images, some steps have one half
    only, and so every loop gains by it, of eager steps and of final networks too.

    capturing: None runs the transform as it is, on any device: for tests.
    """

    def __init__(self, transform: Transform, batch_size: int, generator: torch.Generator, capturing: Capturing | None, *, warm_up: int = 2):
        self.transform, self.batch_size, self.generator = transform, batch_size, generator
        self.capturing, self.warm_up = capturing, warm_up
        self._half: Half | None = None

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, C, H, W) to float32 (B, C, H', W')."""
        if len(pixels) != self.batch_size or generator is not self.generator:
            return self.transform(pixels, generator)
        if self._half is None:
            held = pixels.clone()
            self._half = Half(lambda: {"images": self.transform(held, generator)}, [held], (), self.warm_up, [generator])
        return self._half([pixels], self.capturing)["images"]


def augment_in_graphs(capturing: Capturing | None, data: Data, *loaders: Loader) -> None:
    """From now on the loaders' whole batches are made by graphs. Raises DataError: the data are no images."""
    if data.item != "image":
        raise DataError(f"graph_augmentation=true is for images, and {data.name} is read as {data.item}s: pass graph_augmentation=false")
    for loader in loaders:
        loader.transform = GraphedTransform(loader.transform, loader.batch_size, loader.generator, capturing)
