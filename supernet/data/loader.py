"""Batches on the device, and where in their stream we are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from supernet.data.augment import Augment
from supernet.data.base import DataError, Part, Source
from supernet.data.crops import ResizedCrop, of_batch
from supernet.data.sampling import sampling as make_draw
from supernet.data.split import Split
from supernet.processes.group import ALONE, Cut, Group

Batch = tuple[Tensor, Tensor]  # images float (B, C, H, W), labels int64 (B,)
Transform = Callable[[Tensor, torch.Generator], Tensor]  # uint8 (B, C, H, W) -> float32 (B, C, H', W'), on the device
NOT_AUGMENTED = Augment()
SAMPLE = 4096  # images, of `FinalLoaders.sample`


class Loader:
    """The images at `indices` (int64 (N,)), in batches, on `device`: transformed, and cast to `dtype`.

    A pass is one walk over all of them, in a fresh random order when `shuffle` is True; with `sampling` balanced it is over as many, drawn
    from every class equally (`sampling.SAMPLINGS`). All randomness, draws, orders and transforms alike, comes from `generator`, which
    lives on `device`.

    The loader is a position in a stream, `position` being the batches of the pass that were handed out. Iterating goes on from
    there: after a `break`, or in another process after `load_state_dict`, the batches that remain are the same bit for bit. After
    the last batch the next iteration starts a new pass; `restart()` gives up the rest of a pass. Use one iterator at a time, and
    take a new one after `load_state_dict` or `restart`.

    Resident images are held on the device as uint8 and picked there. Others are decoded by `workers` processes (0: by this one)
    that draw nothing: where `crop` cuts parts of `side` pixels out of the images, its numbers are drawn here, for each batch from a seed
    that is drawn once a pass, and sent with the positions, so that neither the number of workers nor how far they read ahead counts.

    alternate_flips: mirrors half of the images, always the same ones, in the first pass, and the others in the next.

    group: of the processes that share the batches. Orders are drawn alike in all, and each hands out its part of every batch, transformed
    by draws of its own; `batch_size`, positions and states are those of whole batches, and the same in all. Crops and alternating flips
    belong to places in whole batches and to images, so that they are those of one process.
    """

    def __init__(
        self,
        images: Part,
        indices: Tensor,
        *,
        batch_size: int,
        transform: Transform,
        generator: torch.Generator,
        shuffle: bool,
        drop_last: bool,
        device: torch.device | str,
        workers: int = 0,
        dtype: torch.dtype = torch.float32,
        sampling: str = "shuffled",
        alternate_flips: bool = False,
        crop: ResizedCrop | None = None,
        side: int | None = None,
        group: Group = ALONE,
    ) -> None:
        self.device = torch.device(device)
        if batch_size < 1 or workers < 0:
            raise DataError(f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}")
        if len(indices) == 0 or (drop_last and batch_size > len(indices)):
            raise DataError(f"a loader must have at least one batch, got {len(indices)} images in batches of {batch_size}")
        if not 0 <= int(indices.min()) <= int(indices.max()) < len(images):
            raise DataError(
                f"positions must be in 0..{len(images) - 1}, the data set's training part as it was split, "
                f"got {int(indices.min())}..{int(indices.max())}"
            )
        if generator.device.type != self.device.type:
            raise DataError(f"the generator must be on the loader's device, {self.device}, got one on {generator.device}")
        self.images = images.to(self.device)
        self.indices = indices.to(self.device)
        self.labels = images.labels.to(self.device)
        self.batch_size = batch_size
        self.transform = transform
        self.generator = generator
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.workers = workers
        self.dtype = dtype
        self.group = group
        self.position = 0
        self.passes = 0  # that were begun
        self.crop, self.side = crop, side
        self._pass_seed = 0
        self._mirrored = None
        if alternate_flips:
            self._mirrored = torch.randint(2, (len(images),), generator=torch.Generator().manual_seed(0)).bool().to(self.device)
        self._draw = make_draw(sampling, self.labels[self.indices])
        self._order = self.indices.new_empty(0)  # positions in `indices`, for this pass; empty before the first

    @property
    def num_items(self) -> int:
        return len(self.indices)

    @property
    def smallest_batch(self) -> int:
        """Images in the smallest batch of a pass, or in the smallest part of it that a process of the group has."""
        rest = self.num_items % self.batch_size
        return self.group.least(rest if rest and not self.drop_last else min(self.batch_size, self.num_items))

    def lone_batch(self, option: str) -> tuple[str, str]:
        """Where the smallest batch has one image: how that comes about, and what helps, `option` being what limits the images."""
        why = f"batch_size={self.batch_size}" if self.batch_size == 1 else (
            f"{self.num_items} images in batches of {self.batch_size} leave a last batch of one image")
        return why, f"pass another batch_size, or {option}={max(1, self.num_items - 1)}"

    def __len__(self) -> int:
        """Batches in a whole pass."""
        whole, rest = divmod(self.num_items, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        if len(self._order) == 0 or self.position == len(self):
            self.position, self._order = 0, self._new_order()
            self.passes += 1
            if self.crop is not None:
                self._pass_seed = int(torch.randint(2**62, (), generator=self.generator, device=self.device))
        first = self.position
        remaining = self.indices[self._order].split(self.batch_size)[first : len(self)]
        asked = [Asked(self.group.cut(positions), n) for n, positions in enumerate(remaining, first)]
        crop = None if self.crop is None else _Cropping(self.crop, self._pass_seed, self.side)
        read = _pick if self.images.resident else _stream
        for (cut, _), pixels in zip(asked, read(_Reading(self.images, crop), asked, self.workers, self.device), strict=True):
            drawn = self.group.own(self.generator, self.position)
            self.position += 1
            turned = self._turned(pixels, cut.items)
            yield self.group.batch((self.transform(turned, drawn).to(self.dtype), self.labels[cut.items]), cut)

    def _turned(self, pixels: Tensor, chosen: Tensor) -> Tensor:
        """`pixels`, with those mirrored whose turn it is in this pass."""
        if self._mirrored is None:
            return pixels
        now = self._mirrored[chosen] ^ (self.passes % 2 == 0)
        return torch.where(now.view(-1, 1, 1, 1), pixels.flip(-1), pixels)

    def apart(self, batch_size: int | None, generator: torch.Generator) -> "Loader":
        """A new stream of the same images, handed out in the same way in batches of `batch_size` (None: of as many), which draws from
        `generator` and leaves this one where it stands."""
        return Loader(self.images, self.indices, batch_size=self.batch_size if batch_size is None else batch_size, transform=self.transform,
                      generator=generator, shuffle=self.shuffle, drop_last=self.drop_last, device=self.device, workers=self.workers,
                      dtype=self.dtype, crop=self.crop, side=self.side, group=self.group)

    def restart(self) -> None:
        """Give up the rest of this pass, and the count of passes: the next iteration starts a new one, as the first."""
        self.position = self.passes = 0
        self._order = self.indices.new_empty(0)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and ints. A state taken after the last batch of a pass is one of a finished pass."""
        return {
            "order": self._order.cpu(),
            "position": self.position,
            "passes": self.passes,
            "pass_seed": self._pass_seed,
            "generator": self.generator.get_state(),
            "num_items": self.num_items,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        seen = (state["num_items"], state["batch_size"])
        if seen != (self.num_items, self.batch_size):
            raise DataError(
                f"the saved position is one in {seen[0]} images in batches of {seen[1]}, "
                f"but this loader has {self.num_items} in batches of {self.batch_size}"
            )
        self._order = state["order"].to(self.device)
        self.position = state["position"]
        self.passes, self._pass_seed = state.get("passes", 0), state.get("pass_seed", 0)  # earlier versions had no use for them
        self.generator.set_state(state["generator"].cpu())

    def _new_order(self) -> Tensor:
        if self.shuffle:
            return self._draw(self.generator)
        return torch.arange(self.num_items, device=self.device)


class Asked(NamedTuple):
    """This process's part of one batch of a pass, its items positions in the images, int64 (B,), and the how manieth it is."""

    cut: Cut
    batch: int


class _Cropping(NamedTuple):
    crop: ResizedCrop
    seed: int  # of the pass
    side: int


class _Reading(Dataset):
    """Pixels by `Asked`, with what went wrong or "": an error raised in a worker would lose its one line."""

    def __init__(self, images: Part, cropping: _Cropping | None) -> None:
        self.images, self.cropping = images, cropping

    def read(self, asked: Asked, numbers: Tensor | None) -> Tensor:
        if numbers is None:
            return self.images.read(asked.cut.items)
        return self.images.crops(asked.cut.items, self.cropping.crop, numbers, self.cropping.side)

    def numbers(self, asked: Asked) -> Tensor | None:
        """The random numbers of its boxes, drawn in this process: of those of the whole batch its own."""
        if self.cropping is None:
            return None
        cut = asked.cut
        return of_batch(self.cropping.crop, self.cropping.seed, asked.batch, cut.total)[cut.begin : cut.begin + len(cut.items)]

    def __getitem__(self, item: tuple[Asked, Tensor | None]) -> tuple[Tensor, str]:
        try:
            return self.read(*item), ""
        except DataError as error:
            return torch.empty(0, dtype=torch.uint8), str(error)


class _Plan(Sampler):
    """What is asked for, batch by batch, with its random numbers, which are drawn when a batch is handed to who reads it."""

    def __init__(self, reading: _Reading, asked: Sequence[Asked]) -> None:
        self.reading, self.asked = reading, asked

    def __iter__(self) -> Iterator[tuple[Asked, Tensor | None]]:
        for one in self.asked:
            here = Asked(one.cut._replace(items=one.cut.items.cpu()), one.batch)
            yield here, self.reading.numbers(here)

    def __len__(self) -> int:
        return len(self.asked)


def _pick(reading: _Reading, asked: Sequence[Asked], workers: int, device: torch.device) -> Iterator[Tensor]:
    return (reading.read(one, reading.numbers(one)) for one in asked)


def _stream(reading: _Reading, asked: Sequence[Asked], workers: int, device: torch.device) -> Iterator[Tensor]:
    loader = DataLoader(
        reading,
        sampler=_Plan(reading, asked),
        batch_size=None,  # each item is a whole batch
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # it seeds workers that draw nothing; without one it would draw from the global state
    )
    for pixels, problem in loader:
        if problem:
            raise DataError(problem)
        yield pixels.to(device, non_blocking=True)


class Forever:
    """Batches of `loader` without end, a new pass when one is over. One iterator lives on: nothing is rebuilt at each step."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self._batches = iter(loader)

    def __iter__(self) -> "Forever":
        return self

    def __next__(self) -> Batch:
        for batch in self._batches:
            return batch
        self._batches = iter(self.loader)
        return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self._batches = iter(self.loader)


@dataclass(frozen=True)
class Loading:
    """How batches are made and where they go. group: the processes that share them."""

    batch_size: int
    eval_batch_size: int
    device: torch.device
    workers: int = 0
    channels_last: bool = False
    group: Group = ALONE


@dataclass(frozen=True)
class SearchLoaders:
    """`train` for w, `val` (shuffled) for alpha, `val_eval` (in order, not augmented) to measure. A search has no test part. `about`: what
    was read, lines for people. `class_counts`: images of each class that train w; none where there are no classes."""

    train: Loader
    val: Loader
    val_eval: Loader
    split: Split
    about: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class FinalLoaders:
    """`train`, and `val` (in order, not augmented) or None when the split keeps nothing for it; the rest as of `SearchLoaders`. `sample`:
    some of the images that train, in order, not augmented, for who looks at the data before it trains; None where they are no images."""

    train: Loader
    val: Loader | None
    split: Split
    about: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    sample: Loader | None = None


def search_loaders(
    source: Source,
    split: Split,
    *,
    images: Part | None = None,
    batch_size: int,
    augment: Augment,
    generators: tuple[torch.Generator, torch.Generator],
    device: torch.device | str,
    workers: int = 0,
    eval_batch_size: int = 256,
    augment_val: bool = True,
    drop_last: bool = False,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
    sampling: str = "shuffled",
    about: tuple[str, ...] = (),
    group: Group = ALONE,
) -> SearchLoaders:
    """Loaders of the training part; the test part is not read. `generators` are those of `train` and `val`, on `device`. `images`: the
    training part, where it was read already.

    The official DARTS code augments the images that train alpha as it does those that train w; `augment_val=False` gives them as
    they are. It also keeps the last, smaller batch, as `drop_last=False` does.
    """
    _check_batch_size(batch_size, "training", split.train)
    _check_batch_size(batch_size, "validation", split.val)
    device = torch.device(device)
    images = (source.train() if images is None else images).to(device)  # once, for all three to share
    training = augment.for_training(source.mean, source.std, device=device, channels_last=channels_last)
    plain = augment.for_evaluation(source.mean, source.std, device=device, channels_last=channels_last)
    common: dict[str, Any] = {"device": device, "workers": workers, "dtype": dtype, "group": group}
    learning = {"batch_size": batch_size, "shuffle": True, "drop_last": drop_last, "sampling": sampling, **common}
    augmenting = learning | _augmenting(source, augment)
    return SearchLoaders(
        train=Loader(images, split.train, transform=training, generator=generators[0], **augmenting),
        val=Loader(images, split.val, transform=training if augment_val else plain, generator=generators[1],
                   **(augmenting if augment_val else learning)),
        val_eval=_eval_loader(images, split.val, transform=plain, batch_size=eval_batch_size, **common),
        split=split,
        about=about,
        class_counts=_class_counts(source, images, split),
    )


def final_loaders(
    source: Source,
    split: Split,
    *,
    images: Part | None = None,
    batch_size: int,
    augment: Augment,
    generator: torch.Generator,
    device: torch.device | str,
    workers: int = 0,
    eval_batch_size: int = 256,
    drop_last: bool = False,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
    sampling: str = "shuffled",
    about: tuple[str, ...] = (),
    group: Group = ALONE,
) -> FinalLoaders:
    """Loaders of the training part, for a network trained from scratch. `images`: that part, where it was read already."""
    _check_batch_size(batch_size, "training", split.train)
    device = torch.device(device)
    images = (source.train() if images is None else images).to(device)
    training = augment.for_training(source.mean, source.std, device=device, channels_last=channels_last)
    plain = augment.for_evaluation(source.mean, source.std, device=device, channels_last=channels_last)
    common: dict[str, Any] = {"device": device, "workers": workers, "dtype": dtype, "group": group}
    train = Loader(
        images,
        split.train,
        batch_size=batch_size,
        transform=training,
        generator=generator,
        shuffle=True,
        drop_last=drop_last,
        sampling=sampling,
        **_augmenting(source, augment),
        **common,
    )
    seen = split.train[torch.linspace(0, len(split.train) - 1, min(SAMPLE, len(split.train))).long()]
    sample = _eval_loader(images, seen, transform=plain, batch_size=eval_batch_size, **common | {"group": ALONE})  # whole in all processes
    val = _eval_loader(images, split.val, transform=plain, batch_size=eval_batch_size, **common) if len(split.val) else None
    return FinalLoaders(train, val, split, about, _class_counts(source, images, split), sample)


def test_loader(
    source: Source,
    *,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
    augment: Augment = NOT_AUGMENTED,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
    group: Group = ALONE,
) -> Loader:
    """The whole test part, in order. Of `augment` only the crop counts, at the centre."""
    device = torch.device(device)
    images = source.test()
    plain = augment.for_evaluation(source.mean, source.std, device=device, channels_last=channels_last)
    every = torch.arange(len(images))
    return _eval_loader(images, every, transform=plain, batch_size=batch_size, device=device, workers=workers, dtype=dtype, group=group)


test_loader.__test__ = False  # the name is the field's; pytest must not collect it where it is imported


def _eval_loader(
    images: Part,
    indices: Tensor,
    *,
    transform: Transform,
    batch_size: int,
    device: torch.device,
    workers: int,
    dtype: torch.dtype,
    group: Group,
) -> Loader:
    return Loader(
        images,
        indices,
        batch_size=batch_size,
        transform=transform,
        generator=torch.Generator(device),  # draws nothing
        shuffle=False,
        drop_last=False,
        device=device,
        workers=workers,
        dtype=dtype,
        group=group,
    )


def _augmenting(source: Source, augment: Augment) -> dict[str, Any]:
    """What the loader itself has to do with augmentation."""
    side = None if augment.resized_crop is None else augment.side(*source.image_size)[0]
    return {"alternate_flips": augment.alternate_flips, "crop": augment.resized_crop, "side": side}


def _class_counts(source: Source, images: Part, split: Split) -> tuple[int, ...]:
    return tuple(torch.bincount(images.labels.cpu()[split.train], minlength=source.num_classes).tolist())


def _check_batch_size(batch_size: int, side: str, positions: Tensor) -> None:
    if batch_size > len(positions):
        raise DataError(f"batch_size must be at most the {len(positions)} {side} images of the split, got {batch_size}")
