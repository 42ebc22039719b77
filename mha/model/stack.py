"""Stack: blocks in a row, each with a position scheme, and the norm after the last."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, Num

from mha import positions, spec
from mha.model import initial
from mha.model.block import TRAINED, Block, Given, Settings, Source
from mha.nn import masks, prng
from mha.nn.dropout import dropout


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Arguments of a forward pass; see `Encoder.__call__`."""

    tokens: Int[Array, 'B T']
    valid: Bool[Array, '#B S'] | None = None
    pos: Num[Array, '#B T'] | None = None
    train: bool = False
    key: Key[Array, '*B'] | None = None
    """Random key of the coordinates."""
    rngs: nnx.Rngs | None = None
    dropout_rate: Float[Array, ''] | None = None
    sow_weights: bool = False
    decode: bool = False
    segments: Int[Array, '#B T'] | None = None
    prefix: Bool[Array, '#B S'] | None = None

    @classmethod
    def make(cls, tokens: Any, key: Any, rngs: nnx.Rngs | None = None, **others: Any) -> 'Inputs':
        """Inputs of a call, with the random key of the coordinates, by default one of the stream `position`."""
        if getattr(tokens, 'ndim', None) != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise spec.UserError('tokens must be an array of whole numbers, [batch, tokens]')
        if key is None and rngs is not None and hasattr(rngs, 'position'):
            key = rngs.position()
        return cls(tokens=tokens, key=key, rngs=rngs, **others)

    def halves(self) -> 'tuple[Inputs, Inputs]':
        """Inputs of the two sequences that are stored side by side."""
        arrays = self.tokens, self.valid, self.pos
        parts = ([None, None] if array is None else jnp.split(array, 2, axis=1) for array in arrays)
        first, second = (
            dataclasses.replace(self, tokens=tokens, valid=valid, pos=pos)
            for tokens, valid, pos in zip(*parts, strict=True)
        )
        return first, second


class Stack(nnx.Module):
    """Blocks in a row, their position schemes, and the norm after the last block. The base of an encoder, and the
    decoder of an encoder-decoder (`decoder`)."""

    def __init__(
        self,
        settings: Settings,
        patterns: Sequence[masks.Mask],
        *,
        causal: bool,
        remat: bool,
        embedding_dropout: bool,
        decoder: bool = False,
        rngs: nnx.Rngs,
    ):
        self.settings, self.causal, self.remat, self.embedding_dropout = settings, causal, remat, embedding_dropout
        start = initial.make(settings.init, settings.dim, len(patterns))
        kind = settings.embedding_norm
        self.embedding_norm = nnx.data(None if kind == 'none' else settings.make_norm(rngs, kind))
        self.blocks = nnx.List(
            Block(settings, start, pattern=pattern, causal=causal, layer=layer, decoder=decoder, rngs=rngs)
            for layer, pattern in enumerate(patterns)
        )
        self.final_norm = nnx.data(settings.make_norm(rngs) if settings.norm == 'pre' else None)

    def add_positions(self, text: str, per_layer: bool, dims: positions.Dims, key: jax.Array) -> None:
        """Gives every layer its position scheme; see `make_schemes`."""
        self.positions, self.scheme_of_layer = make_schemes(text, len(self.blocks), per_layer, dims, key)
        for layer, index in enumerate(self.scheme_of_layer):
            if index > 0 and (scheme := self.positions[index]).overrides('embed'):
                raise spec.UserError(f'the first layer adds embeddings, but layer {layer} has its own {scheme.name!r}')

    def init_cache(self, batch: int, length: int) -> None:
        """Empties the caches of all layers, and makes room for the keys and values of `length` tokens, or of those that
        the pattern of a layer reaches."""
        shape = batch, length, self.settings.dim
        for block in self.blocks:
            block.attention.init_cache(shape, self.settings.dtype, reach=block.mask.reach)

    def holds_pairs(self, length: int) -> bool:
        """Whether a layer holds the logits of all pairs of `length` tokens in memory."""
        schemes = (self.positions[index] for index in self.scheme_of_layer)
        pairs = zip(self.blocks, schemes, strict=True)
        return any(block.attention.quadratic(scheme, length) for block, scheme in pairs)

    def run(
        self, x: Float[Array, 'B T D'], inputs: Inputs, sources: Sequence[Source] | None = None
    ) -> Float[Array, 'B T D']:
        """Output of the last layer for token embeddings, with coordinates drawn from the key. A decoder attends to
        `sources`, one per layer."""
        placed = self.place(inputs)
        scheme, coordinates = placed[0]
        x = scheme.embed(x, coordinates)
        x = x if self.embedding_norm is None else self.embedding_norm(x)
        rates = self.settings.dropout_rate, self.settings.attention_dropout_rate
        if inputs.train and inputs.rngs is None and max(rates) > 0:
            raise ValueError('dropout draws: pass rngs with a stream for it, or train=False')
        rngs = inputs.rngs if inputs.train else None
        rate = rates[0] if inputs.dropout_rate is None else inputs.dropout_rate
        x = dropout(x, rate, rngs) if self.embedding_dropout else x
        common: dict[str, Any] = dict(
            valid=inputs.valid,
            dropout_rate=inputs.dropout_rate,
            rngs=rngs,
            sow_weights=inputs.sow_weights,
            decode=inputs.decode,
            segments=inputs.segments,
            prefix=inputs.prefix,
        )
        for layer, (block, (scheme, coordinates)) in enumerate(zip(self.blocks, placed, strict=True)):
            if inputs.pos is None and not scheme.overrides('remap'):
                coordinates = None  # the slot numbers, which allow faster cores
            source = None if sources is None else sources[layer]
            given = Given(scheme, coordinates, source=source, **common)
            if inputs.train and not inputs.sow_weights:
                x = TRAINED[self.remat](block, x, given)
            else:  # traced separately: layers may sow, and the blockwise core may report progress
                x = block(x, given)
        return x if self.final_norm is None else self.final_norm(x)

    def place(self, inputs: Inputs) -> list[tuple[positions.Position, Num[Array, '#B T']]]:
        """Scheme and coordinates of every layer, drawn from one key."""
        tokens, key = inputs.tokens, inputs.key
        pos = jnp.arange(tokens.shape[1])[None] if inputs.pos is None else inputs.pos
        placed = []
        for layer, index in enumerate(self.scheme_of_layer):
            scheme, first = self.positions[index], self.scheme_of_layer.index(index)
            if first < layer and not scheme.per_layer:
                placed.append(placed[first])
                continue
            positions.checked_extent(scheme, tokens.shape[1], scheme.name)
            rows = jnp.broadcast_to(pos, tokens.shape) if scheme.per_example else pos
            layer_key = prng.fold_in(key, layer) if scheme.per_layer and key is not None else key
            if key is not None and key.ndim and not (scheme.draws or inputs.train):
                layer_key = None  # without random draws, one row of coordinates is enough for all examples
            valid = None if inputs.decode else inputs.valid
            placed.append(scheme.place(rows, valid=valid, key=layer_key, train=inputs.train))
        return placed


def make_schemes(
    text: str,
    layers: int,
    per_layer: bool,
    dims: positions.Dims,
    key: jax.Array,
    make: Callable[..., positions.Position] = positions.make,
) -> tuple[Any, tuple[int, ...]]:
    """Position schemes of `text`, one spec for all layers or one per layer, and the index of the scheme of every layer.
    Layers with the same spec share a scheme, unless `per_layer`."""
    specs = spec.per_layer(text, layers, 'position')
    owners = tuple(range(layers)) if per_layer else tuple(specs.index(text) for text in specs)
    distinct = sorted(set(owners))
    schemes = nnx.List(make(specs[i], dims, rngs=nnx.Rngs(jax.random.fold_in(key, i))) for i in distinct)
    return schemes, tuple(distinct.index(i) for i in owners)
