"""`fit=multiply_adds:600e6`, `doublings=1`: layers, channels and the side of images of a final network, by a budget or in a compound."""

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import budget_of
from supernet.app.options import named_on_command_line
from supernet.data.base import Data
from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.networks.scaling import Compound, Sizes, cost_of, fit, told
from supernet.space import Space


def choose_sizes(cfg: DictConfig, space: Space, genotype: Genotype, data_of: Callable[[DictConfig], Data], options: Mapping[str, Any],
                 named: Callable[[str], bool] = named_on_command_line) -> tuple[str, Data]:
    """Gives `layers` and `channels`, and with `free_resolution` the sizes of the data set's images, the largest values that meet the budget
    of `fit`, or those after so many `doublings`, from those of the protocol along EfficientNet's rule. Layers and channels that the command
    line names, or the space itself decides, stay. Returns a line that says so, and the data in these sizes. data_of: makes them from the
    options; options: what else the network is built with. Raises UsageError."""
    layers, channels = (name not in space.sizes and not named(name) for name in ("layers", "channels"))
    free = (layers, channels, bool(cfg.free_resolution))
    asked = f"doublings={cfg.doublings:g}" if cfg.fit is None else f"fit={cfg.fit}"
    if not any(free):
        raise UsageError(f"{asked.partition('=')[0]} has nothing to choose: layers and channels are both given")
    data = data_of(cfg)
    sizes = data.sizes
    side = side_of(cfg, sizes) if free[2] else 1
    base = Sizes(cfg.layers, cfg.channels, side)
    quantity, budget = ("multiply_adds", 0.0) if cfg.fit is None else budget_of(cfg.fit)

    def cost(of: Sizes) -> int:
        seen = {"image_size": (of.side, of.side)} if free[2] else {}
        return cost_of(space, genotype, quantity, of, **{**sizes, **options, **seen})

    try:
        found = Compound()(base, cfg.doublings, free=free) if cfg.fit is None else fit(cost, base, budget, free=free)
        least = cost(found)
    except (UsageError, ValueError) as error:  # the budget is too small, or there is no network of such sizes
        raise UsageError(f"{asked}: {error}") from error
    cfg.layers, cfg.channels = found.layers, found.channels
    if free[2]:
        resize(cfg, side, found.side)
        data = data_of(cfg)
        if data.sizes["image_size"] != (found.side, found.side):
            raise UsageError("free_resolution=true sets dataset.image_size, and images are "
                             f"{data.sizes['image_size'][0]} pixels whatever it says: leave other options of their size as they are")
    how = f"scaled by {cfg.doublings:g} doublings" if cfg.fit is None else f"fit {quantity} of at most {budget:,.6g}"
    return f"{how}: {told(found, resolution=free[2])}, {least:,} {quantity.replace('_', '-')}", data


def side_of(cfg: DictConfig, sizes: Mapping[str, Any]) -> int:
    """Of the images that a network reads, in pixels. Raises UsageError: their data set has them in one size."""
    if "image_size" not in cfg.dataset:
        raise UsageError("free_resolution=true is for data sets of files, which are read in the size of dataset.image_size, and images of "
                         f"{cfg.dataset.name} have one size")
    high, wide = sizes["image_size"]
    if high != wide:
        raise UsageError(f"free_resolution=true is for square images, got {high}x{wide}")
    return high


def resize(cfg: DictConfig, before: int, after: int) -> None:
    """The data set's images from one side to another: what is cut out of them, where that is smaller, in proportion. Options that were
    checked are plain values, so that those which followed dataset.image_size and dataset.augment.crop are set too."""
    size = cfg.dataset.image_size
    _set(cfg.dataset, "image_size", size, round(size * after / before))
    _set(cfg.dataset, "crop", before, after)


def _set(node: Any, key: str, before: int, after: int) -> None:
    """Wherever within a node an option has one value, it gets the other."""
    if OmegaConf.is_dict(node):
        for name, value in node.items():
            if name == key and value == before:
                node[name] = after
            _set(value, key, before, after)
