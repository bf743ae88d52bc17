"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32, a hundred (fine) classes."""

from dataclasses import dataclass
from pathlib import Path

from supernet.data import cifar
from supernet.data.base import Images
from supernet.data.download import download

RECORDS_TRAIN, RECORDS_TEST = 50_000, 10_000
BY_HAND = (
    "put the unpacked cifar-100-binary.tar.gz (folder cifar-100-binary) or cifar-100-python.tar.gz (cifar-100-python) "
    "from https://www.cs.toronto.edu/~kriz/cifar.html there"
)
CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""


def layouts() -> tuple[cifar.Layout, ...]:
    records = (RECORDS_TRAIN, RECORDS_TEST)
    return (
        cifar.Layout("cifar-100-binary", ("train.bin",), ("test.bin",), *records, 2 + cifar.PIXELS, cifar.read_records(2)),
        cifar.Layout("cifar-100-python", ("train",), ("test",), *records, 0, cifar.read_batch(b"fine_labels")),
    )


@dataclass(frozen=True)
class CIFAR100:
    """Reads cifar-100-binary or cifar-100-python under `root`, in that order; image i is torchvision's image i.

    With `download`, `check()` fetches the python version where neither is complete.
    """

    root: str = "data"
    download: bool = False

    name = "cifar100"
    class_names = tuple(CLASSES.split())
    num_classes = 100
    in_channels = 3
    image_size = (32, 32)
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)

    def check(self) -> None:
        if self.download and all(layout.missing(Path(self.root)) for layout in layouts()):
            download("CIFAR100", Path(self.root), BY_HAND)
        self._layout()

    def train(self) -> Images:
        layout = self._layout()
        return cifar.read_part(layout, Path(self.root), layout.train, layout.records_train, self.num_classes)

    def test(self) -> Images:
        layout = self._layout()
        return cifar.read_part(layout, Path(self.root), layout.test, layout.records_test, self.num_classes)

    def _layout(self) -> cifar.Layout:
        return cifar.find(layouts(), Path(self.root), f"run with dataset.download=true, or {BY_HAND}")
