"""What the bilevel step asks of the optimizer of the weights: the step it would take. Mirror descent on the simplex. And steps that a
CUDA graph can hold."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from supernet.ranges import Fraction, NonNegative, Positive, Range, Share, ranged

# What the numbers of PyTorch's optimizers may be: their constructors say no ranges, let NaN pass, and a momentum of 2.
_ADAM = {"lr": Positive, "betas": tuple[Fraction, Fraction], "eps": Positive, "weight_decay": NonNegative}
TORCH_RANGES: Mapping[Callable[..., Any], Mapping[str, Any]] = {
    torch.optim.SGD: {"lr": Positive, "momentum": Fraction, "dampening": Share, "weight_decay": NonNegative},
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
}


def virtual_step(optimizer: torch.optim.Optimizer, w: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The values of `w` after `optimizer.step()` with these gradients, differentiable in them; nothing is changed.

    Includes learning rate, weight decay, momentum (with the buffers as they stand), dampening and Nesterov. Gradient clipping
    is left out, as in the official DARTS code. Raises ValueError for an optimizer other than SGD.
    """
    check_linear(optimizer)
    gradient, stepped = dict(zip(w, grads)), {}
    for group in optimizer.param_groups:
        buffers = {p: optimizer.state.get(p, {}).get("momentum_buffer") for p in group["params"] if p in gradient}
        for moves in (False, True):  # a weight that has moved before has a momentum
            ps = [p for p, buffer in buffers.items() if (buffer is not None) == moves]
            if ps:
                base, factor = _linear(group, [p.detach() for p in ps], [buffers[p] for p in ps] if moves else [])
                stepped.update(zip(ps, _Shifted.apply(factor, len(ps), *base, *[gradient[p] for p in ps])))
    return tuple(stepped[p] for p in w)


def linear_step(optimizer: torch.optim.Optimizer, w: Sequence[Tensor], of: Callable[[Sequence[Tensor]], list[Tensor]],
                values: list[Tensor]) -> tuple[list[Tensor], float | Tensor] | None:
    """`virtual_step` as `base + factor * gradient`: base and factor, where that is one step for all of `w`; else None.

    values: those of `w`, as `of` gives them, and the base: the tensors of a list as others, fewer perhaps, for elementwise operations.
    Raises ValueError for an optimizer other than SGD.
    """
    check_linear(optimizer)
    if len(optimizer.param_groups) != 1:
        return None
    group = optimizer.param_groups[0]
    buffers = [optimizer.state.get(p, {}).get("momentum_buffer") for p in w]
    without = sum(buffer is None for buffer in buffers)
    if without not in (0, len(buffers)) or {id(p) for p in w} != {id(p) for p in group["params"]}:
        return None
    return _linear(group, values, of(buffers) if without == 0 else [])


def check_linear(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError."""
    if type(optimizer) is not torch.optim.SGD:
        raise ValueError(f"a second-order hypergradient needs w_optimizer=sgd, got {type(optimizer).__name__}")


def _linear(group: Mapping[str, Any], values: list[Tensor], buffers: list[Tensor]) -> tuple[list[Tensor], float | Tensor]:
    """The step is linear: with d = g + weight decay * value it goes down `lr * (of_d * d + of_buffer * buffer)`. Where it goes without g,
    and the factor of g. Few launches for all."""
    momentum, of_d, of_buffer = group["momentum"], 1.0, 0.0
    if momentum and buffers:
        kept = 1 - group["dampening"]
        of_d, of_buffer = (1 + momentum * kept, momentum**2) if group["nesterov"] else (kept, momentum)
    elif momentum and group["nesterov"]:
        of_d = 1 + momentum
    down = torch._foreach_mul(values, of_d * group["weight_decay"])
    if of_buffer:
        torch._foreach_add_(down, buffers, alpha=of_buffer)
    torch._foreach_mul_(down, group["lr"])
    return list(torch._foreach_sub(values, down)), -group["lr"] * of_d


class _Shifted(torch.autograd.Function):
    """`base + factor * grad` for each of n weights, as a function of the gradients."""

    @staticmethod
    def forward(ctx: Any, factor: float | Tensor, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.factor, ctx.n = factor, n
        return tuple(torch._foreach_add(list(tensors[:n]), torch._foreach_mul(list(tensors[n:]), factor)))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *[None] * ctx.n, *torch._foreach_mul(list(slopes), ctx.factor)


@ranged
class ExponentiatedGradient(torch.optim.Optimizer):
    """Mirror descent with the entropy as its mirror map: `theta <- theta * exp(-lr * gradient)`, each row (the last dimension) brought
    back to sum 1 (GAEA, Li et al. 2021, Sec. 3.1, eq. 4). Zeros stay zeros. No weight decay: rows are on the simplex. """

    def __init__(self, params: Iterable[Tensor], *, lr: Positive = 0.1,
                 weight_decay: Annotated[float, Range(0, 0)] = 0.0):
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            for p in group["params"]:
                if bool((p < 0).any()) or not torch.allclose(p.sum(-1), torch.ones_like(p.sum(-1)), atol=1e-5):
                    raise ValueError("exponentiated gradients need parameters whose rows lie on the simplex: relaxation=simplex, and "
                                     "wrapper.edge_normalised.form=simplex")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    # multiplied by a factor that the division takes out, so that no exponential overflows
                    exponent = -group["lr"] * p.grad
                    p.mul_((exponent - exponent.amax(-1, keepdim=True)).exp())
                    p.div_(p.sum(-1, keepdim=True))


# The options under which a step reads nothing back, so that a CUDA graph can hold it, and takes its learning rate from a tensor.
_FUSED = {"fused": True, "foreach": False}
_STATIC: Mapping[type[torch.optim.Optimizer], Mapping[str, bool]] = {
    torch.optim.SGD: _FUSED, torch.optim.Adam: _FUSED, torch.optim.AdamW: _FUSED, ExponentiatedGradient: {}}


def check_static(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for an optimizer that `make_static` does not know."""
    if type(optimizer) not in _STATIC:
        names = [kind.__name__ for kind in _STATIC]
        raise ValueError(f"a CUDA graph holds the steps of {', '.join(names[:-1])} and {names[-1]}, got {type(optimizer).__name__}")


def make_static(optimizer: torch.optim.Optimizer) -> None:
    """Makes `optimizer.step()` a fixed sequence of operations on fixed tensors, the learning rate among them (`set_lr` writes into it).
    What it computes stays, up to rounding. To be called again after `load_state_dict`; to no effect where nothing was loaded.

    On a GPU the learning rate is in single precision, as fused steps want it. Raises ValueError (`check_static`).
    """
    check_static(optimizer)
    for group in optimizer.param_groups:
        device = group["params"][0].device
        on_gpu = device.type == "cuda"
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32 if on_gpu else torch.float64, device=device)
        group.update(_STATIC[type(optimizer)])
        if "capturable" in group:
            group["capturable"] = on_gpu  # on the CPU it is refused
        for p in group["params"]:
            if "step" in optimizer.state.get(p, {}):
                optimizer.state[p]["step"] = optimizer.state[p]["step"].to(device, torch.float32)
    optimizer._warned_capturable_if_run_uncaptured = True  # steps that warm up and odd batches run outside a graph


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Of all groups. Where the learning rate is a tensor, it is written into: a graph that has captured a step reads it there."""
    for group in optimizer.param_groups:
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
