"""RandAugment and TrivialAugment: each operation against PIL's on the same image, and what is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from supernet.data import policies
from supernet.data.augment import Augment
from supernet.data.policies import NAMES, Chosen, RandAugment, Reach, TrivialAugment, augmented

REACH = Reach(shear=0.3, translate_x=9.7, translate_y=7.2, rotate=30.0, factor=0.9, bits=4)


def pictures(channels=3, count=6, height=24, width=20):
    """Smooth and noisy images, a dark one and one of a single colour."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    ramp = torch.arange(height * width).view(height, width) * 255 // (height * width)
    noise[1], noise[2], noise[3] = ramp.to(torch.uint8), noise[2] // 8 + 40, 117
    return noise


def pil(image):
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def tensor(image):
    array = np.asarray(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).copy()).permute(2, 0, 1)


def sharpened(image, factor):
    return ImageEnhance.Sharpness(image).enhance(factor)


def moved(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def by_pil(name, image, amount, reach):
    """What the operation does to one image, `amount` with its sign, as the official codes do it."""
    match name:
        case "identity":
            return image
        case "shear_x":
            return moved(image, (1, amount * reach.shear, 0, 0, 1, 0))
        case "shear_y":
            return moved(image, (1, 0, 0, amount * reach.shear, 1, 0))
        case "translate_x":
            return moved(image, (1, 0, -int(amount * reach.translate_x), 0, 1, 0))
        case "translate_y":
            return moved(image, (1, 0, 0, 0, 1, -int(amount * reach.translate_y)))
        case "rotate":
            return image.rotate(amount * reach.rotate)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(1 + amount * reach.factor)
        case "color":
            return ImageEnhance.Color(image).enhance(1 + amount * reach.factor)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(1 + amount * reach.factor)
        case "sharpness":
            return sharpened(image, 1 + amount * reach.factor)
        case "posterize":
            return ImageOps.posterize(image, 8 - round(abs(amount) * reach.bits))
        case "solarize":
            return ImageOps.solarize(image, 255 * (1 - abs(amount)))
        case "auto_contrast":
            return ImageOps.autocontrast(image)
    return ImageOps.equalize(image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_pils_to_the_bit(name, channels):
    images = pictures(channels)
    for level in (0.0, 0.3, 0.77, 1.0):
        for sign in (1, -1):
            chosen = Chosen(torch.full((len(images),), NAMES.index(name)), torch.full((len(images),), level, dtype=torch.float64),
                            torch.full((len(images),), sign))
            got = policies._once(images, chosen, REACH)
            amount = level * sign if name in policies.SIGNED else level
            want = torch.stack([tensor(by_pil(name, pil(image), amount, REACH)) for image in images])
            wrong = (got.int() - want.int()).abs()
            # PIL blends in float and turns images in fixed steps: in one place of a thousand a rounding falls to the other side
            assert wrong.float().ne(0).float().mean() < (0.01 if name == "rotate" else 0.002), (level, sign)
            if name not in policies.GEOMETRIC:
                assert wrong.max() <= 1, (level, sign)


def test_every_image_of_a_batch_gets_its_own_operation():
    images = pictures(count=len(NAMES) + 1)[: len(NAMES)]
    op, level = torch.arange(len(NAMES)), torch.linspace(0.2, 1, len(NAMES), dtype=torch.float64)
    sign = 1 - 2 * (op % 2)
    together = policies._once(images, Chosen(op, level, sign), REACH)
    for n in range(len(NAMES)):
        alone = policies._once(images[n : n + 1], Chosen(op[n : n + 1], level[n : n + 1], sign[n : n + 1]), REACH)
        assert torch.equal(together[n], alone[0]), NAMES[n]


@pytest.mark.parametrize("policy, rounds", [(RandAugment(num_ops=3, magnitude=15), 3), (TrivialAugment(), 1)])
def test_a_policy_draws_all_operations_signs_and_its_own_magnitudes_from_the_generator_alone(policy, rounds):
    before = torch.random.get_rng_state()
    drawn = policy.draw(4000, torch.Generator().manual_seed(0))
    again = policy.draw(4000, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(drawn) == rounds
    for one, other in zip(drawn, again):
        assert all(torch.equal(a, b) for a, b in zip(one, other))
        counts = torch.bincount(one.op, minlength=len(NAMES)).double()
        assert (counts / 4000 - 1 / 14).abs().max() < 0.02 and set(one.sign.tolist()) == {-1, 1}
    levels = drawn[0].level.unique()
    assert levels.tolist() == [0.5] if rounds == 3 else torch.allclose(levels, torch.arange(31).double() / 30)


def test_a_magnitude_beyond_the_bins_is_refused():
    with pytest.raises(ValueError, match="magnitude must be at least 0 and at most 30, got 31"):
        RandAugment(magnitude=31)


def test_a_policy_stands_between_the_crop_and_normalisation_and_leaves_the_other_draws_as_they_are():
    images = pictures(count=8, height=20)
    mean, std = (0.511, 0.413, 0.317), (0.2, 0.3, 0.25)  # no pixel is exactly the mean
    plain = Augment(pad=2, flip=True, cutout=6).for_training(mean, std, device=torch.device("cpu"))
    with_policy = Augment(pad=2, flip=True, cutout=6, policy=RandAugment()).for_training(mean, std, device=torch.device("cpu"))
    draw, other = (t.draw(images, torch.Generator().manual_seed(1)) for t in (plain, with_policy))
    assert torch.equal(draw.top, other.top) and torch.equal(draw.hole_x, other.hole_x) and draw.chosen == ()
    got = with_policy.apply(images, other)
    unnormalised = Augment(pad=2, flip=True).for_training((0.0,) * 3, (1.0,) * 3, device=torch.device("cpu"))
    cropped = (unnormalised.apply(images, draw) * 255).round().to(torch.uint8)
    want = with_policy.normalise.scale(augmented(cropped, RandAugment(), other.chosen))
    hole = plain.apply(images, draw) == 0
    torch.testing.assert_close(got, torch.where(hole, 0.0, want), rtol=0, atol=1e-6)


