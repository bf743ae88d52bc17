"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32, a hundred (fine) classes."""

from dataclasses import dataclass

from supernet.data.cifar import PIXELS, Cifar, Form, read_batch, read_records

RECORDS_TRAIN, RECORDS_TEST = 50_000, 10_000
CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""


@dataclass(frozen=True)
class CIFAR100(Cifar):
    """Reads cifar-100-binary or cifar-100-python, in that order."""

    name = "cifar100"
    class_names = tuple(CLASSES.split())
    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    torchvision_name = "CIFAR100"
    by_hand = (
        "put the unpacked cifar-100-binary.tar.gz (folder cifar-100-binary) or cifar-100-python.tar.gz (cifar-100-python) "
        "from https://www.cs.toronto.edu/~kriz/cifar.html there"
    )

    @staticmethod
    def forms() -> tuple[Form, ...]:
        records = (RECORDS_TRAIN, RECORDS_TEST)
        return (
            Form("cifar-100-binary", ("train.bin",), ("test.bin",), *records, 2 + PIXELS, read_records(2)),
            Form("cifar-100-python", ("train",), ("test",), *records, 0, read_batch(b"fine_labels")),
        )
