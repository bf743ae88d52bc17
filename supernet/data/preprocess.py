"""From what a user has, an image or a text, to what a trained network reads: as its data set did it, and nothing random."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from supernet.data.augment import Augment
from supernet.data.base import DataError
from supernet.data.image_file import MODES, as_8_bits
from supernet.data.text import UNKNOWN, items_of
from supernet.genotype import short

Picture = Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class ImagePreprocessing:
    """Pictures to float32 (N, C, H, W): brought to `image_size` (height, width), scaled to 0..1, then minus `mean`, through `std`.

    A picture is a PIL image, a uint8 array (H, W) or (H, W, 3), or a uint8 tensor (C, H, W); also a list of them, or a uint8 tensor
    (N, C, H, W). One of another size is resized (bilinear) until it covers `image_size`, and cut to the centre; one of other channels
    becomes grey or RGB; what is transparent lies on a grey of `background`, and 16 bits and floats are scaled (`white`), as files of the
    data set were. `crop`: side of the centre square that the network was trained on, None for all.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    crop: int | None = None
    device: torch.device = torch.device("cpu")
    background: int = 255
    white: float | None = None

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        many = isinstance(pictures, Sequence) or isinstance(pictures, Tensor) and pictures.dim() == 4
        pixels = torch.stack([self.pixels(picture) for picture in (pictures if many else [pictures])]).to(self.device)
        normalise = Augment(crop=self.crop).for_evaluation(self.mean, self.std, device=self.device, channels_last=True)
        return normalise(pixels)

    def pixels(self, picture: Picture) -> Tensor:
        """One picture as uint8 (C, *image_size). Raises DataError, one line."""
        if isinstance(picture, Tensor):
            if picture.dtype == torch.uint8 and picture.shape == (len(self.mean), *self.image_size):
                return picture.cpu()
            array = picture.cpu().numpy()
            picture = array.transpose(1, 2, 0) if array.ndim == 3 else array
        if isinstance(picture, np.ndarray):
            picture = _from_array(picture)
        if not isinstance(picture, Image.Image):
            raise DataError(f"a picture must be a PIL image, a uint8 array (H, W, 3) or tensor (C, H, W), got {type(picture).__name__}")
        return self._from_image(picture)

    def _from_image(self, image: Image.Image) -> Tensor:
        if len(self.mean) not in MODES:
            raise DataError(f"this network reads {len(self.mean)} channels: pictures must be uint8 tensors ({len(self.mean)}, "
                            f"{self.image_size[0]}, {self.image_size[1]})")
        image = as_8_bits(image, "the picture", self.background, self.white)[0].convert(MODES[len(self.mean)])
        (width, height), (high, wide) = image.size, self.image_size
        if width * high >= height * wide:
            image = image.resize((high * width // height, high), Image.Resampling.BILINEAR)
        else:
            image = image.resize((wide, wide * height // width), Image.Resampling.BILINEAR)
        left, top = round((image.width - wide) / 2), round((image.height - high) / 2)
        pixels = np.array(image.crop((left, top, left + wide, top + high)))
        return torch.from_numpy(pixels.reshape(high, wide, len(self.mean)).transpose(2, 0, 1).copy())


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise DataError(f"pixels must be uint8, 0 to 255, got {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or array.ndim == 3 and array.shape[2] == 3) or 0 in array.shape:
        raise DataError(f"a picture must have axes (H, W) or (H, W, 3), tensors (C, H, W) with 1 or 3 channels; got {array.shape}")
    return Image.fromarray(array)


@dataclass(frozen=True)
class TextPreprocessing:
    """A text to int64 (T, 1), its items' places in `vocabulary`. level: `character`, or `word` (an end mark a line)."""

    vocabulary: tuple[str, ...]
    level: str
    device: torch.device = torch.device("cpu")

    def __call__(self, text: str) -> Tensor:
        place = {item: n for n, item in enumerate(self.vocabulary)}
        unknown = place.get(UNKNOWN, 0)
        return torch.tensor([[place.get(item, unknown)] for item in items_of(text, self.level)], dtype=torch.int64, device=self.device)


Preprocessing = ImagePreprocessing | TextPreprocessing


def _images(facts: Mapping[str, Any], device: torch.device) -> ImagePreprocessing:
    mean, std, size, crop = (facts[key] for key in ("mean", "std", "image_size", "crop"))
    numbers = all(isinstance(value, int | float) for value in [*mean, *std])
    if not numbers or len(mean) != len(std) or len(size) != 2 or not all(type(s) is int and s > 0 for s in size):
        raise DataError(f"mean and std must be a number a channel and image_size [height, width], got {mean}, {std} and {size}")
    if crop is not None and not (type(crop) is int and crop > 0):
        raise DataError(f"crop must be a side in pixels or none, got {crop}")
    background, white = facts["background"], facts["white"]
    if not (type(background) is int and 0 <= background <= 255) or not (white is None or isinstance(white, int | float) and white > 0):
        raise DataError(f"background must be 0 to 255 and white a positive number or none, got {background} and {white}")
    return ImagePreprocessing(tuple(mean), tuple(std), tuple(size), crop, device, background, white)


def _text(facts: Mapping[str, Any], device: torch.device) -> TextPreprocessing:
    return TextPreprocessing(tuple(map(str, facts["class_names"])), str(facts["level"]), device)


_KINDS = {"images": _images, "text": _text}


def preprocessing(facts: Mapping[str, Any], device: torch.device) -> Preprocessing | None:
    """What `Data.facts` describes; None where the data set says nothing. Raises DataError: it is not as it must be."""
    if not facts:
        return None
    if not isinstance(facts, Mapping) or type(facts.get("kind")) is not str or facts["kind"] not in _KINDS:
        raise DataError(f"data must be of kind {' or '.join(_KINDS)}, got {short(facts)}")
    try:
        return _KINDS[facts["kind"]](facts, device)
    except (KeyError, TypeError) as error:
        raise DataError(f"what is said of the data does not describe {facts['kind']} ({error})") from error
