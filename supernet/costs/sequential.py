"""Parameters and multiply-adds of plain chains, by the arithmetic of their layers."""

from collections.abc import Callable

from torch import Tensor

from ops.op import Normalisation
from supernet.costs.base import FINAL, CostError
from supernet.genotype import Genotype
from supernet.networks.sequential import chained
from supernet.weights import EdgeWeights


class SequentialCost:
    """`parameters`, or `multiply_adds` of one image. layers: the layers of both parts of an architecture. The rest is as of
    `networks.sequential`. There is no `expected`: what a layer costs depends on all before it."""

    def __init__(self, quantity: str, layers: Callable[[Genotype], tuple[list[str], list[str]]], *, num_classes: int, in_channels: int = 3,
                 image_size: tuple[int, int] = (32, 32), norm: Normalisation = FINAL):
        self.name, self.unit = quantity, "multiply-adds an image" if quantity == "multiply_adds" else quantity
        self._layers, self._norm = layers, norm
        self._sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}

    def __call__(self, genotype: Genotype) -> float:
        layers = [layer for part in chained(*self._layers(genotype), **self._sizes) for layer in part]
        return float(sum(layer.multiply_adds() if self.name == "multiply_adds" else layer.parameters(self._norm) for layer in layers))

    def expected(self, weights: EdgeWeights) -> Tensor:
        """Raises CostError."""
        raise CostError(f"{self.name} of plain chains have no exact expectation: what a layer costs depends on all before it")

    def least(self) -> float:
        """A bound: the classifier on one feature."""
        return float(self._sizes["num_classes"])
