"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32, ten classes."""

from dataclasses import dataclass
from pathlib import Path

from supernet.data import cifar
from supernet.data.base import Images
from supernet.data.download import download

RECORDS = 10_000  # images in each file
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
BY_HAND = (
    "put the unpacked cifar-10-binary.tar.gz (folder cifar-10-batches-bin) or cifar-10-python.tar.gz (cifar-10-batches-py) "
    "from https://www.cs.toronto.edu/~kriz/cifar.html there"
)


def layouts() -> tuple[cifar.Layout, ...]:
    binary = tuple(f"{name}.bin" for name in BATCHES)
    return (
        cifar.Layout(
            "cifar-10-batches-bin", binary, ("test_batch.bin",), RECORDS, RECORDS, 1 + cifar.PIXELS, cifar.read_records(1)
        ),
        cifar.Layout("cifar-10-batches-py", BATCHES, ("test_batch",), RECORDS, RECORDS, 0, cifar.read_batch(b"labels")),
    )


@dataclass(frozen=True)
class CIFAR10:
    """Reads cifar-10-batches-bin or cifar-10-batches-py under `root`, in that order; image i is torchvision's image i.

    With `download`, `check()` fetches the python version where neither is complete.
    """

    root: str = "data"
    download: bool = False

    name = "cifar10"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    num_classes = 10
    in_channels = 3
    image_size = (32, 32)
    mean = (0.49140, 0.48216, 0.44653)
    std = (0.24703, 0.24349, 0.26159)

    def check(self) -> None:
        if self.download and all(layout.missing(Path(self.root)) for layout in layouts()):
            download("CIFAR10", Path(self.root), BY_HAND)
        self._layout()

    def train(self) -> Images:
        layout = self._layout()
        return cifar.read_part(layout, Path(self.root), layout.train, layout.records_train, self.num_classes)

    def test(self) -> Images:
        layout = self._layout()
        return cifar.read_part(layout, Path(self.root), layout.test, layout.records_test, self.num_classes)

    def _layout(self) -> cifar.Layout:
        return cifar.find(layouts(), Path(self.root), f"run with dataset.download=true, or {BY_HAND}")
