"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32, ten classes."""

from dataclasses import dataclass

from supernet.data.cifar import PIXELS, Cifar, Form, read_batch, read_records

RECORDS = 10_000  # images in each file
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


@dataclass(frozen=True)
class CIFAR10(Cifar):
    """Reads cifar-10-batches-bin or cifar-10-batches-py, in that order."""

    name = "cifar10"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    num_classes = 10
    mean = (0.49140, 0.48216, 0.44653)
    std = (0.24703, 0.24349, 0.26159)
    torchvision_name = "CIFAR10"
    by_hand = (
        "put the unpacked cifar-10-binary.tar.gz (folder cifar-10-batches-bin) or cifar-10-python.tar.gz (cifar-10-batches-py) "
        "from https://www.cs.toronto.edu/~kriz/cifar.html there"
    )

    @staticmethod
    def forms() -> tuple[Form, ...]:
        binary = tuple(f"{name}.bin" for name in BATCHES)
        return (
            Form("cifar-10-batches-bin", binary, ("test_batch.bin",), RECORDS, RECORDS, 1 + PIXELS, read_records(1)),
            Form("cifar-10-batches-py", BATCHES, ("test_batch",), RECORDS, RECORDS, 0, read_batch(b"labels")),
        )
