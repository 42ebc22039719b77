"""Encoder-decoder (Vaswani et al., 2017, arXiv:1706.03762): a decoder writes a target sequence, one token after the
other, and attends to a source sequence, which an encoder reads in both directions.

    source  x_1 .. x_S      encoder: attention in both directions, feed-forward
    target  y_0 .. y_T-1    decoder: causal attention, attention to the encoded source, feed-forward
    logits of y_1 .. y_T    from the last layer of the decoder

Each stack has its own position scheme, and the attention from target to source has one, too: by default none, as in
Vaswani et al. and T5, so that only content aligns the two. Coordinates of both sequences count from 0, so that a scheme
of offsets can say how far a pair of tokens is from the diagonal (`mha.positions.make_across`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, Num

from mha import arguments, positions, spec
from mha.arguments import Count, Length
from mha.model.block import Source
from mha.model.encoder import Encoder, averaged
from mha.model.stack import Inputs, Stack, make_schemes
from mha.nn import masks


class EncoderDecoder(nnx.Module):
    """Encoder-decoder: an encoder with a read-out per token, and a decoder of `layers` blocks with the same settings.

        >>> import jax.numpy as jnp, mha
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> encoder = mha.Encoder(vocab_size=9, num_classes=9, max_len=20, layers=2, position='rope', rngs=rngs)
        >>> model = mha.EncoderDecoder(encoder, max_len=20, layers=2, position='alibi', rngs=rngs)
        >>> model(jnp.ones((3, 40), int)).shape
        (3, 40, 9)

    Source and target are the two halves of the tokens, each with its own padding. Both are read with the embedding of
    the encoder, and logits are its read-out of the decoder. `max_len` is the longest sequence of each. `position` is
    the scheme of the decoder's own attention and `cross_position` that of its attention to the source; both are specs
    as in `Encoder`, and so is `pattern`, which hides earlier tokens of the target."""

    @arguments.checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        max_len: Length,
        layers: Count = 5,
        position: str = 'none',
        cross_position: str = 'none',
        position_per_layer: bool = False,
        pattern: str = 'full',
        rngs: nnx.Rngs,
    ):
        if encoder.causal or encoder.readout != 'token':
            raise spec.UserError('a decoder needs an encoder with causal=False and a read-out per token')
        settings = encoder.settings
        with spec.setting('model.pattern'):
            patterns = [masks.make(text, settings.heads) for text in spec.per_layer(pattern, layers, 'pattern')]
        self.encoder = encoder
        self.decoder = Stack(
            settings,
            patterns,
            causal=True,
            remat=encoder.remat,
            embedding_dropout=encoder.embedding_dropout,
            decoder=True,
            rngs=rngs,
        )
        dims = positions.Dims(settings.dim, settings.heads, settings.map_dim, max_len, causal=True)
        own, across = rngs.params(), rngs.params()
        with spec.setting('model.decoder_position'):
            self.decoder.add_positions(position, position_per_layer, dims, own)
        dims = dataclasses.replace(dims, causal=False)
        with spec.setting('model.cross_position'):
            self.cross_positions, self.cross_of_layer = make_schemes(
                cross_position, layers, position_per_layer, dims, across, positions.make_across
            )

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks of blocks, that of the input first."""
        return self.encoder, self.decoder

    @property
    def schemes(self) -> list[positions.Position]:
        """All position schemes."""
        return [*self.encoder.positions, *self.decoder.positions, *self.cross_positions]

    def context(self, length: int) -> int:
        """Number of tokens in one sequence, of `length` tokens in total."""
        return length // 2

    def quadratic(self, length: int) -> bool:
        """Whether a layer holds the logits of all pairs of tokens in memory, for `length` tokens in total."""
        length, blocks = self.context(length), tuple[Any, ...](self.decoder.blocks)
        schemes = (self.cross_positions[index] for index in self.cross_of_layer)
        pairs = zip(blocks, schemes, strict=True)
        across = any(block.cross.attention.quadratic(scheme, length) for block, scheme in pairs)
        return across or any(stack.holds_pairs(length) for stack in self.stacks)

    def __call__(
        self,
        tokens: Int[Array, 'B T'],
        *,
        valid: Bool[Array, '#B T'] | None = None,
        pos: Num[Array, '#B T'] | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        dropout_rate: Float[Array, ''] | None = None,
        sow_weights: bool = False,
        position_key: Key[Array, '*B'] | None = None,
    ) -> Float[Array, 'B T C']:
        """Class logits in the slots of the target, and zeros in those of the source. The arguments are those of
        `Encoder.__call__`; every array holds source and target side by side."""
        inputs = Inputs.make(
            tokens,
            position_key,
            rngs,
            valid=valid,
            pos=pos,
            train=train,
            dropout_rate=dropout_rate,
            sow_weights=sow_weights,
        )
        return averaged(self.logits, inputs, self.schemes)

    def logits(self, inputs: Inputs) -> Float[Array, 'B T C']:
        source, target = inputs.halves()
        memory = Memory([self.encoder.encode(source)] * len(self.decoder.blocks), source.valid, source.pos)
        logits = self.decode(target, memory)
        return jnp.concatenate([jnp.zeros_like(logits), logits], axis=1)

    def decode(self, inputs: Inputs, memory: 'Memory') -> Float[Array, 'B T C']:
        """Class logits of a target, given what the encoder has read."""
        schemes = (self.cross_positions[index] for index in self.cross_of_layer)
        sources = [
            Source(encoded, memory.valid, scheme, inputs.pos, memory.pos)
            for encoded, scheme in zip(memory.encoded, schemes, strict=True)
        ]
        x = self.encoder.embedding(inputs.tokens) * self.encoder.scale
        return self.encoder.read_out(self.decoder.run(x, inputs, sources))

    def given(self, sources: Sequence[Sequence[int]], key: Key[Array, ''] | None = None) -> 'Conditional':
        """Causal model of the targets of these sources. They are encoded here, once, with the random coordinates of
        `key`."""
        if not sources or not all(map(len, sources)):
            raise spec.UserError('a translation needs sources of at least one token')
        longest = max(map(len, sources))
        tokens = np.array([[*source, *[0] * (longest - len(source))] for source in sources])
        valid = np.arange(longest) < np.array([[len(source)] for source in sources])
        for scheme in self.encoder.positions:
            positions.checked_extent(scheme, longest, scheme.name)
        return Conditional(self, _memory(*nnx.split(self), jnp.asarray(tokens), jnp.asarray(valid), key))


Model = Encoder | EncoderDecoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """Encoded sources, as a decoder attends to them."""

    encoded: list[Any]
    """Source of every layer: outputs of the encoder [B, S, D], or keys and values (`KeysValues`)."""
    valid: Any
    """Mask of real tokens [#B, S]; None if all are real."""
    pos: Any = None
    """Coordinates [#B, S]; None if they are the slot numbers."""


@functools.partial(jax.jit, static_argnums=0)
def _memory(graphdef, state, tokens, valid, key):
    """Memory with the keys and values of every layer."""
    model = nnx.merge(graphdef, state)
    x = model.encoder.encode(Inputs.make(tokens, key, valid=valid))
    return Memory([block.cross.attention.keys_values(x) for block in model.decoder.blocks], valid)


class Conditional(nnx.Module):
    """Causal model of the targets of given sources: the decoder, with the keys and values of the sources
    (`EncoderDecoder.given`). `mha.model.generation` continues targets as it continues texts, row i with the i-th
    source, or each source with several neighbouring rows."""

    causal, readout, prefix_lm = True, 'token', False

    def __init__(self, model: EncoderDecoder, memory: Memory):
        self.model, self.memory = model, nnx.data(memory)
        self.num_classes = model.encoder.num_classes

    @property
    def embedding(self) -> nnx.Embed:
        return self.model.encoder.embedding

    @property
    def blocks(self) -> Any:
        return self.model.decoder.blocks

    @property
    def positions(self) -> Any:
        return self.model.decoder.positions

    def init_cache(self, batch: int, length: int) -> None:
        self.model.decoder.init_cache(batch, length)

    def __call__(
        self,
        tokens: Int[Array, 'B T'],
        *,
        valid: Bool[Array, '#B S'] | None = None,
        pos: Num[Array, '#B T'] | None = None,
        position_key: Key[Array, '*B'] | None = None,
        decode: bool = False,
    ) -> Float[Array, 'B T C']:
        """Class logits; see `Encoder.__call__`."""
        inputs = Inputs.make(tokens, position_key, valid=valid, pos=pos, decode=decode)
        each = len(tokens) // len(self.memory.valid)
        memory = jax.tree.map(lambda x: jnp.repeat(x, each, axis=0), self.memory)
        return averaged(lambda inputs: self.model.decode(inputs, memory), inputs, self.positions)
