"""The recurrent controller as the policy of a search by trials (`searchers.reinforce`; Zoph & Le 2017)."""

import random

import torch

from supernet.errors import UsageError
from supernet.genotype import Edge, Genotype
from supernet.ranges import Channels, Positive, Seed, ranged
from supernet.relaxations.controller import Controller, LstmLayers
from supernet.space import Space
from supernet.weights import EdgeWeights


@ranged
class RecurrentPolicy:
    """As `supernet.searchers.reinforce.Policy`: a `Controller` that decides in order (`Controller.in_order`), on the CPU in float64, and
    Adam on its parameters. init_seed: of these as they begin; the other options are the controller's. Raises UsageError: a space whose
    nodes may keep one number of edges or another, which it does not decide."""

    def __init__(self, space: Space, *, init_seed: Seed = 0, hidden: Channels = 64, lstm_layers: LstmLayers = 1,
                 tanh_constant: Positive = 1.1, op_tanh_reduce: Positive = 2.5, temperature: Positive = 1.0):
        varying = [kind for kind, spec in space.cells.items() if any(low != high for low, high in spec.keep)]
        if varying:
            raise UsageError(f"searcher.policy: the recurrent controller decides about a fixed number of edges, and nodes of "
                             f"{varying[0]!r} in space {space.name} may keep more or fewer: pass searcher=reinforce")
        self.space, self.init_seed = space, init_seed
        self.options = {"hidden": hidden, "lstm_layers": lstm_layers, "tanh_constant": tanh_constant, "op_tanh_reduce": op_tanh_reduce,
                        "temperature": temperature}
        self.forget()

    def forget(self) -> None:
        self.controller = Controller(self.space, torch.Generator().manual_seed(self.init_seed), **self.options).double()
        self.adam: torch.optim.Adam | None = None

    @torch.no_grad()
    def draw(self, rng: random.Random) -> Genotype:
        drawn = self.controller.in_order(torch.Generator().manual_seed(rng.getrandbits(62)))
        return genotype_of(self.space, drawn)

    def learn(self, genotype: Genotype, advantage: float, entropy: float, lr: float) -> None:
        if self.adam is None:
            self.adam = torch.optim.Adam(self.controller.parameters(), lr=lr)
        taken = self.controller.in_order(None, genotype)
        self.adam.zero_grad(set_to_none=True)
        (-advantage * taken.log_prob - entropy * taken.entropy).backward()
        self.adam.step()


def genotype_of(space: Space, weights: EdgeWeights) -> Genotype:
    """The architecture of one-hot weights."""
    return space.genotype({kind: [Edge(spec.edges[e][1], spec.edges[e][0], spec.ops[o]) for e, row in enumerate(weights[kind].active)
                                  for o, on in enumerate(row) if on] for kind, spec in space.cells.items()})
