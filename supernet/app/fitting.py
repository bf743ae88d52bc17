"""`fit=multiply_adds:600e6`: layers and channels of a final network that meet a budget."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from supernet.app.checks import budget_of
from supernet.app.options import named_on_command_line
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.networks.scaling import Sizes, cost_of, fit, told
from supernet.space import Space


def fit_sizes(cfg: DictConfig, space: Space, genotype: Genotype, options: dict[str, Any],
              named: Callable[[str], bool] = named_on_command_line) -> str:
    """Gives `layers` and `channels` the largest values that meet the budget, from those of the protocol along EfficientNet's rule; what the
    command line names, or the space itself decides, stays. Returns a line that says so. options: what else the network is built with.
    Raises UsageError."""
    quantity, budget = budget_of(cfg.fit)
    layers, channels = (name not in space.sizes and not named(name) for name in ("layers", "channels"))
    free = (layers, channels, False)
    if not any(free):
        raise UsageError("fit has nothing to choose: layers and channels are both given")

    def cost(sizes: Sizes) -> int:
        return cost_of(space, genotype, quantity, sizes, **options)

    try:
        found = fit(cost, Sizes(cfg.layers, cfg.channels, 1), budget, free=free)
    except UsageError as error:
        raise UsageError(f"fit={cfg.fit}: {error}") from error
    cfg.layers, cfg.channels = found.layers, found.channels
    return f"fit {quantity} of at most {budget:,.6g}: {told(found)}, {cost(found):,} {quantity.replace('_', '-')}"
