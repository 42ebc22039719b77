"""Block of a Transformer: attention and a feed-forward layer; in a decoder, attention to a source between them.

Post-norm by default, x <- LN(x + f(x)), as in the models of Ruoss et al. (2023, arXiv:2305.16843). Or pre-norm, x <- x
+ f(LN(x)).
"""

import dataclasses
from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mha import cores, mixing, spec
from mha.model import initial, norms
from mha.model import mlp as mlps
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.nn.dropout import dropout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Given:
    """Arguments of a block in a forward pass: position, padding and dropout. Untyped, since fields of a pytree may hold
    any object."""

    position: Any
    """Position scheme, after `place`."""
    coordinates: Any
    """Coordinates [#B, T]; None if they are the slot numbers."""
    valid: Any
    """Mask of real tokens [#B, T]; None if all are real."""
    dropout_rate: Any
    """Rate that replaces the block's; None to keep that."""
    rngs: Any
    """Random streams of dropout; None for no dropout."""
    sow_weights: bool = dataclasses.field(default=False, metadata={'static': True})
    decode: bool = dataclasses.field(default=False, metadata={'static': True})
    """Whether the tokens continue those whose keys and values are in the caches. `valid` is then that of all slots."""
    segments: Any = None
    """Numbers of the documents [#B, T] in a row; None if all tokens belong together."""
    prefix: Any = None
    """Mask [#B, S] of the tokens that all tokens see, even those before them; None if there are none."""
    source: Any = None
    """`Source` that the block of a decoder attends to."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded source sequence, as a block of a decoder attends to it."""

    encoded: Any
    """Output of the encoder [B, S, D], or its keys and values in this block (`MultiHeadAttention.keys_values`)."""
    valid: Any
    """Mask of real tokens [#B, S]; None if all are real."""
    position: Any = None
    """Position scheme between target and source."""
    q_pos: Any = None
    """Coordinates [#B, T] of the target; None if they are the slot numbers."""
    k_pos: Any = None
    """Coordinates [#B, S] of the source; None if they are the slot numbers."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that the blocks of a model share; see `mha.Encoder`."""

    dim: int
    heads: int
    head_dim: int
    mlp_dim: int
    norm: str
    norm_kind: str
    norm_eps: float
    mlp: str
    kv_heads: int | None
    qk_norm: str
    embedding_norm: str
    init: str
    dropout_rate: float
    attention_dropout_rate: float
    use_bias: bool
    core: cores.Core
    normalizer: str
    softcap: float
    gate: str
    mixing: str
    dtype: DTypeLike

    def make_norm(self, rngs: nnx.Rngs, kind: str | None = None) -> nnx.Module:
        """Norm of the model's width, of the kind of its blocks unless another is given."""
        return norms.make(kind or self.norm_kind, self.dim, epsilon=self.norm_eps, dtype=self.dtype, rngs=rngs)

    @property
    def map_dim(self) -> int:
        """Channels of the queries and keys of one map of a head."""
        return self.head_dim // mixing.kind(self.mixing).maps

    def make_attention(self, start: initial.Initial, causal: bool, layer: int, rngs: nnx.Rngs) -> MultiHeadAttention:
        options: dict[str, Any] = dict(
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            use_bias=self.use_bias,
            dropout_rate=self.attention_dropout_rate,
            normalize_qk=self.qk_norm,
            kernel_init=start.kernel,
            out_kernel_init=start.residual,
            is_causal=causal,
            core=self.core,
            normalizer=self.normalizer,
            softcap=self.softcap,
            gate=self.gate,
            mixing=self.mixing,
            layer=layer,
            dtype=self.dtype,
        )
        return MultiHeadAttention(self.heads, self.dim, **options, rngs=rngs)


class Cross(nnx.Module):
    """Attention of a decoder's block to the source (Vaswani et al., 2017, arXiv:1706.03762), with its norm."""

    def __init__(self, settings: Settings, start: initial.Initial, layer: int, rngs: nnx.Rngs):
        self.attention = settings.make_attention(start, False, layer, rngs)
        self.norm = settings.make_norm(rngs)

    def attend(self, x: Float[Array, 'B T D'], given: Given) -> Float[Array, 'B T D']:
        source = given.source
        return self.attention(
            x,
            source.encoded,
            mask=None if source.valid is None else masks.padding(source.valid),
            position=source.position,
            q_pos=source.q_pos,
            k_pos=source.k_pos,
            deterministic=given.rngs is None,
            rngs=given.rngs,
            sow_weights=given.sow_weights,
        )


class Block(nnx.Module):
    """Attention, in a decoder attention to the source, and a feed-forward layer, each with a residual connection and a
    norm. `pattern` and, if `causal`, the order of the slots hide keys."""

    def __init__(
        self,
        settings: Settings,
        start: initial.Initial,
        *,
        pattern: masks.Mask,
        causal: bool,
        layer: int = 0,
        decoder: bool = False,
        rngs: nnx.Rngs,
    ):
        self.pattern, self.mask = pattern, pattern & (masks.causal() if causal else masks.full())
        self.norm_first, self.dropout_rate = settings.norm == 'pre', settings.dropout_rate
        self.attention = settings.make_attention(start, causal, layer, rngs)
        self.attention_norm = settings.make_norm(rngs)
        self.cross = nnx.data(Cross(settings, start, layer, rngs) if decoder else None)
        # Attributes of the block, not of a submodule: that would change the names in checkpoints, and the order of
        # additions in the norm of the gradient.
        options: dict[str, Any] = dict(dtype=settings.dtype, rngs=rngs)
        with spec.setting('model.mlp'):
            made = mlps.make(settings.mlp, settings.dim, settings.mlp_dim, start, **options)
            self.activation, *layers = made or [None] * 4
        self.up, self.down, self.gate = (nnx.data(layer) for layer in layers)
        self.mlp_norm = nnx.data(None if self.up is None else settings.make_norm(rngs))

    def __call__(self, x: Float[Array, 'B T D'], given: Given) -> Float[Array, 'B T D']:
        mask = self.mask
        if given.prefix is not None:
            mask |= self.pattern & masks.padding(given.prefix)
        if given.valid is not None:
            mask &= masks.padding(given.valid)
        if given.segments is not None:
            mask &= masks.segments(given.segments)
        rate = self.dropout_rate if given.dropout_rate is None else given.dropout_rate

        def residual(x, norm, layer):
            y = dropout(layer(norm(x) if self.norm_first else x), rate, given.rngs)
            return x + y if self.norm_first else norm(x + y)

        def attend(x):
            return self.attention(
                x,
                mask=mask,
                position=given.position,
                q_pos=given.coordinates,
                k_pos=given.coordinates,
                deterministic=given.rngs is None,
                rngs=given.rngs,
                sow_weights=given.sow_weights,
                decode=given.decode,
                prefix=given.prefix,
            )

        x = residual(x, self.attention_norm, attend)
        if (cross := self.cross) is not None:
            x = residual(x, cross.norm, lambda y: cross.attend(y, given))
        if self.activation is None or self.up is None or self.down is None:
            return x
        layers = mlps.Layers(self.activation, self.up, self.down, self.gate)
        return residual(x, self.mlp_norm, lambda y: mlps.apply(layers, y))


def _apply(block, x, given):
    return block(x, given)


TRAINED = {False: nnx.jit(_apply), True: nnx.jit(nnx.remat(_apply))}
"""Calls of a block in training, without and with recomputation in the backward pass. Traced once for all equal
blocks."""
