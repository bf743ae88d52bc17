"""The two sides of a search step: our bundled supernet under `Bilevel`, and the edge-by-edge one under the published loop.

Both compute the same mathematics from the same weights, alphas and batches (noise for images). Of chains and layers the other side is our
own network as PyTorch computes it op by op, in NCHW, under the published loop. Where a method runs fewer ops than the
softmax does (GDAS), the other side is our own softmax step.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.compare import Side
from ops import kernels
from supernet.bilevel import Bilevel
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.networks.build import initial_weights, search_normalisation
from supernet.relaxations.base import Relaxation
from supernet.relaxations.edge_normalised import EdgeNormalised
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.space import Space
from supernet.spaces import darts, layerwise, nasbench201, nasbench_macro, robust
from supernet.tasks.base import Batch
from supernet.tasks.classification import Classification
from supernet.weights import EdgeWeights
from tests import reference

STEPS = ("w", "alpha", "second")
SPACES: Mapping[str, Callable[[], Space]] = {"darts": darts.make, "nasbench201": nasbench201.make, "s1": robust.s1,
                                             "nasbench_macro": nasbench_macro.make,
                                             "layerwise": partial(layerwise.make, dropouts=(0,))}  # nothing that draws
CLASSES = 10
W_OPTIMIZER = {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4}
ALPHA_OPTIMIZER = {"lr": 3e-4, "betas": (0.5, 0.999), "weight_decay": 1e-3}
CLIP_NORM = 5.0


@dataclass(frozen=True)
class Sizes:
    cells: int
    channels: int
    batch: int
    image_size: int


@dataclass(frozen=True)
class Method:
    """A relaxation with its network. same: whether the reference computes the same; else it is our softmax step. partial: K of PC-DARTS."""

    relaxation: Callable[[Space, torch.Generator], Relaxation]
    same: bool = True
    partial: int = 1


def edge_normalised(space: Space, generator: torch.Generator) -> Relaxation:
    return EdgeNormalised(Softmax(space, generator), space, generator)


METHODS = {"softmax": Method(Softmax), "gdas": Method(GumbelHard, same=False), "pc_darts": Method(edge_normalised, partial=4)}


class PublishedLoop:
    """The steps of quark0/darts (cnn/train_search.py, cnn/architect.py) on a reference network, without data loading and accuracies.

    As there, every backward pass reaches both the weights and the alphas, whichever of them is updated, and the second order
    builds a new network at each step, `new`, and loads the weights after a virtual step into it.
    """

    def __init__(self, net: nn.Module, new: Callable[[], nn.Module], relaxation: Relaxation, train: Batch, val: Batch):
        self.net, self.new, self.relaxation, self.train, self.val = net, new, relaxation, train, val
        self.alpha = list(relaxation.parameters())
        self.sgd = torch.optim.SGD(net.parameters(), **W_OPTIMIZER)
        self.adam = torch.optim.Adam(self.alpha, **ALPHA_OPTIMIZER)

    def loss(self, net: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(net(batch[0], self.relaxation.weights({})), batch[1])

    def loss_now(self, batch: Batch) -> Tensor:
        return self.loss(self.net, batch)

    def w_step(self) -> None:
        self.sgd.zero_grad()
        self.loss_now(self.train).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        self.sgd.step()

    def alpha_step(self) -> None:
        self.adam.zero_grad()
        self.loss_now(self.val).backward()
        self.adam.step()

    def second_order_step(self) -> None:
        self.adam.zero_grad()
        unrolled = self._unrolled()
        self.loss(unrolled, self.val).backward()
        products = self._hessian_product([p.grad for p in unrolled.parameters()])
        for alpha, product in zip(self.alpha, products, strict=True):
            alpha.grad.sub_(product, alpha=W_OPTIMIZER["lr"])
        self.adam.step()

    def _unrolled(self) -> nn.Module:
        """A new network whose weights are those after one step of SGD."""
        w = list(self.net.parameters())
        gradient = _concat(torch.autograd.grad(self.loss_now(self.train), w))
        theta = _concat(w).detach()
        moment = _concat([self.sgd.state.get(p, {}).get("momentum_buffer", torch.zeros_like(p)) for p in w])
        step = W_OPTIMIZER["momentum"] * moment + gradient + W_OPTIMIZER["weight_decay"] * theta
        stepped = theta.sub(step, alpha=W_OPTIMIZER["lr"]).split([p.numel() for p in w])
        values = {name: value.view_as(p) for (name, p), value in zip(self.net.named_parameters(), stepped, strict=True)}
        unrolled = self.new()
        unrolled.load_state_dict(self.net.state_dict() | values)
        return unrolled

    def _hessian_product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """The mixed second derivative of the training loss times `v`, by a central difference around the weights."""
        radius = 1e-2 / _concat(v).norm()
        ahead = self._slope(radius, v)
        behind = self._slope(-2 * radius, v)
        self._move(radius, v)
        return [(p - n) / (2 * radius) for p, n in zip(ahead, behind, strict=True)]

    def _slope(self, distance: Tensor, v: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self._move(distance, v)
        return torch.autograd.grad(self.loss_now(self.train), self.alpha)

    @torch.no_grad()
    def _move(self, distance: Tensor, v: Sequence[Tensor]) -> None:
        for p, direction in zip(self.net.parameters(), v, strict=True):
            p.add_(distance * direction)


def _concat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def make_sides(sizes: Sizes, device: torch.device, dtype: torch.dtype = torch.float32, *, space: str | Space = "darts",
               method: str = "softmax") -> dict[str, Side]:
    """Both sides, with equal weights, alphas and batches. space: one of `SPACES`, or one of its own that stacks DARTS cells."""
    made = SPACES[space]() if isinstance(space, str) else space
    how = METHODS[method]
    draw = torch.Generator().manual_seed(1)
    batches = (noise(sizes, draw, device, dtype), noise(sizes, draw, device, dtype))
    net = supernet(made, sizes, how, dtype)
    relaxation = how.relaxation(made, torch.Generator().manual_seed(0)).to(device, dtype)
    if not how.same:
        softmax, other = METHODS["softmax"], Softmax(made, torch.Generator().manual_seed(0)).to(device, dtype)
        return {"ours": _ours(net, relaxation, batches), "reference": _ours(supernet(made, sizes, softmax, dtype), other, batches)}
    published, new = PUBLISHED.get(made.name, _stacked)(made, net, sizes, how)

    def renewed() -> nn.Module:
        return new().to(device, dtype)

    # The published side keeps its tensors as torch lays them out, and trains a copy of the alphas.
    theirs = _reference(published.to(device), renewed, copy.deepcopy(relaxation), batches)
    return {"ours": _ours(net, relaxation, batches), "reference": theirs}


def supernet(space: Space, sizes: Sizes, how: Method, dtype: torch.dtype, **network: Any) -> nn.Module:
    """Ours on the host, initialised from seed 0. network: what else the space's network takes."""
    norm = search_normalisation(pool_norm="search", bn_statistics="running")
    options: dict[str, Any] = network if how.partial == 1 else {"partial": how.partial, **network}
    with initial_weights(0):
        net = space.network(space.candidates(), layers=sizes.cells, channels=sizes.channels, num_classes=CLASSES, norm=norm,
                            image_size=(sizes.image_size, sizes.image_size), **options)
    return net.to(dtype)


def ours_of(net: nn.Module, relaxation: Relaxation, sizes: Sizes, device: torch.device) -> Side:
    """Our side alone, on a device."""
    draw = torch.Generator().manual_seed(1)
    dtype = next(net.parameters()).dtype
    return _ours(net, relaxation.to(device, dtype), (noise(sizes, draw, device, dtype), noise(sizes, draw, device, dtype)))


Published = tuple[nn.Module, Callable[[], nn.Module]]  # the published network with the weights of ours, and what makes another one


def _stacked(space: Space, net: nn.Module, sizes: Sizes, how: Method) -> Published:
    candidates = space.candidates()
    return (reference.like(net, space.cells, candidates, sizes.channels, CLASSES, partial=how.partial),
            lambda: reference.ReferenceNetwork(space.cells, candidates, net.kinds, sizes.channels, CLASSES, affine=False, pool_bn=True,
                                               partial=how.partial))


def _residual(space: Space, net: nn.Module, sizes: Sizes, how: Method) -> Published:
    arguments = (space.cells["cell"], space.candidates()["cell"], sizes.cells, sizes.channels, CLASSES)
    return (reference.residual_like(net, *arguments),
            lambda: reference.ReferenceResidualNetwork("cell", *arguments, affine=False))


class OneByOne(nn.Module):
    """A network of ours as PyTorch computes it op by op. It stands for the published one where `tests/reference.py` has none."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, weights: EdgeWeights) -> Tensor:
        with kernels.on_plain_path():
            return self.net(x, weights)


def _op_by_op(space: Space, net: nn.Module, sizes: Sizes, how: Method) -> Published:
    return OneByOne(copy.deepcopy(net)), lambda: OneByOne(supernet(space, sizes, how, next(net.parameters()).dtype))


PUBLISHED: Mapping[str, Callable[[Space, nn.Module, Sizes, Method], Published]] = {
    "nasbench201": _residual, "nasbench_macro": _op_by_op, "layerwise": _op_by_op}


def noise(sizes: Sizes, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Batch:
    images = torch.randn(sizes.batch, 3, sizes.image_size, sizes.image_size, generator=generator, dtype=dtype)
    return images.to(device), torch.randint(CLASSES, (sizes.batch,), generator=generator).to(device)


def _ours(net: nn.Module, relaxation: Relaxation, batches: tuple[Batch, Batch]) -> Side:
    train, val = ((x.to(memory_format=torch.channels_last), y) for x, y in batches)
    net = net.to(train[0].device, memory_format=torch.channels_last)
    sgd = torch.optim.SGD(net.parameters(), **W_OPTIMIZER)
    adam = torch.optim.Adam(relaxation.parameters(), **ALPHA_OPTIMIZER)
    device = train[0].device
    # "meta", on which calls are counted and nothing is computed, has no generators; none of these steps draws for the net
    generators = {"alpha": torch.Generator(), "net": torch.Generator("cpu" if device.type == "meta" else device)}
    first = Bilevel(net, relaxation, first_order, Classification(), sgd, adam, generators, clip_norm=CLIP_NORM)
    second = replace(first, hypergradient=finite_difference)
    problem = first.problem(train, val)
    steps = {"w": lambda: first.w_step(train), "alpha": lambda: first.alpha_step(train, val),
             "second": lambda: second.alpha_step(train, val)}
    return Side(net, first.alpha, (sgd, adam), (train, val), lambda: {"train": problem.train_loss(), "val": problem.val_loss()}, steps)


def _reference(net: nn.Module, new: Callable[[], nn.Module], relaxation: Relaxation, batches: tuple[Batch, Batch]) -> Side:
    loop = PublishedLoop(net, new, relaxation, *batches)
    steps = {"w": loop.w_step, "alpha": loop.alpha_step, "second": loop.second_order_step}
    return Side(net, loop.alpha, (loop.sgd, loop.adam), batches,
                lambda: {"train": loop.loss_now(loop.train), "val": loop.loss_now(loop.val)}, steps)
