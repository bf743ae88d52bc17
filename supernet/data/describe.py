"""What was read, as lines for the head of a run."""

import torch

from supernet.data.base import Part, Source


def described(source: Source, images: Part) -> tuple[str, ...]:
    """Classes, images a class, size, channels and bits of a training part, and what its source has to say of it."""
    training = images.labels[: len(images) - images.own_val]
    counts = torch.bincount(training, minlength=source.num_classes).tolist()
    height, width = source.image_size
    lines = [f"images {len(training)} of {_many(source.num_classes, 'class', 'classes')} ({_shares(counts, source.class_names)}), "
             f"{height}x{width}, {_many(source.in_channels, 'channel', 'channels')}, {images.stored}"]
    if images.own_val:
        lines.append(f"validation part of its own: {images.own_val} images, beside which all training images train")
    return (*lines, *images.notes)


def _shares(counts: list[int], names: tuple[str, ...]) -> str:
    if min(counts) == max(counts):
        return f"{counts[0]} each"
    if len(counts) <= 5:
        return ", ".join(f"{name}: {count}" for name, count in zip(names, counts))
    return f"{min(counts)} to {max(counts)} each"


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
