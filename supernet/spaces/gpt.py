"""Causal transformers for language modelling (GPT-2, Radford et al. 2019: pre-norm, learned positions, decoder tied to the embedding), of
the shape that AutoFormer searches (Chen et al. 2021, Sec. 3.3): embedding dimension, heads and ratio of the perceptron by layer, depth."""

from collections.abc import Sequence
from typing import Annotated, Any

from supernet.ranges import Channels, Fraction, Range, ranged
from supernet.space import Candidates, Space
from supernet.spaces.transformer import Depth, Heads, Ratio, planned, transformers

Context = Annotated[int, Range(1, 65_536)]


@ranged
def make(*, embeddings: Sequence[Channels] = (64, 96, 128), heads: Sequence[Heads] = (2, 3, 4), ratios: Sequence[Ratio] = (2, 3, 4),
         depths: Sequence[Depth] = (2, 3, 4), head_channels: Channels = 32, context: Context = 128) -> Space:
    """embeddings, depths: decided once. heads, ratios (hidden units of the perceptron for each channel): by layer. context: items that one
    can see, itself among them; longer sequences are read in pieces."""
    return transformers("gpt", embeddings=embeddings, heads=heads, ratios=ratios, depths=depths, build=build,
                        rules={"head_channels": head_channels, "context": context})


@ranged
def build(space: Space, candidates: Candidates, *, layers: int, channels: Channels, norm: Any, vocabulary: int,
          dropout: Fraction = 0.0) -> Any:
    """The language model. norm: of batches, of which there are none here. Raises ValueError: `layers` or `channels` are not the space's."""
    from supernet.networks.transformer import TransformerLanguageModel

    return TransformerLanguageModel(*planned(space, candidates, layers, channels), vocabulary=vocabulary,
                                    context=space.arguments["context"], dropout=dropout)
