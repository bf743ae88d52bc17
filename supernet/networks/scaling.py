"""How large a network is made: depth, width and resolution that grow together, and sizes that meet a budget.

EfficientNet's compound scaling (Tan & Le 2019): depth d = alpha^phi, width w = beta^phi, resolution r = gamma^phi with alpha * beta^2 *
gamma^2 about 2 (eq. 3), so that multiply-adds grow as 2^phi; the largest phi that meets a budget solves the problem of eq. 2 on that curve.
The paper found alpha, beta and gamma for its own base network, by grid search; they are taken over, which is a choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch

from ops.kernels import on_plain_path
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.networks.measure import parameters
from supernet.ranges import Finite, Positive, Range, ranged
from supernet.space import Space

MAX_CHANNELS, MAX_LAYERS, MAX_SIDE = 4096, 1000, 4096
STEPS = 12  # of a bisection over phi; the width is fitted to the channel afterwards
PHI = 12.0  # at most so many doublings, up or down
Factor = Annotated[float, Range(1, 4)]


class Sizes(NamedTuple):
    """layers and channels of a network, and the side of its images in pixels."""

    layers: int
    channels: int
    side: int


@ranged
@dataclass(frozen=True)
class Compound:
    """Factors of one doubling: `depth` alpha, `width` beta, `resolution` gamma of the paper (Sec. 3.3 and step 1 of Sec. 4)."""

    depth: Factor = 1.2
    width: Factor = 1.1
    resolution: Factor = 1.15

    def __call__(self, base: "Sizes", phi: Finite, *, free: tuple[bool, bool, bool] = (True, True, True)) -> Sizes:
        """`base` scaled phi times. free: whether layers, channels and side may change. What may not leaves its share to the others in
        proportion, so that multiply-adds still double with each phi."""
        shares = [self.depth, self.width**2, self.resolution**2]
        full = torch.tensor(shares).double().log()
        open_ = full * torch.tensor(free)
        stretch = (full.sum() / open_.sum()).item() if open_.sum() > 0 else 0.0
        factors = [factor ** (stretch * phi) if may else 1.0 for factor, may in zip((self.depth, self.width, self.resolution), free)]
        return Sizes(*(max(1, round(size * factor)) for size, factor in zip(base, factors)))


def cost_of(space: Space, genotype: Genotype, quantity: str, sizes: Sizes, **options: Any) -> int:
    """Parameters, or multiply-adds of one image (or item), of a network that is laid out without memory. options: what else the space's
    builder takes. Raises UsageError, ValueError: there is no such network."""
    with torch.device("meta"):
        net = space.network(space.candidates(genotype), layers=sizes.layers, channels=sizes.channels, **options)
    if quantity == "parameters":
        return parameters(net)
    from torch.utils.flop_counter import FlopCounterMode  # slow to import: it brings Triton

    shape = (1, options["in_channels"], *options["image_size"]) if "in_channels" in options else (1, 1)
    x = torch.zeros(shape, device="meta", dtype=torch.float32 if "in_channels" in options else torch.int64)
    with torch.no_grad(), on_plain_path(), FlopCounterMode(display=False) as counter:
        net.eval()(x, generator=torch.Generator())
    return counter.get_total_flops() // 2


@ranged
def fit(cost: Callable[[Sizes], float], base: Sizes, budget: Positive, *, free: tuple[bool, bool, bool] = (True, True, False),
        rule: Compound | None = None) -> Sizes:
    """The largest sizes on the rule's curve through `base` whose cost is at most `budget`; then as many channels as still meet it, where
    they are free. cost: grows with each size; it raises ValueError for sizes of which no network is built.

    Raises UsageError: even the smallest network costs more.
    """
    rule, known = rule or Compound(), dict[Sizes, float]()

    def at(phi: float) -> Sizes:
        found = rule(base, phi, free=free)
        return Sizes(min(found.layers, MAX_LAYERS), min(max(found.channels, 2), MAX_CHANNELS), min(found.side, MAX_SIDE))

    def meets(sizes: Sizes) -> bool:
        if sizes not in known:
            known[sizes] = cost(sizes)
        return known[sizes] <= budget

    # Halving by halving or doubling by doubling, so that no network is made that is far too small or too large.
    low = high = 0.0
    while not meets(at(low)):
        smaller, why = at(low - 1.0), ""
        try:
            meets(smaller)
        except ValueError as error:
            why = f", and smaller ones are not built: {error}"
        if why or smaller == at(low):
            raise UsageError(f"a budget of {budget:,.6g} is too small: {told(at(low), resolution=free[2])} cost {known[at(low)]:,.6g}{why}")
        low, high = low - 1.0, low
    if low == high:
        while low < PHI and meets(at(low + 1.0)):
            low += 1.0
        high = low + 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(at(middle)) else (low, middle)
    found = at(low)
    if not free[1]:
        return found
    small, large = found.channels, found.channels + 1
    while large <= MAX_CHANNELS and meets(found._replace(channels=large)):
        small, large = large, 2 * large - found.channels + 1
    while large - small > 1:
        middle = (small + large) // 2
        small, large = (middle, large) if meets(found._replace(channels=middle)) else (small, middle)
    return found._replace(channels=small)


def told(sizes: Sizes, *, resolution: bool = False) -> str:
    """In words; resolution: whether the side of the images is one of them."""
    found = f"{sizes.layers} layer{'s' if sizes.layers != 1 else ''} with C={sizes.channels}"
    return f"{found} at {sizes.side}x{sizes.side} pixels" if resolution else found
