"""What a relaxation is: architecture parameters, and how a draw of edge weights comes from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle

import torch
from torch import Tensor, nn

from supernet.ranges import NonNegative, ranged
from supernet.space import Mask, Space
from supernet.weights import EdgeWeights, Weights

Noise = Mapping[str, Tensor]


class Relaxation(nn.Module, ABC):
    """Owns the architecture parameters; a network only ever sees the `EdgeWeights` drawn from them.

    A draw has two halves, so that a finite difference can subtract two losses under the same one:
    `noise = relaxation.noise(generator)`, then `relaxation.weights(noise)`; calling the relaxation does both.

    static: given the noise (tensors), `weights` is the same operations on the same tensors at every step of an epoch, with all ops active;
    `for_w_step` gives back the draw, and `after_step` does nothing. So a CUDA graph can hold the step.

    static_by_draw: the same among draws that run the same ops, but for the look at which those are (`mask_of`). So a graph can hold the
    step under such draws.
    """

    static = False
    static_by_draw = False
    on_simplex = False  # True: some parameters are points of a simplex, and need an optimizer that keeps them there

    @abstractmethod
    def noise(self, generator: torch.Generator) -> Noise:
        """What is random in a draw; empty where nothing is."""

    @abstractmethod
    def weights(self, noise: Noise) -> EdgeWeights:
        """Edge weights, differentiable in the parameters."""

    @abstractmethod
    def mean(self) -> EdgeWeights:
        """Edge weights without noise: what is evaluated, drawn and selected from."""

    def evaluated(self, generator: torch.Generator) -> EdgeWeights:
        """What the supernet is evaluated under, a batch at a time: the mean, unless that is no network of the space's kind."""
        return self.mean()

    def forward(self, generator: torch.Generator) -> EdgeWeights:
        return self.weights(self.noise(generator))

    @torch.no_grad()
    def samples(self, generator: torch.Generator) -> bool:
        """Whether draws run some of the ops alone, each draw others. Draws once."""
        return any(w.active is not None for w in self(generator).values())

    def anneal(self, progress: float, epoch: int) -> None:
        """Called before each epoch, also before one that is gone on with: `progress` is 0 in the first and exactly 1 in the last."""

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor], generator: torch.Generator) -> EdgeWeights:
        """What the network weights are trained under: the draw itself, unless a method perturbs it. `loss_of_weights` is the training
        loss in evaluation mode; `generator` is that of `noise`."""
        return draw

    def after_step(self) -> None:
        """Called after each alpha update."""

    def after_inherit(self) -> None:
        """Called after the state of the same relaxation of a space with more candidates was loaded: what must hold of the candidates that
        are left is made to hold. Tables leave out absent ops at every draw and need nothing."""

    def tables(self) -> dict[str, Tensor]:
        """The parameters that stand for the ops, by kind (E, O), as penalties see them; those of absent ops are to be left out
        (`absent`). Raises ValueError where there are none."""
        raise ValueError(f"relaxation {type(self).__name__} has no table of alphas, which a penalty, monitor or hypergradient asks for")

    def concentrations(self) -> dict[str, Tensor]:
        """Those of the Dirichlet distributions that op weights are drawn from, by kind (E, O). Raises ValueError where they are not."""
        raise ValueError(f"relaxation {type(self).__name__} draws from no Dirichlet distribution: pass relaxation=dirichlet")

    def recorded(self) -> dict[str, Tensor]:
        """What the record of a search keeps many times an epoch, by name: small tables."""
        return {name.removeprefix("alpha."): p for name, p in self.named_parameters()}


@ranged
class TableRelaxation(Relaxation):
    """An interface for those whose parameters are one (E, O) table of alphas a kind of cell. `op_weights` says what a table stands for:
    what is trained, where nothing is drawn, and what is evaluated and selected from. So both are the same unless a method says otherwise;
    one that draws overrides `noise` and `weights` as well (`SoftmaxDraws` for draws by softmax(alpha)).

    init_scale: alphas start as `init_scale` times standard normal draws.
    """

    def __init__(self, space: Space, generator: torch.Generator, *, init_scale: NonNegative = 1e-3):
        super().__init__()
        self.alpha = make_alpha(space, init_scale, generator)
        for kind, mask in absent(space).items():
            self.register_buffer(f"absent_{kind}", mask, persistent=False)

    def absent(self, kind: str) -> Tensor:
        """(E, O), boolean: ops that an edge does not have."""
        return self.get_buffer(f"absent_{kind}")

    def logits(self, kind: str) -> Tensor:
        """(E, O): the alphas, and -inf where an edge does not have the op."""
        return self.alpha[kind].masked_fill(self.absent(kind), -torch.inf)

    @abstractmethod
    def op_weights(self, kind: str) -> Tensor:
        """(E, O): the weights of a kind's ops without noise, differentiable in its alphas; 0 where an edge does not have the op."""

    def noise(self, generator: torch.Generator) -> Noise:
        return {}

    def weights(self, noise: Noise) -> EdgeWeights:
        return self.mean()

    def mean(self) -> EdgeWeights:
        return EdgeWeights({kind: Weights(self.op_weights(kind)) for kind in self.alpha})

    def tables(self) -> dict[str, Tensor]:
        return dict(self.alpha.items())


class SoftmaxDraws(TableRelaxation):
    """An interface for those that draw by p = softmax(alpha) over the ops that an edge has: p is what they evaluate and select from."""

    def op_weights(self, kind: str) -> Tensor:
        return self.logits(kind).softmax(-1)

    @abstractmethod
    def noise(self, generator: torch.Generator) -> Noise: ...

    @abstractmethod
    def weights(self, noise: Noise) -> EdgeWeights: ...


class Wrapper(Relaxation):
    """An interface for relaxations that hold another, `inner`, and pass on what they do not change. `changed` is what one makes of edge
    weights of `inner`, be they drawn, the mean or evaluated, so that what is selected from is what was trained."""

    keeps_static = False  # True: static where what it holds is

    def __init__(self, inner: Relaxation):
        super().__init__()
        self.inner = inner

    @property
    def static(self) -> bool:
        return self.keeps_static and self.inner.static

    @property
    def static_by_draw(self) -> bool:
        return self.keeps_static and self.inner.static_by_draw

    @property
    def on_simplex(self) -> bool:
        return self.inner.on_simplex

    def noise(self, generator: torch.Generator) -> Noise:
        return self.inner.noise(generator)

    def changed(self, weights: EdgeWeights) -> EdgeWeights:
        return weights

    def weights(self, noise: Noise) -> EdgeWeights:
        return self.changed(self.inner.weights(noise))

    def mean(self) -> EdgeWeights:
        return self.changed(self.inner.mean())

    def evaluated(self, generator: torch.Generator) -> EdgeWeights:
        return self.changed(self.inner.evaluated(generator))

    def anneal(self, progress: float, epoch: int) -> None:
        self.inner.anneal(progress, epoch)

    def for_w_step(self, draw: EdgeWeights, loss_of_weights: Callable[[EdgeWeights], Tensor], generator: torch.Generator) -> EdgeWeights:
        return self.inner.for_w_step(draw, loss_of_weights, generator)

    def after_step(self) -> None:
        self.inner.after_step()

    def after_inherit(self) -> None:
        self.inner.after_inherit()

    def tables(self) -> dict[str, Tensor]:
        return self.inner.tables()

    def concentrations(self) -> dict[str, Tensor]:
        return self.inner.concentrations()

    def recorded(self) -> dict[str, Tensor]:
        own = {name: p for name, p in self.named_parameters() if not name.startswith("inner.")}
        return own | self.inner.recorded()


def make_alpha(space: Space, scale: float, generator: torch.Generator) -> nn.ParameterDict:
    """One (E, O) table of `scale` times standard normal draws for each kind of cell."""
    return nn.ParameterDict({kind: nn.Parameter(scale * torch.randn(len(spec.edges), len(spec.ops), generator=generator))
                             for kind, spec in sorted(space.cells.items())})


def absent(space: Space) -> dict[str, Tensor]:
    """By kind, a boolean (E, O): True where an edge does not have the op."""
    return {kind: ~torch.tensor(spec.present) for kind, spec in space.cells.items()}


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel draws of the shape, type and device of `like`; drawn where the generator is."""
    uniform = torch.empty(like.shape, device=generator.device, dtype=like.dtype).exponential_(generator=generator)
    return uniform.log().neg().to(like.device)


def mask_of(hot: Tensor) -> Mask:
    """A boolean (E, O) on the host: one wait where `hot` lives on another device. Within `known_masks` what is known is believed."""
    known = _known.get()
    return tuple(tuple(row) for row in hot.bool().tolist()) if known is None else next(known)


@contextmanager
def known_masks(masks: Sequence[Mask]) -> Iterator[None]:
    """Within, `mask_of` looks at no device: its answers are `masks`, those of one draw's kinds in their order, over and over."""
    token = _known.set(cycle(masks))
    try:
        yield
    finally:
        _known.reset(token)


_known: ContextVar[Iterator[Mask] | None] = ContextVar("known", default=None)


def linear(first: float, last: float, progress: float) -> float:
    """From `first` at progress 0 to exactly `last` at 1."""
    return first + (last - first) * progress if progress < 1 else last


def entropies(weights: EdgeWeights) -> dict[str, Tensor]:
    """By kind, the mean over edges of the entropy (nats) of each edge's op weights, taken as probabilities."""
    return {kind: torch.special.entr(w.ops).sum(-1).mean() for kind, w in weights.items()}
