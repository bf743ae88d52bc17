"""Whole-batch augmentation against the published per-image pipeline."""

import numpy as np
import pytest
import torch

from supernet.data.augment import Augment
from supernet.data.base import DataError

CPU = torch.device("cpu")
MEAN, STD = (0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(batch=16, channels=3, height=32, width=32, seed=0):
    return torch.randint(0, 256, (batch, channels, height, width), generator=generator(seed), dtype=torch.uint8)


def one_image(pixels, augment, mean, std, top, left, flip, hole_y, hole_x):
    """The pipeline as it is written everywhere: one image, numpy, loops in the order of the transforms. uint8 (C, H, W)."""
    channels, height, width = pixels.shape
    high, wide = (augment.crop, augment.crop) if augment.crop else (height, width)
    padded = np.zeros((channels, height + 2 * augment.pad, width + 2 * augment.pad), np.uint8)
    padded[:, augment.pad : augment.pad + height, augment.pad : augment.pad + width] = pixels
    image = padded[:, top : top + high, left : left + wide]
    if flip:
        image = image[:, :, ::-1]
    image = image.astype(np.float32) / np.float32(255)
    image = (image - np.float32(mean).reshape(-1, 1, 1)) / np.float32(std).reshape(-1, 1, 1)
    if augment.cutout:
        mask = np.ones((high, wide), np.float32)
        y1, y2 = np.clip([hole_y - augment.cutout // 2, hole_y + augment.cutout // 2], 0, high)
        x1, x2 = np.clip([hole_x - augment.cutout // 2, hole_x + augment.cutout // 2], 0, wide)
        mask[y1:y2, x1:x2] = 0.0
        image = image * mask
    return torch.from_numpy(np.ascontiguousarray(image))


@pytest.mark.parametrize(
    "augment",
    [
        Augment(pad=4, flip=True, cutout=16),
        Augment(pad=4, flip=True),
        Augment(cutout=8),
        Augment(flip=True),
        Augment(pad=2, flip=True, cutout=6, crop=20),
        Augment(),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 24, 28)])
def test_a_batch_equals_the_per_image_pipeline_bit_for_bit(augment, channels_last, shape):
    mean, std = MEAN[: shape[0]], STD[: shape[0]]
    transform = augment.for_training(mean, std, device=CPU, channels_last=channels_last)
    pixels = noise(24, *shape)
    draw = transform.draw(pixels, generator(1))
    want = [
        one_image(image.numpy(), augment, mean, std, *choice)
        for image, *choice in zip(
            pixels,
            draw.top.tolist(),
            draw.left.tolist(),
            draw.flip.tolist(),
            draw.hole_y.tolist(),
            draw.hole_x.tolist(),
            strict=True,
        )
    ]
    got = transform(pixels, generator(1))
    assert torch.equal(got, torch.stack(want))
    assert got.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert got.dtype == torch.float32


def test_draws_are_uniform_and_independent():
    transform = Augment(pad=4, flip=True, cutout=16).for_training(MEAN, STD, device=CPU)
    draw = transform.draw(torch.zeros(1, dtype=torch.uint8).expand(40_000, 3, 32, 32), generator(5))
    quantities = {"top": 9, "left": 9, "flip": 2, "hole_y": 32, "hole_x": 32}
    for name, sides in quantities.items():
        counts = torch.bincount(getattr(draw, name), minlength=sides).double()
        assert len(counts) == sides
        chi_square = ((counts - 40_000 / sides) ** 2 / (40_000 / sides)).sum()
        assert chi_square < sides - 1 + 5 * (2 * max(sides - 1, 1)) ** 0.5, name
    table = torch.stack([getattr(draw, name).double() for name in quantities])
    assert (torch.corrcoef(table) - torch.eye(5)).abs().max() < 0.025  # five standard deviations


def test_without_padding_flip_or_cutout_training_equals_evaluation():
    augment = Augment()
    pixels = noise()
    training, evaluation = (make(MEAN, STD, device=CPU) for make in (augment.for_training, augment.for_evaluation))
    assert torch.equal(training(pixels, generator()), evaluation(pixels))


def test_evaluation_cuts_the_centre_and_ignores_the_generator():
    pixels = noise(2, 3, 10, 12)
    transform = Augment(pad=3, flip=True, cutout=4, crop=6).for_evaluation(MEAN, STD, device=CPU)
    source = generator()
    before = source.get_state()
    want = (pixels[:, :, 2:8, 3:9].float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.equal(transform(pixels, source), want)
    assert torch.equal(source.get_state(), before)


def test_augmenting_leaves_the_pixels_and_the_global_generator_alone():
    pixels = noise()
    kept, state = pixels.clone(), torch.get_rng_state()
    Augment(pad=4, flip=True, cutout=16).for_training(MEAN, STD, device=CPU)(pixels, generator())
    assert torch.equal(pixels, kept) and torch.equal(torch.get_rng_state(), state)


def test_the_hole_is_zero_after_normalisation_and_padding_is_black_before():
    white = torch.full((64, 3, 32, 32), 255, dtype=torch.uint8)
    transform = Augment(cutout=16).for_training(MEAN, STD, device=CPU)
    holes = (transform(white, generator()) == 0).sum((2, 3))
    assert holes.min() >= 64 and holes.max() == 256  # a quarter of the square at a corner, all of it inside
    padded = Augment(pad=4).for_training(MEAN, STD, device=CPU)(white, generator())
    assert padded[:, 0].min().item() == pytest.approx((0 - MEAN[0]) / STD[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pad": -1}, "pad must be at least 0, or null, got -1"),
        ({"cutout": 7}, "augment.cutout must be an even side length in pixels, 0 for none, got 7"),
        ({"cutout": -2}, "cutout must be at least 0, got -2"),
        ({"crop": 0}, "crop must be at least 1 and at most 65,536, or null, got 0"),
    ],
)
def test_errors_say_what_was_seen(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"pad": 100}, "augment.pad must be at most the side of the images, 8x9 pixels .0 for none., got 100"),
    ({"cutout": 100}, "augment.cutout must be at most the side of the images, 8x9 pixels .0 for none., got 100"),
    ({"crop": 9}, "augment.crop must be at most the padded image, 8x9, got 9"),
])
def test_what_would_leave_nothing_of_the_images_is_refused(arguments, message):
    Augment(pad=8, cutout=8, crop=8).check(8, 9)
    with pytest.raises(DataError, match=message):
        Augment(**arguments).check(8, 9)


def test_a_crop_larger_than_the_padded_image_is_refused():
    transform = Augment(pad=1, crop=40).for_training(MEAN, STD, device=CPU)
    with pytest.raises(DataError, match="at most the padded image, 34x34, got 40"):
        transform(noise(), generator())
    with pytest.raises(DataError, match="at most the padded image, 32x32, got 33"):
        Augment(pad=1, crop=33).for_evaluation(MEAN, STD, device=CPU)(noise())
