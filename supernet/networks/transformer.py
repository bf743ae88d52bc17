"""Transformers that share their weights among the choices of size: the width of the tokens, and by layer the number of heads and the hidden
units of the perceptron, all by leading slices; depth by leaving early (AutoFormer, Chen et al. 2021, Sec. 3.2 and 3.3).

Layers are pre-norm: `x + attention(norm(x))`, then `x + perceptron(norm(x))`. Superposed, heads are multiplied by the sum of the weighted
masks that keep them, before the projection; hidden units likewise, behind their activation: that is the weighted sum of the layers that
each choice would give. A depth's factor multiplies what its layers add. Of a token's first channels a layer norm is another function, so
the network is run once for each width, and the classifier reads the weighted sum. At one-hot weights all of it is the final network itself,
and only its slices are computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import plain
from ops.elastic import ElasticAttention, ElasticLayerNorm, ElasticLinear, ElasticPatches, ElasticPositions
from ops.forms import Form, NoPlainForm, form_of, sequence, under
from supernet.networks.chain import Choices, LayerCosts, Row, drop_path_factor, mixed, only
from supernet.networks.elastic import ElasticStage, number
from supernet.networks.measure import counted_on
from supernet.networks.recurrent import LanguageOutput
from supernet.networks.written import Block
from supernet.ranges import Fraction, ranged
from supernet.weights import EdgeWeights

OF_A_LAYER = ("heads", "mlp_ratio")


@dataclass(frozen=True)
class TransformerPlan:
    """What is held, by name. widths: channels of a token. depths: the layers that run. heads, ratios: of each layer the choices, where
    mlp_ratio_4 is 4 hidden units for each channel of a token, whatever its width."""

    widths: Mapping[str, int]
    depths: Mapping[str, int]
    heads: Sequence[Sequence[str]]
    ratios: Sequence[Sequence[str]]
    head_channels: int

    @classmethod
    def of(cls, choices: Choices, head_channels: int) -> "TransformerPlan":
        widths, depths = ({name: number(name) for name in choices.of[kind][0]} for kind in ("embedding", "depth"))
        return cls(widths, depths, [tuple(row) for row in choices.of["heads"]], [tuple(row) for row in choices.of["mlp_ratio"]],
                   head_channels)

    @property
    def widest(self) -> int:
        return max(self.widths.values())


def hidden_units(ratio: str, width: int) -> int:
    """Of the perceptron that `mlp_ratio_3.5` gives tokens of so many channels."""
    return max(1, round(float(ratio.rpartition("_")[2]) * width))


def summed(x: Tensor, row: Row, sizes: Mapping[str, int], layer: ElasticLinear, outputs: int) -> Tensor:
    """The sum over a row of `factor * layer(the first of x)`, by one product. sizes: by choice, how many of x's channels are the first."""
    if len(row) == 1:
        ((name, factor),) = row.items()
        y = layer(x[..., : sizes[name]], outputs)
        return y if factor is None else y * factor
    place = torch.arange(x.shape[-1], device=x.device)
    mask = mixed(row, lambda name: (place < sizes[name]).to(x))
    total = mixed(row, lambda name: x.new_ones(()))  # the offset stands in each of the terms
    return F.linear(x * mask, layer.weight[:outputs, : x.shape[-1]]) + layer.bias[:outputs] * total


def dropped(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Dropout of single numbers."""
    if rate == 0:
        return x
    if generator is None:
        raise ValueError("dropout draws at every forward: the network must be called with generator=")
    kept = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) >= rate
    return x * kept.to(x.dtype) / (1 - rate)


class TransformerLayer(nn.Module):
    """Attention and perceptron, each behind a norm and beside its input; `x` is (N, T, C), C at most the layer's.

    dropout: of what each of the two adds, in training.
    """

    def __init__(self, heads: Sequence[str], ratios: Sequence[str], *, channels: int, head_channels: int, causal: bool, dropout: float):
        super().__init__()
        self.channels, self.ratios, self.dropout = channels, tuple(ratios), dropout
        self.head_channels, self.held_heads = head_channels, {name: number(name) for name in heads}
        hidden = max(hidden_units(name, channels) for name in ratios)
        self.norm1, self.norm2 = ElasticLayerNorm(channels), ElasticLayerNorm(channels)
        self.attention = ElasticAttention(channels, max(self.held_heads.values()), head_channels, causal=causal)
        self.expand, self.contract = ElasticLinear(channels, hidden), ElasticLinear(hidden, channels)

    def forward(self, x: Tensor, rows: Mapping[str, Row], drop_path_prob: float, generator: torch.Generator | None) -> Tensor:
        x = x + self._thinned(self._attention(self.norm1(x), rows["heads"]), drop_path_prob, generator)
        return x + self._thinned(self._perceptron(self.norm2(x), rows["mlp_ratio"]), drop_path_prob, generator)

    def _attention(self, x: Tensor, row: Row) -> Tensor:
        found = self.attention.heads_of(x, max(self.held_heads[name] for name in row))
        sizes = {name: self.held_heads[name] * self.head_channels for name in row}
        return summed(found, row, sizes, self.attention.projection, x.shape[-1])

    def _perceptron(self, x: Tensor, row: Row) -> Tensor:
        sizes = {name: hidden_units(name, x.shape[-1]) for name in row}
        return summed(F.gelu(self.expand(x, max(sizes.values()))), row, sizes, self.contract, x.shape[-1])

    def _thinned(self, x: Tensor, drop_path_prob: float, generator: torch.Generator | None) -> Tensor:
        x = dropped(x, self.dropout if self.training else 0.0, generator)
        return x * drop_path_factor(x, drop_path_prob, generator).view(-1, 1, 1) if drop_path_prob > 0 else x

    def sort(self) -> None:
        """Orders heads, and hidden units, by the weight that the layer behind gives them (the sum of absolute values), the largest first,
        so that a narrower layer keeps what counts most, as Once-for-all does with channels (Cai et al. 2020, Sec. 3.3). At full size
        the layer computes what it did."""
        with torch.no_grad():
            of_heads = self.attention.projection.weight.abs().sum(0).view(-1, self.head_channels).sum(1)
            self.attention.reorder(of_heads.argsort(descending=True, stable=True))
            order = self.contract.weight.abs().sum(0).argsort(descending=True, stable=True)
            for part in (self.expand.weight, self.expand.bias):
                part.copy_(part[order])
            self.contract.weight.copy_(self.contract.weight[:, order])

    def plain(self) -> Form:
        """Of a final network's layer. Raises NoPlainForm: it holds several choices."""
        only("heads", {"heads": tuple(self.held_heads)}), only("mlp_ratio", {"mlp_ratio": self.ratios})
        bodies = (sequence(form_of(self.norm1), form_of(self.attention)),
                  sequence(form_of(self.norm2), form_of(self.expand), Form(nn.GELU), form_of(self.contract)))
        return sequence(*(Form(plain.Residual, {"body": body}, under(body=body)) for body in bodies))

    def costs(self, width: int, tokens: int) -> dict[tuple[str, str], tuple[int, int]]:
        """Parameters, and multiply-adds of one token among `tokens`, by (heads, ratio), of the layer that is left when the token has so
        many channels. Those of attention itself, scores and sums, are counted for all pairs, as they are computed."""
        made = {}
        for (heads, h), ratio in product(self.held_heads.items(), self.ratios):
            q, hidden = h * self.head_channels, hidden_units(ratio, width)
            weights = 4 * width * q + 2 * width * hidden
            made[heads, ratio] = weights + 3 * q + hidden + 2 * width + 4 * width, weights + 2 * tokens * q
        return made


class Trunk(nn.Module):
    """The layers and a last norm: (N, T, C) -> (N, T, C), C a width that is held."""

    def __init__(self, plan: TransformerPlan, *, causal: bool, dropout: float):
        super().__init__()
        deepest = max(plan.depths.values())
        layers = [TransformerLayer(heads, ratios, channels=plan.widest, head_channels=plan.head_channels, causal=causal, dropout=dropout)
                  for heads, ratios in zip(plan.heads[:deepest], plan.ratios[:deepest])]
        self.layers, self.norm = ElasticStage(layers, plan.depths), ElasticLayerNorm(plan.widest)
        self.initialise()

    def initialise(self) -> None:
        """By the sides of each layer (Glorot & Bengio 2010, eq. 16); what is added to the tokens smaller, by how often that is (GPT-2,
        Radford et al. 2019, Sec. 2.3). The standard deviation of 0.02 that the codes of GPT-2 and AutoFormer have is for widths of
        hundreds: with tens, hundreds of steps learn little."""
        for module in self.modules():
            if type(module) is ElasticLinear:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            for layer in self.layers.blocks:
                for last in (layer.attention.projection, layer.contract):
                    last.weight.mul_((2 * len(self.layers.blocks)) ** -0.5)

    def forward(self, x: Tensor, rows: Mapping[str, Sequence[Row]], drop_path_prob: float, generator: torch.Generator | None) -> Tensor:
        own = [{kind: rows[kind][n] for kind in OF_A_LAYER} for n in range(len(self.layers.blocks))]
        return self.norm(self.layers(x, own, rows["depth"][0], drop_path_prob if self.training else 0.0, generator))

    def sort(self) -> None:
        for layer in self.layers.blocks:
            layer.sort()

    def plain(self) -> tuple[dict[str, Form], list[str]]:
        """Parts, and lines that make x of x. Raises NoPlainForm: a decision is open."""
        only("depth", {"depth": tuple(self.layers.depths)})
        parts, lines = {}, []
        for n, layer in enumerate(self.layers.blocks):
            try:
                parts[f"layer{n}"] = layer.plain()
            except NoPlainForm as error:
                raise NoPlainForm(f"layer {n}: {error}") from error
            lines.append(f"x = self.layer{n}(x)")
        return parts | {"norm": form_of(self.norm)}, [*lines, "x = self.norm(x)"]

    def costs(self, widths: Mapping[str, int], tokens: int, counted: int) -> list[tuple[dict[str, int], LayerCosts]]:
        """Of each layer, by kind the edge of each decision, and the costs, multiply-adds of `counted` tokens among `tokens`."""
        made = []
        for n, layer in enumerate(self.layers.blocks):
            runs = [depth for depth, count in self.layers.depths.items() if n < count]
            found = {(name, *key, depth): (size, products * counted) for name, width in widths.items()
                     for key, (size, products) in layer.costs(width, tokens).items() for depth in runs}
            made.append(({"embedding": 0, "heads": n, "mlp_ratio": n, "depth": 0}, LayerCosts(("embedding", *OF_A_LAYER, "depth"), found)))
        return made


def padded(x: Tensor, channels: int) -> Tensor:
    """(..., C) with zeros behind, so that there are `channels`: a linear layer reads the first of its inputs."""
    return F.pad(x, (0, channels - x.shape[-1])) if x.shape[-1] < channels else x


def by_width(widths: Mapping[str, int], found: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], LayerCosts]:
    return {"embedding": 0}, LayerCosts(("embedding",), {(name,): found[name] for name in widths})


@ranged
class VisionTransformer(nn.Module):
    """Patches as tokens, learned positions, the layers, the mean of the tokens or the class token, linear classifier: `net(x, weights) ->
    logits`. drop_path_prob: chance that what a layer's half adds is dropped in training."""

    def __init__(self, choices: Choices, plan: TransformerPlan, *, in_channels: int, image_size: tuple[int, int], patch: int,
                 class_token: bool, num_classes: int, dropout: Fraction = 0.0):
        super().__init__()
        if any(side % patch for side in image_size):
            raise ValueError(f"images must be cut into whole patches: their sides {tuple(image_size)} must be multiples of "
                             f"space.patch={patch}")
        self.choices, self.plan, self.dropout, self.drop_path_prob = choices, plan, dropout, 0.0
        self.tokens = image_size[0] // patch * (image_size[1] // patch) + class_token
        self.patches = ElasticPatches(in_channels, plan.widest, patch, class_token=class_token)
        self.positions = ElasticPositions(self.tokens, plan.widest)
        self.trunk = Trunk(plan, causal=False, dropout=dropout)
        self.classifier = nn.Linear(plan.widest, num_classes)
        conv = self.patches.convolution  # patches and their places are of one size at first, so that neither hides the other
        nn.init.normal_(self.positions.weight, std=plan.widest**-0.5)
        nn.init.normal_(conv.weight, std=(plan.widest * conv.weight[0].numel()) ** -0.5)
        nn.init.zeros_(conv.bias)
        nn.init.xavier_uniform_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (N, num_classes). x: (N, in_channels, H, W). generator: for dropout and drop path."""
        rows = self.choices.rows(weights)
        run = partial(self._features, x, rows, generator)
        return self.classifier(mixed(rows["embedding"][0], lambda name: padded(run(self.plan.widths[name]), self.plan.widest)))

    def _features(self, x: Tensor, rows: Mapping[str, Sequence[Row]], generator: torch.Generator | None, width: int) -> Tensor:
        x = self.positions(self.patches(x, width))
        x = self.trunk(dropped(x, self.dropout if self.training else 0.0, generator), rows, self.drop_path_prob, generator)
        return x.mean(1) if self.patches.class_token is None else x[:, 0]

    def sort(self) -> None:
        """`TransformerLayer.sort`, of all layers."""
        self.trunk.sort()

    def plain(self) -> Block:
        """The network in plain PyTorch, in evaluation: a line a layer. Raises NoPlainForm: a decision is open."""
        only("embedding", {"embedding": tuple(self.plan.widths)})
        layers, lines = self.trunk.plain()
        parts = {"patches": form_of(self.patches), "positions": form_of(self.positions), **layers, "classifier": form_of(self.classifier)}
        read = "x.mean(1)" if self.patches.class_token is None else "x[:, 0]"
        about = f"Patches as tokens, {len(layers) - 1} transformer layers and a linear classifier."
        return Block("Network", about, parts, ["x"], ["x = self.positions(self.patches(x))", *lines, f"return self.classifier({read})"])

    def costs(self, x: Tensor) -> list[tuple[dict[str, int], LayerCosts]]:
        """Of patches and positions, each layer, then the last norm with the classifier: by kind the edge of each decision, and the costs.
        x: not used, the size of images is known."""
        conv, classes, token = self.patches.convolution, self.classifier.out_features, self.patches.class_token is not None
        filters = conv.in_channels * conv.kernel_size[0] ** 2
        first = {name: (d * (filters + 1 + self.tokens + token), d * filters * (self.tokens - token))
                 for name, d in self.plan.widths.items()}
        last = {name: (2 * d + d * classes + classes, d * classes) for name, d in self.plan.widths.items()}
        return [by_width(self.plan.widths, first), *self.trunk.costs(self.plan.widths, self.tokens, self.tokens),
                by_width(self.plan.widths, last)]


@ranged
class TransformerLanguageModel(nn.Module):
    """Embedding, learned positions, causal layers, decoder with the embedding's weights: `net(x, weights) -> LanguageOutput`.

    An item sees at most the `context` - 1 before it, all of them in the same sequence: nothing is handed on to the next one. Sequences
    that are longer are read in pieces of `context` items, each by itself. dropout: of the tokens and of what each half of a layer adds.
    """

    def __init__(self, choices: Choices, plan: TransformerPlan, *, vocabulary: int, context: int, dropout: Fraction = 0.0):
        super().__init__()
        self.choices, self.plan, self.context, self.dropout, self.drop_path_prob = choices, plan, context, dropout, 0.0
        self.embedding = nn.Parameter(torch.empty(vocabulary, plan.widest))
        self.positions = ElasticPositions(context, plan.widest)
        self.trunk = Trunk(plan, causal=True, dropout=dropout)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        for table in (self.embedding, self.positions.weight):  # vectors of length 1, so that logits are of the size of 1
            nn.init.normal_(table, std=plan.widest**-0.5)

    def forward(self, x: Tensor, weights: EdgeWeights | None = None, *, state: None = None,
                generator: torch.Generator | None = None) -> LanguageOutput:
        """x: (T, B) int64. state: none, ever. generator: for dropout and drop path, in training."""
        if state is not None:
            raise ValueError(f"a transformer goes on from no state, got one of shape {tuple(state.shape)}")
        rows = self.choices.rows(weights)

        def run(name: str) -> Tensor:
            pieces = [self._features(piece.T, rows, generator, self.plan.widths[name]) for piece in x.split(self.context)]
            return padded(pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1), self.plan.widest)

        features = mixed(rows["embedding"][0], run).transpose(0, 1)  # (T, B, channels)
        return LanguageOutput(features @ self.embedding.T + self.bias, features, features, None)

    def _features(self, x: Tensor, rows: Mapping[str, Sequence[Row]], generator: torch.Generator | None, width: int) -> Tensor:
        """x: (B, T) -> (B, T, width)."""
        x = self.positions(F.embedding(x, self.embedding[:, :width]))
        return self.trunk(dropped(x, self.dropout if self.training else 0.0, generator), rows, self.drop_path_prob, generator)

    def sort(self) -> None:
        """`TransformerLayer.sort`, of all layers."""
        self.trunk.sort()

    def plain(self) -> Block:
        """The language model in plain PyTorch, in evaluation: tokens (T, B), T at most the context, to logits (T, B, vocabulary). Raises
        NoPlainForm: a decision is open."""
        only("embedding", {"embedding": tuple(self.plan.widths)})
        items, width = self.embedding.shape
        embedding, (layers, lines) = self.embedding.detach(), self.trunk.plain()
        parts = {"embedding": Form(nn.Embedding, {"num_embeddings": items, "embedding_dim": width}, {"weight": embedding}),
                 "positions": form_of(self.positions), **layers,
                 "decoder": Form(nn.Linear, {"in_features": width, "out_features": items},
                                 {"weight": embedding, "bias": self.bias.detach()})}
        about = f"tokens (T, B), T at most {self.context}, to logits (T, B, vocabulary) of what follows each."
        return Block("Network", about, parts, ["tokens"], ["x = self.positions(self.embedding(tokens.T))", *lines,
                                                           "return self.decoder(x).transpose(0, 1)"],
                     ties={"decoder.weight": "embedding.weight"})

    def costs(self, x: Tensor) -> list[tuple[dict[str, int], LayerCosts]]:
        """Of embedding and positions, each layer, then the last norm with the decoder: by kind the edge of each decision, and the costs, of
        an item in a sequence of `context`. x: not used, the context is known."""
        items = len(self.embedding)
        first = {name: (d * (items + self.context), 0) for name, d in self.plan.widths.items()}
        last = {name: (2 * d + items, d * items) for name, d in self.plan.widths.items()}
        return [by_width(self.plan.widths, first), *self.trunk.costs(self.plan.widths, self.context, 1),
                by_width(self.plan.widths, last)]


counted_on.register(TransformerLanguageModel, lambda net, example: (example.new_zeros(net.context, 1), net.context))
