"""A recurrent controller that draws architectures (ENAS, Pham et al. 2018, Sec. 2.2 and 2.4)."""

from typing import Any

import torch
from torch import Tensor, nn

from supernet.ranges import Channels, Positive, ranged
from supernet.relaxations.base import Noise, Relaxation
from supernet.space import CellSpec, Space
from supernet.weights import EdgeWeights, Weights


@ranged
class Controller(Relaxation):
    """An LSTM decides node by node: which of the node's edges it keeps, one after the other without replacement, by attention over the
    states at which their sources were finished, and then the op of each. A draw is the one-hot network of one genotype with the
    log-probability of its decisions; train it by `hypergradient=reinforce`. The mean is the greedy architecture.

    Scores are squashed, `tanh_constant * tanh(score)`, those of ops by `op_tanh_reduce` times less [official code]. Nodes whose
    number of edges may vary keep the largest number. Parameters start uniform in +-0.1 [official code].
    """

    def __init__(self, space: Space, generator: torch.Generator, *, hidden: Channels = 64,
                 tanh_constant: Positive = 1.1, op_tanh_reduce: Positive = 2.5):
        super().__init__()
        self.space, self.tanh, self.op_tanh = space, tanh_constant, tanh_constant / op_tanh_reduce
        self.cell = nn.LSTMCell(hidden, hidden)
        self.start = nn.Parameter(torch.empty(1, hidden))
        self.of_anchor, self.of_state = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.embedding, self.head = nn.ParameterDict(), nn.ModuleDict()
        for kind, spec in sorted(space.cells.items()):
            self.embedding[kind] = nn.Parameter(torch.empty(len(spec.ops), hidden))
            self.head[kind] = nn.Linear(hidden, len(spec.ops))
            self.register_buffer(f"closed_{kind}", ~torch.tensor(spec.selectable), persistent=False)
        with torch.no_grad():
            for p in self.parameters():
                p.uniform_(-0.1, 0.1, generator=generator)

    def noise(self, generator: torch.Generator) -> Noise:
        """A seed."""
        return {"seed": torch.randint(2**62, (), generator=generator, device=generator.device)}

    def weights(self, noise: Noise) -> EdgeWeights:
        return self._decode(torch.Generator(self.start.device).manual_seed(int(noise["seed"])))

    def mean(self) -> EdgeWeights:
        return self._decode(None)

    def recorded(self) -> dict[str, Tensor]:
        return {}

    def _decode(self, generator: torch.Generator | None) -> EdgeWeights:
        """One architecture: drawn, or greedy without a generator."""
        log_probs: list[Tensor] = []
        entropies: list[Tensor] = []

        def choose(scores: Tensor) -> int:
            log_p = scores.log_softmax(0)
            chosen = log_p.argmax() if generator is None else torch.multinomial(log_p.detach().exp(), 1, generator=generator)[0]
            log_probs.append(log_p[chosen])
            entropies.append(-(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum())  # with a gradient, also beside -inf
            return int(chosen)

        state = (torch.zeros_like(self.start), torch.zeros_like(self.start))
        kinds = {}
        for kind, spec in sorted(self.space.cells.items()):
            kinds[kind], state = self._cell(kind, spec, state, choose)
        return EdgeWeights(kinds, torch.stack(log_probs).sum(), torch.stack(entropies).sum())

    def _cell(self, kind: str, spec: CellSpec, state: tuple[Tensor, Tensor], choose: Any) -> tuple[Weights, tuple[Tensor, Tensor]]:
        closed = self.get_buffer(f"closed_{kind}")
        kept = [[False] * len(spec.ops) for _ in spec.edges]
        anchors = []
        for _ in range(spec.num_inputs):
            state = self.cell(self.start, state)
            anchors.append(self.of_anchor(state[0]))
        read = self.start
        for i, node in enumerate(spec.nodes):
            rows = spec.incoming(node)
            if spec.keep[i][1] < len(rows):
                left, chosen = list(rows), []
                for _ in range(spec.keep[i][1]):
                    state = self.cell(read, state)
                    scores = torch.cat([self.score(torch.tanh(anchors[spec.edges[e][0]] + self.of_state(state[0])))[0] for e in left])
                    chosen.append(left.pop(choose(self.tanh * torch.tanh(scores))))
                    read = anchors[spec.edges[chosen[-1]][0]]
                rows = sorted(chosen)
            for e in rows:
                state = self.cell(read, state)
                o = choose((self.op_tanh * torch.tanh(self.head[kind](state[0])[0])).masked_fill(closed[e], -torch.inf))
                kept[e][o] = True
                read = self.embedding[kind][o: o + 1]
            state = self.cell(read, state)
            anchors.append(self.of_anchor(state[0]))
        active = tuple(map(tuple, kept))
        return Weights(torch.tensor(active, dtype=self.start.dtype, device=self.start.device), active=active), state
