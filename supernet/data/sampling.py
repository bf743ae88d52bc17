"""Which images a pass of training draws, and in what order."""

from collections.abc import Callable

import torch
from torch import Tensor

from supernet.data.base import DataError

Draw = Callable[[torch.Generator], Tensor]  # positions in the labels it was made for, int64 (N,), for one pass


def shuffled(labels: Tensor) -> Draw:
    """Every image once."""
    return lambda generator: torch.randperm(len(labels), generator=generator, device=labels.device)


def balanced(labels: Tensor) -> Draw:
    """As many images as there are, of every class equally many, to within one (which classes get that one more is drawn).

    Oversampling as far as it is needed: an image of a class comes again only after every other one of the class came, and of large
    classes a pass sees a part. Classes without images take no share.
    """
    classes, labels = labels.unique(return_inverse=True)
    sizes = torch.bincount(labels, minlength=len(classes))
    most = -(-len(labels) // len(classes))  # of any class in a pass
    rounds = -(-most // sizes)
    copies = rounds[labels]
    position = torch.arange(len(labels), device=labels.device).repeat_interleave(copies)
    starts = copies.cumsum(0) - copies
    round_of = torch.arange(len(position), device=labels.device) - starts.repeat_interleave(copies)  # 0, 1, ... of each image
    class_of = labels[position]
    offered = torch.bincount(class_of, minlength=len(classes))
    first = offered.cumsum(0) - offered

    def draw(generator: torch.Generator) -> Tensor:
        share = torch.full_like(sizes, len(labels) // len(classes))
        more = torch.randperm(len(classes), generator=generator, device=labels.device)[: len(labels) % len(classes)]
        share[more] += 1
        noise = torch.randperm(len(position), generator=generator, device=labels.device)  # in each class, within each round
        order = noise[round_of[noise].argsort(stable=True)]
        order = order[class_of[order].argsort(stable=True)]
        rank = torch.arange(len(order), device=labels.device) - first[class_of[order]]
        chosen = position[order[rank < share[class_of[order]]]]
        return chosen[torch.randperm(len(chosen), generator=generator, device=labels.device)]

    return draw


SAMPLINGS: dict[str, Callable[[Tensor], Draw]] = {"shuffled": shuffled, "balanced": balanced}


def sampling(name: str, labels: Tensor) -> Draw:
    """The draw of this name for images with these labels. Raises DataError."""
    if name not in SAMPLINGS:
        raise DataError(f"dataset.sampling must be {' or '.join(SAMPLINGS)}, got {name!r}")
    return SAMPLINGS[name](labels)
