"""torchvision, where it is installed: how it is imported, and that our augmentation is what its transforms do."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from supernet.data import torchvision_import
from supernet.data.augment import Augment
from supernet.data.torchvision_import import import_torchvision

REPO = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def torchvision():
    try:
        return import_torchvision()
    except ImportError:
        pytest.skip("torchvision is not installed")


def test_torchvision_imports_in_a_fresh_process(torchvision):
    code = "from supernet.data.torchvision_import import import_torchvision as get; print(get().datasets.CIFAR10.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["CIFAR10"]


def test_other_errors_of_the_import_are_not_hidden(monkeypatch):
    def fail(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(torchvision_import.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()


def test_a_batch_equals_torchvisions_transforms_on_pil_images(torchvision):
    from torchvision.transforms import functional

    mean, std = (0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)
    pixels = torch.randint(0, 256, (32, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    transform = Augment(pad=4, flip=True).for_training(mean, std, device=torch.device("cpu"))
    draw = transform.draw(pixels, torch.Generator().manual_seed(1))
    want = []
    for image, top, left, flip in zip(pixels, draw.top.tolist(), draw.left.tolist(), draw.flip.tolist(), strict=True):
        picture = functional.pad(Image.fromarray(image.permute(1, 2, 0).numpy()), 4)
        picture = functional.crop(picture, top, left, 32, 32)
        picture = functional.hflip(picture) if flip else picture
        want.append(functional.normalize(functional.to_tensor(picture), mean, std))
    assert torch.equal(transform.apply(pixels, draw), torch.stack(want))
