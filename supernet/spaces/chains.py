"""What spaces have in common whose networks are chains of layers. No torch until it is asked for."""

from typing import Any

from supernet.space import Space


def costs(space: Space, quantity: str, **sizes: Any) -> Any:
    """`parameters` or `multiply_adds`, counted layer by layer."""
    from supernet.costs.chain import chain_costs

    return chain_costs(space, **sizes)[quantity]


def check_layers(space: Space, layers: int) -> None:
    """Raises ValueError: the space decides how many there are, and it is not so many."""
    if layers != space.sizes["layers"]:
        raise ValueError(f"layers must be {space.sizes['layers']} in space {space.name}, got {layers}")
