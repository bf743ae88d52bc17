"""What a trained network gets right, item by item, with edges of its cells taken out or ops replaced: what each of them carries."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from supernet.evaluators.shared_weights import SharedWeights
from supernet.genotype import Genotype
from supernet.runs.predictions import Keeping
from supernet.space import Space
from supernet.training.evaluate import summed
from supernet.weights import EdgeWeights, Weights, one_hot, replaced


def without_edge(space: Space, genotype: Genotype, kind: str, n: int, *, dtype: torch.dtype = torch.float32,
                 device: torch.device | str = "cpu") -> EdgeWeights:
    """The weights of `one_hot`, but 0 for the n-th edge of one kind of cell, which does not run: its node gets a zero in its place."""
    gone = space.cells[kind].rows(genotype[kind])[n]

    def change(name: str, w: Weights) -> dict[str, object]:
        if name != kind:
            return {}
        ops = w.ops.clone()
        ops[gone] = 0.0
        return {"ops": ops, "active": tuple(tuple(held and (e, o) != gone for o, held in enumerate(row)) for e, row in enumerate(w.active))}

    return replaced(one_hot(space, genotype, dtype=dtype, device=device), change)


def answers(shared: SharedWeights, weights: Iterable[EdgeWeights], num_items: int) -> Iterator[np.ndarray]:
    """For edge weights one after the other, which of the items of `shared.batches` the network gets right: bool (num_items,), in the same
    order each time. Raises ValueError: the items have no classes, so that none is right or wrong."""
    def right(w: EdgeWeights) -> np.ndarray:
        keeping = Keeping(shared.task, num_items)
        summed(shared.net, keeping, shared.batches, lambda: w, shared.generator)
        found = keeping.predictions()
        if found is None:
            raise ValueError("the items of this task have no classes")
        return found.true == found.predicted

    return shared.each(weights, right)
