"""A recurrent controller that draws architectures (ENAS, Pham et al. 2018, Sec. 2.2 and 2.4)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from supernet.genotype import Genotype
from supernet.ranges import Channels, Finite, Positive, Range, ranged
from supernet.relaxations.base import Noise, Relaxation
from supernet.space import CellSpec, Space
from supernet.weights import EdgeWeights, Weights

LstmLayers = Annotated[int, Range(1, 16)]
States = list[tuple[Tensor, Tensor]]  # (h, c), each (1, hidden), a layer


@ranged
class Controller(Relaxation):
    """An LSTM decides node by node: which of the node's edges it keeps, one after the other without replacement, by attention over the
    states at which their sources were finished, and then the op of each. A draw is the one-hot network of one genotype with the
    log-probability of its decisions; train it by `hypergradient=reinforce`. The mean is the greedy architecture.

    What it reads, as in the official code (melodyguan/enas, micro_controller.py): a start vector at the beginning of each node, after an
    edge the state at which its source was finished (zeros for a cell's inputs), after an op its embedding. Where all nodes keep all of
    their edges nothing compares states, and it reads op after op (D-X-Y/AutoDL-Projects, search_model_enas_utils.py). Ops have one
    embedding and one score in all kinds of cells. Scores are squashed, `tanh_constant * tanh(score / temperature)`, those of ops by
    `op_tanh_reduce` times less. The LSTM of `lstm_layers` has no biases; parameters start uniform in +-0.1, biases of ops at 0. Different
    here: without replacement (there a node may read one state twice), and a node with no more edges than it keeps chooses none. Nodes
    whose number of edges may vary keep the largest number.

    favoured: ops whose bias starts at `favoured_bias` and which, in the first kind of cell (the normal one), score `favoured_lean` more
    after the squashing, the others so much less, for good [official code: 10 and 0.25, the two separable convolutions]. Those of another
    space do nothing. Raises ValueError: the space has none of them.
    """

    def __init__(self, space: Space, generator: torch.Generator, *, hidden: Channels = 64, lstm_layers: LstmLayers = 1,
                 tanh_constant: Positive = 1.1, op_tanh_reduce: Positive = 2.5, temperature: Positive = 1.0,
                 favoured: Sequence[str] = (), favoured_bias: Finite = 10.0, favoured_lean: Finite = 0.25):
        super().__init__()
        self.space, self.tanh, self.op_tanh, self.temperature = space, tanh_constant, tanh_constant / op_tanh_reduce, temperature
        kinds = sorted(space.cells.items())
        ops = list(dict.fromkeys(op for _, spec in kinds for op in spec.ops))
        if favoured and not set(favoured) & set(ops):
            raise ValueError(f"relaxation.favoured must name ops of space {space.name} ({', '.join(ops)}), got {list(favoured)}")
        self.lstm = nn.ModuleList(nn.LSTMCell(hidden, hidden, bias=False) for _ in range(lstm_layers))
        self.start = nn.Parameter(torch.empty(1, hidden))
        self.compares = any(spec.keep[i][1] < len(spec.incoming(node)) for _, spec in kinds for i, node in enumerate(spec.nodes))
        if self.compares:
            self.of_anchor, self.of_state = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
            self.score = nn.Linear(hidden, 1, bias=False)
        self.embedding, self.head = nn.Parameter(torch.empty(len(ops), hidden)), nn.Linear(hidden, len(ops))
        for n, (kind, spec) in enumerate(kinds):
            lean = [0.0 if n or not favoured else favoured_lean if op in favoured else -favoured_lean for op in spec.ops]
            self.register_buffer(f"columns_{kind}", torch.tensor([ops.index(op) for op in spec.ops]), persistent=False)
            self.register_buffer(f"lean_{kind}", torch.tensor(lean), persistent=False)
            self.register_buffer(f"closed_{kind}", ~torch.tensor(spec.selectable), persistent=False)
        with torch.no_grad():
            for p in self.parameters():
                p.uniform_(-0.1, 0.1, generator=generator)
            self.head.bias.copy_(torch.tensor([favoured_bias if op in favoured else 0.0 for op in ops]))

    def noise(self, generator: torch.Generator) -> Noise:
        """A seed."""
        return {"seed": torch.randint(2**62, (), generator=generator, device=generator.device)}

    def weights(self, noise: Noise) -> EdgeWeights:
        return self._decode(torch.Generator(self.start.device).manual_seed(int(noise["seed"])))

    def mean(self) -> EdgeWeights:
        return self._decode(None)

    def recorded(self) -> dict[str, Tensor]:
        return {}

    def in_order(self, generator: torch.Generator | None, genotype: Genotype | None = None) -> EdgeWeights:
        """One architecture, drawn or given, whose nodes take their edges in the order of their sources (each after the last, with enough
        left), so that each architecture has one list of decisions: `log_prob` is its own, and they sum to 1 over the space. Its `entropy`
        is that of the decisions on its way. Of spaces whose nodes keep a fixed number of edges."""
        if genotype is None:
            return self._decode(generator, ordered=True)
        wanted = {}
        for kind, spec in self.space.cells.items():
            entries = sorted(spec.rows(genotype[kind]), key=lambda entry: (spec.edges[entry[0]][1], entry[0]))
            wanted[kind] = iter([choice for node in spec.nodes for choice in _choices(spec, node, entries)])
        return self._decode(None, ordered=True, wanted=wanted)

    def _decode(self, generator: torch.Generator | None, *, ordered: bool = False,
                wanted: Mapping[str, Iterator[int]] | None = None) -> EdgeWeights:
        """One architecture: drawn, or greedy without a generator; that of the decisions which are `wanted`."""
        log_probs: list[Tensor] = []
        entropies: list[Tensor] = []

        def choose(scores: Tensor, kind: str, options: Sequence[int]) -> int:
            log_p = scores.log_softmax(0)
            chosen = log_p.argmax() if generator is None else torch.multinomial(log_p.detach().exp(), 1, generator=generator)[0]
            if wanted is not None:
                chosen = torch.tensor(options.index(next(wanted[kind])))
            log_probs.append(log_p[chosen])
            entropies.append(-(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum())  # with a gradient, also beside -inf
            return int(chosen)

        zeros = torch.zeros_like(self.start)
        states: States = [(zeros, zeros) for _ in self.lstm]
        kinds = {kind: self._cell(kind, spec, states, choose, ordered) for kind, spec in sorted(self.space.cells.items())}
        return EdgeWeights(kinds, torch.stack(log_probs).sum(), torch.stack(entropies).sum())

    def _step(self, read: Tensor, states: States) -> Tensor:
        """The state of the last layer after it has read; `states` becomes what it is then."""
        for n, layer in enumerate(self.lstm):
            states[n] = layer(read, states[n])
            read = states[n][0]
        return read

    def _cell(self, kind: str, spec: CellSpec, states: States, choose: Callable[[Tensor, str, Sequence[int]], int],
              ordered: bool) -> Weights:
        columns, lean, closed = (self.get_buffer(f"{name}_{kind}") for name in ("columns", "lean", "closed"))
        kept = [[False] * len(spec.ops) for _ in spec.edges]
        finished: list[Tensor] = []  # of each node so far: the state that is read, and what other states are compared with
        anchors: list[Tensor] = []

        def finish(node: Tensor, state: Tensor) -> None:
            finished.append(node)
            anchors.append(self.of_anchor(state))

        read = self.start
        for _ in range(spec.num_inputs if self.compares else 0):
            finish(torch.zeros_like(self.start), self._step(self.start, states))
        for i, node in enumerate(spec.nodes):
            rows = spec.incoming(node)
            if spec.keep[i][1] < len(rows):
                left, rows = list(rows), []
                for still in range(spec.keep[i][1] - 1, -1, -1):
                    state, allowed = self.of_state(self._step(read, states)), left[:len(left) - still] if ordered else left
                    scores = torch.cat([self.score(torch.tanh(anchors[spec.edges[e][0]] + state))[0] for e in allowed])
                    place = choose(self.tanh * torch.tanh(scores / self.temperature), kind, allowed)
                    rows.append(left[place])
                    left = left[place + 1:] if ordered else [*left[:place], *left[place + 1:]]
                    read = finished[spec.edges[rows[-1]][0]]
            for e in rows:
                scores = self.head(self._step(read, states))[0][columns] / self.temperature
                logits = (self.op_tanh * torch.tanh(scores) + lean).masked_fill(closed[e], -torch.inf)
                o = choose(logits, kind, range(len(spec.ops)))
                kept[e][o] = True
                read = self.embedding[columns[o]][None]
            if self.compares:
                state = self._step(read, states)
                finish(state, state)
                read = self.start
        active = tuple(map(tuple, kept))
        return Weights(torch.tensor(active, dtype=self.start.dtype, device=self.start.device), active=active)


def _choices(spec: CellSpec, node: int, entries: Sequence[tuple[int, int]]) -> list[int]:
    """What is decided about a node, in order: its edges, where it does not keep all, then the op of each."""
    own, rows = [entry for entry in entries if spec.edges[entry[0]][1] == node], spec.incoming(node)
    chosen = [e for e, _ in own] if spec.keep[node - spec.num_inputs][1] < len(rows) else []
    return [*chosen, *(o for _, o in own)]
