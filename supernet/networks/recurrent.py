"""The recurrent cell of DARTS and its language model (Liu et al. 2019, Sec. 2.1, 3.1.2 and App. A.1.2; official code, rnn/)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import plain
from ops.activations import ACTIVATIONS, AS_MODULES
from ops.forms import Form, NoPlainForm, under
from ops.op import BatchNorm, Normalisation
from supernet.networks.written import Block, class_name, total
from supernet.ranges import Channels, Count, Fraction, ranged
from supernet.space import CellSpec, Mask
from supernet.weights import EdgeWeights, Weights

INITIAL = 0.04  # weights start uniform in +-INITIAL [official code, INITRANGE]


class NodePlan(NamedTuple):
    """What one node computes in a forward pass: its predecessors that run (K), their activations (F), and the factor of each pair
    as columns (K, 1, 1), or None for ones; `total` is the sum of the columns."""

    sources: list[int]
    functions: list[Callable[[Tensor], Tensor]]
    columns: list[Tensor] | None
    total: Tensor | None


class RecurrentCell(nn.Module):
    """x_t, h_{t-1} -> h_t, the mean of the cell's nodes.

    Node 0 is s_0 = h + c_0 * (tanh(g_0) - h) with [c_0, g_0] = [x, h] W_0 (c squashed by a sigmoid). Node i adds, over predecessors j and
    activations f, weight * (s_j + c * (f(g) - s_j)) with [c, g] = s_j W_i: all edges into a node share W_i. In the search a batch norm
    without parameters follows every node (the paper, Sec. 3.1.2). The official code calls one for all nodes: the same in training, but
    its running statistics are a mixture over the nodes, with which evaluation is far off. Here every node has its own.
    """

    def __init__(self, spec: CellSpec, present: Mask, inputs: int, hidden: int, norm: Callable[[int], BatchNorm] | None):
        super().__init__()
        self.spec, self.present, self.inputs = spec, present, inputs
        self.norms = nn.ModuleList(nn.Identity() if norm is None else norm(hidden) for _ in range(1 + len(spec.nodes)))
        self.w0 = nn.Parameter(torch.empty(inputs + hidden, 2 * hidden).uniform_(-INITIAL, INITIAL))
        self.w = nn.ParameterList(torch.empty(hidden, 2 * hidden).uniform_(-INITIAL, INITIAL) for _ in spec.nodes)

    def forward(self, x: Tensor, h: Tensor, weights: Weights | None, x_mask: Tensor | None, h_mask: Tensor | None) -> Tensor:
        """x: (T, B, inputs), h: (B, hidden) -> every h_t, (T, B, hidden). Masks of variational dropout: (B, inputs), (B, hidden), the
        same at each time, on the input and on each node's state where it is read."""
        from_x = (x if x_mask is None else x * x_mask) @ self.w0[: self.inputs]  # for all times at once
        plan = [self._plan(node, weights) for node in self.spec.nodes]
        found = []
        for t in range(len(x)):
            h = self._step(from_x[t], h, plan, h_mask)
            found.append(h)
        return torch.stack(found)

    def _plan(self, node: int, weights: Weights | None) -> NodePlan | None:
        """None where nothing runs into the node. An activation that some of the running predecessors lack has factor 0 there."""
        active = None if weights is None else weights.active
        held = [[op in ACTIVATIONS and self.present[e][o] and (active is None or active[e][o]) for o, op in enumerate(self.spec.ops)]
                for e in self.spec.incoming(node)]
        rows = [k for k, row in enumerate(held) if any(row)]
        if not rows:
            return None
        edges = [self.spec.incoming(node)[k] for k in rows]
        used = [o for o in range(len(self.spec.ops)) if any(held[k][o] for k in rows)]
        sources, functions = [self.spec.edges[e][0] for e in edges], [ACTIVATIONS[self.spec.ops[o]] for o in used]
        mask = torch.tensor([[held[k][o] for o in used] for k in rows], device=self.w0.device)
        if weights is None and bool(all(held[k][o] for k in rows for o in used)):
            return NodePlan(sources, functions, None, None)
        table = torch.ones(mask.shape, device=self.w0.device, dtype=self.w0.dtype) if weights is None else weights.ops[edges][:, used]
        table = torch.where(mask, table, 0.0)  # what is inactive is not read
        return NodePlan(sources, functions, [column.view(-1, 1, 1) for column in table.unbind(1)], table.sum(1).view(-1, 1, 1))

    def plain(self, kind: str) -> Block:
        """The cell of one time in plain PyTorch: a line a node. Raises NoPlainForm: a node holds several activations."""
        hidden, spec = self.w0.shape[1] // 2, self.spec

        def gates(weight: Tensor, activation: str) -> Form:
            sizes = {"inputs": len(weight), "hidden": hidden}
            return Form(plain.Highway, sizes | {"activation": Form(AS_MODULES[activation])},
                        under(gates={"weight": weight.detach().T.contiguous()}))

        parts, lines = {"node0": gates(self.w0, "tanh")}, ["s0 = self.node0(torch.cat([x, h], 1), h)"]
        for node, weight in zip(spec.nodes, self.w):
            held = [(spec.edges[e][0], op) for e in spec.incoming(node) for o, op in enumerate(spec.ops)
                    if op in ACTIVATIONS and self.present[e][o]]
            if len(held) != 1:
                raise NoPlainForm(f"node {node} of cell {kind!r} holds {len(held)} activations: a plain cell has one a node")
            ((source, activation),) = held
            parts[f"node{node}"] = gates(weight, activation)
            lines.append(f"s{node} = self.node{node}(s{source}, s{source})")
        for n, norm in enumerate(self.norms):
            if type(norm) is BatchNorm:
                parts[f"norm{n}"] = norm.plain(nn.BatchNorm1d)
                line, _, value = lines[n].partition(" = ")
                lines[n] = f"{line} = self.norm{n}({value})"
        lines.append(f"return ({total([f's{n}' for n in spec.outputs])}) / {len(spec.outputs)}")
        about = "x and h of one time, (B, inputs) and (B, hidden), to the next h: a line a node."
        return Block(class_name(kind), about, parts, ["x", "h"], lines)

    def _step(self, from_x: Tensor, h: Tensor, plan: list[NodePlan | None], h_mask: Tensor | None) -> Tensor:
        c, g = (from_x + (h if h_mask is None else h * h_mask) @ self.w0[self.inputs:]).chunk(2, -1)
        states = [self.norms[0](h + c.sigmoid() * (g.tanh() - h))]
        for w, norm, node in zip(self.w, self.norms[1:], plan):
            if node is None:
                states.append(torch.zeros_like(h))
                continue
            s = torch.stack([states[j] for j in node.sources])  # (K, B, hidden)
            c, g = ((s if h_mask is None else s * h_mask) @ w).chunk(2, -1)
            c = c.sigmoid()
            if node.columns is None:
                y = sum(function(g) for function in node.functions)
                y = len(node.functions) * s + c * (y - len(node.functions) * s)
            else:
                y = node.columns[0] * node.functions[0](g)
                for column, function in zip(node.columns[1:], node.functions[1:]):
                    y = torch.addcmul(y, column, function(g))
                kept = node.total * s
                y = torch.addcmul(kept, c, y - kept)
            states.append(norm(y.sum(0)))
        return torch.stack([states[n] for n in self.spec.outputs]).mean(0)


class LanguageOutput(NamedTuple):
    """logits (T, B, vocabulary); raw (T, B, hidden), the outputs before the decoder, and dropped, what it saw of them; state (B, hidden),
    what the sequences that follow go on from, or None where a network hands nothing on."""

    logits: Tensor
    raw: Tensor
    dropped: Tensor
    state: Tensor | None


@ranged
class RecurrentLanguageModel(nn.Module):
    """Embedding, recurrent cell, decoder with the embedding's weights: `net(x, weights, state=...) -> LanguageOutput`.

    Dropout rates, each mask drawn once a sequence: `dropout_embedding` drops whole rows of the embedding (words), `dropout_input` entries
    of embedded words, `dropout_x` and `dropout_hidden` what the cell reads of its input and of states, `dropout_output` the cell's
    output (Merity et al. 2018; official code's dropoute, dropouti, dropoutx, dropouth, dropout).
    """

    def __init__(self, kind: str, spec: CellSpec, present: Mask, *, vocabulary: Count, channels: Channels, norm: Normalisation,
                 batch_norm: bool, dropout_embedding: Fraction = 0.0, dropout_input: Fraction = 0.0, dropout_x: Fraction = 0.0,
                 dropout_hidden: Fraction = 0.0, dropout_output: Fraction = 0.0):
        super().__init__()
        rates = {"dropout_embedding": dropout_embedding, "dropout_input": dropout_input, "dropout_x": dropout_x,
                 "dropout_hidden": dropout_hidden, "dropout_output": dropout_output}
        self.kind, self.rates, self.hidden, self.drop_path_prob = kind, rates, channels, 0.0
        self.embedding = nn.Parameter(torch.empty(vocabulary, channels).uniform_(-INITIAL, INITIAL))
        self.cell = RecurrentCell(spec, present, channels, channels, norm if batch_norm else None)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, state: Tensor | None = None,
                generator: torch.Generator | None = None) -> LanguageOutput:
        """x: (T, B) int64. state: (B, hidden), or None for zeros. generator: for dropout, in training."""
        if self.drop_path_prob > 0:
            raise ValueError(f"a recurrent cell has no paths to drop: drop_path_prob must be 0, got {self.drop_path_prob}")
        batch = x.shape[1]

        def mask(name: str, *shape: int) -> Tensor | None:
            rate = self.rates[name]
            if not self.training or rate == 0:
                return None
            if generator is None:
                raise ValueError("dropout draws at every forward: the network must be called with generator=")
            kept = torch.rand(shape, generator=generator, device=x.device, dtype=self.bias.dtype) >= rate
            return kept.to(self.bias.dtype) / (1 - rate)

        rows = mask("dropout_embedding", len(self.embedding), 1)
        embedded = F.embedding(x, self.embedding if rows is None else self.embedding * rows)
        locked = mask("dropout_input", batch, self.hidden)
        embedded = embedded if locked is None else embedded * locked
        h = self.bias.new_zeros(batch, self.hidden) if state is None else state
        raw = self.cell(embedded, h, None if weights is None else weights[self.kind], mask("dropout_x", batch, self.hidden),
                        mask("dropout_hidden", batch, self.hidden))
        locked = mask("dropout_output", batch, self.hidden)
        dropped = raw if locked is None else raw * locked
        return LanguageOutput(dropped @ self.embedding.T + self.bias, raw, dropped, raw[-1].detach())

    def plain(self) -> Block:
        """The language model in plain PyTorch, in evaluation, without dropout: tokens (T, B) and a hidden state (B, hidden) to logits
        (T, B, vocabulary) and the next state. Raises NoPlainForm."""
        items, hidden = self.embedding.shape
        embedding, bias = self.embedding.detach(), self.bias.detach()
        parts = {"embedding": Form(nn.Embedding, {"num_embeddings": items, "embedding_dim": hidden}, {"weight": embedding}),
                 "cell": self.cell.plain(self.kind),
                 "decoder": Form(nn.Linear, {"in_features": hidden, "out_features": items}, {"weight": embedding, "bias": bias})}
        lines = ["outputs = []", "for x in self.embedding(tokens):", "    hidden = self.cell(x, hidden)", "    outputs.append(hidden)",
                 "return self.decoder(torch.stack(outputs)), hidden"]
        about = "tokens (T, B) and a hidden state (B, hidden), zeros at first, to logits (T, B, vocabulary) and the next hidden state."
        return Block("Network", about, parts, ["tokens", "hidden"], lines, "tuple[Tensor, Tensor]",
                     ties={"decoder.weight": "embedding.weight"})
