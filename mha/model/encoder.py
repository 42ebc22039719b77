"""The encoder: token embeddings, blocks of attention and feed-forward, a linear read-out.

Post-norm by default, x <- LN(x + f(x)), as in the models of Ruoss et al. (2023, arXiv:2305.16843); or pre-norm,
x <- x + f(LN(x)) with a final norm. The encoder owns the position scheme and hands it to every block.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from mha import positions, spec
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.nn.dropout import dropout
from mha.nn.products import linear


class Block(nnx.Module):
    """Attention and a ReLU feed-forward layer, each with a residual connection and a norm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        *,
        mask: masks.Mask,
        norm_first: bool,
        dropout_rate: float,
        attention_dropout_rate: float,
        use_bias: bool,
        core: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.mask, self.norm_first, self.dropout_rate = mask, norm_first, dropout_rate
        self.attention = MultiHeadAttention(
            heads,
            dim,
            head_dim=head_dim,
            use_bias=use_bias,
            dropout_rate=attention_dropout_rate,
            core=core,
            dtype=dtype,
            rngs=rngs,
        )
        self.attention_norm = nnx.LayerNorm(dim, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(dim, mlp_dim, dtype=dtype, dot_general=linear, rngs=rngs)
        self.down = nnx.Linear(mlp_dim, dim, dtype=dtype, dot_general=linear, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(dim, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, 'B T D'],
        position: positions.Position,
        at: Num[Array, '#B T'] | None,
        valid: Bool[Array, '#B T'] | None,
        dropout_rate: Float[Array, ''] | None,
        rngs: nnx.Rngs | None,
        sow_weights: bool = False,
    ) -> Float[Array, 'B T D']:
        """`at` holds the coordinates where they are not the slot numbers. Drops out where `rngs` are given."""
        mask = self.mask if valid is None else self.mask & masks.padding(valid)
        rate = self.dropout_rate if dropout_rate is None else dropout_rate

        def residual(x, norm, layer):
            y = dropout(layer(norm(x) if self.norm_first else x), rate, rngs)
            return x + y if self.norm_first else norm(x + y)

        def attend(x):
            return self.attention(
                x,
                mask=mask,
                position=position,
                q_pos=at,
                k_pos=at,
                deterministic=rngs is None,
                rngs=rngs,
                sow_weights=sow_weights,
            )

        x = residual(x, self.attention_norm, attend)
        return residual(x, self.mlp_norm, lambda y: self.down(jax.nn.relu(self.up(y))))


def _apply(block, *given):
    return block(*given)


TRAINED = {False: nnx.jit(_apply), True: nnx.jit(nnx.remat(_apply))}
"""Applies a block in training, by whether the backward pass computes it again; traced once for all blocks alike."""


class Encoder(nnx.Module):
    """Maps tokens [B, T] to class logits: per token [B, T, C], or [B, C] from the mean over real tokens ('pooled').

    'pair' reads the halves of the tokens as two sequences, which it encodes apart, with positions from 0 each, to means
    x and y; the logits are linear in [x, y, x y, x - y], the features of Long Range Arena's retrieval (Tay et al.,
    2021, arXiv:2011.04006), which has two more layers there.

    `position` is a spec (`mha.positions`), or a comma-separated list with one per layer; layers with equal specs share
    one scheme and its parameters unless `position_per_layer`. `max_len` is the longest sequence in tokens that the
    scheme must serve. Every shared weight starts equal under every scheme. `pattern`, a spec of `mha.nn.masks` or one
    per layer, says which keys a query may see of those that `causal` and padding leave.

    `remat` recomputes each block in the backward pass of training (Chen et al., 2016, arXiv:1604.06174), which then
    holds the activations of one block, not of all. A CPU's compiler merges the two passes again, and nothing is saved
    there unless told with `xla_disable_hlo_passes=cse_barrier_expander`, as training does.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        num_classes: int,
        max_len: int,
        layers: int = 5,
        dim: int = 64,
        heads: int = 8,
        head_dim: int | None = None,
        mlp_dim: int | None = None,
        position: str = 'none',
        position_per_layer: bool = False,
        pattern: str = 'full',
        causal: bool = False,
        norm: Literal['post', 'pre'] = 'post',
        readout: Literal['token', 'pooled', 'pair'] = 'token',
        dropout_rate: float = 0.1,
        attention_dropout_rate: float = 0.0,
        use_bias: bool = False,
        core: str = 'auto',
        remat: bool = False,
        dtype: Literal['float32', 'bfloat16'] = 'float32',
        rngs: nnx.Rngs,
    ):
        for name, value in dict(layers=layers, dim=dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim).items():
            if value is not None and value < 1:
                raise spec.UserError(f'model.{name} must be at least 1, not {value}')
        for name, rate in dict(dropout_rate=dropout_rate, attention_dropout_rate=attention_dropout_rate).items():
            if not 0 <= rate < 1:
                raise spec.UserError(f'model.{name} must be at least 0 and below 1, not {rate}')
        spec.choose(norm, ('post', 'pre'), 'model.norm')
        spec.choose(readout, ('token', 'pooled', 'pair'), 'model.readout')
        if head_dim is None and dim % heads:
            fits = ', '.join(str(h) for h in range(1, dim + 1) if dim % h == 0)
            raise spec.UserError(
                f'{heads} heads do not divide the width {dim} - choose from {fits}, or set model.head_dim'
            )
        head_dim = head_dim or dim // heads
        self.readout, self.remat, self.dim = readout, remat, dim
        compute = jnp.dtype(dtype)
        self.embedding = nnx.Embed(
            vocab_size, dim, embedding_init=jax.nn.initializers.normal(dim**-0.5), dtype=compute, rngs=rngs
        )
        self.dropout_rates = (dropout_rate, attention_dropout_rate)
        sizes = (dim, heads, head_dim, mlp_dim or 4 * dim)
        self.blocks = nnx.List(
            Block(
                *sizes,
                mask=masks.make(text) & (masks.causal() if causal else masks.full()),
                norm_first=norm == 'pre',
                dropout_rate=dropout_rate,
                attention_dropout_rate=attention_dropout_rate,
                use_bias=use_bias,
                core=core,
                dtype=compute,
                rngs=rngs,
            )
            for text in spec.per_layer(pattern, layers, 'pattern')
        )
        self.final_norm = nnx.LayerNorm(dim, dtype=compute, rngs=rngs) if norm == 'pre' else nnx.data(None)
        features = 4 * dim if readout == 'pair' else dim
        self.head = nnx.Linear(features, num_classes, dtype=compute, rngs=rngs)

        specs = spec.per_layer(position, layers, 'position')
        owners = tuple(range(layers)) if position_per_layer else tuple(specs.index(text) for text in specs)
        dims = positions.Dims(dim, heads, head_dim, self.context(max_len), causal)
        key = rngs.params()  # one draw, so that a scheme's own parameters shift no other initial weight
        distinct = sorted(set(owners))
        self.positions = nnx.List(
            positions.make(specs[i], dims, rngs=nnx.Rngs(jax.random.fold_in(key, i))) for i in distinct
        )
        for scheme, i in zip(self.positions, distinct, strict=True):
            if i > 0 and scheme.overrides('embed'):
                raise spec.UserError(
                    f'position {position!r}: the first layer adds embeddings, but layer {i} has its own {specs[i]!r}'
                )
        self.scheme_of_layer = tuple(distinct.index(i) for i in owners)

    def context(self, length: int) -> int:
        """How many of `length` tokens stand in one sequence."""
        return length // 2 if self.readout == 'pair' else length

    def quadratic(self, length: int) -> bool:
        """Whether a layer holds the logits of all pairs of `length` tokens in memory."""
        length = self.context(length)
        schemes = (self.positions[index] for index in self.scheme_of_layer)
        pairs = zip(self.blocks, schemes, strict=True)
        return any(block.attention.quadratic(scheme, length) for block, scheme in pairs)

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
    ) -> Float[Array, 'B T C'] | Float[Array, 'B C']:
        """`valid` marks real tokens; padding changes nothing. `pos` defaults to the slot numbers, which suits padding
        on the right. `rngs` has the streams `dropout` (in training) and `position` (for schemes that draw; where one
        asks for several draws, an evaluation averages the logits over them, but maps are those of a single draw).
        `dropout_rate` replaces the model's outside attention, so that one program can serve several."""
        key = rngs.position() if rngs is not None else None
        draws = max(scheme.draws for scheme in self.positions)
        if draws == 1 or train or sow_weights or key is None:
            return self.logits(tokens, valid, pos, train, key, rngs, dropout_rate, sow_weights)
        keys = jax.random.split(key, draws)
        return jax.lax.map(lambda key: self.logits(tokens, valid, pos, False, key, None, None, False), keys).mean(0)

    def logits(self, tokens, valid, pos, *settings):
        """One forward pass; `settings` as of `encode`."""
        if self.readout == 'token':
            x = self.encode(tokens, valid, pos, *settings)
        elif self.readout == 'pooled':
            x = self.pool(tokens, valid, pos, *settings)
        else:
            halves = ([None, None] if array is None else jnp.split(array, 2, axis=1) for array in (tokens, valid, pos))
            x, y = (self.pool(*half, *settings) for half in zip(*halves, strict=True))
            x = jnp.concatenate([x, y, x * y, x - y], axis=-1)
        return self.head(x).astype(jnp.float32)

    def pool(self, tokens, valid, pos, *settings):
        """The mean over real tokens [B, D]."""
        x = self.encode(tokens, valid, pos, *settings)
        real = jnp.ones(tokens.shape) if valid is None else jnp.broadcast_to(valid, tokens.shape)
        total = jnp.einsum('btd,bt->bd', x.astype(jnp.float32), real.astype(jnp.float32))
        return (total / jnp.maximum(real.sum(-1, keepdims=True), 1)).astype(x.dtype)

    def encode(self, tokens, valid, pos, train, key, rngs, dropout_rate, sow_weights):
        """The last layer's output [B, T, D], under the placement of tokens that `key` draws."""
        length, slots = tokens.shape[1], pos is None
        pos = jnp.arange(length)[None] if pos is None else pos

        placed = []  # per layer: its scheme and coordinates, all from one key
        for layer, index in enumerate(self.scheme_of_layer):
            scheme, first = self.positions[index], self.scheme_of_layer.index(index)
            if first < layer and not scheme.per_layer:
                placed.append(placed[first])
                continue
            scheme.extent(length)
            rows = jnp.broadcast_to(pos, tokens.shape) if scheme.per_example else pos
            layer_key = jax.random.fold_in(key, layer) if scheme.per_layer and key is not None else key
            placed.append(scheme.place(rows, valid=valid, key=layer_key, train=train))

        x = self.embedding(tokens) * math.sqrt(self.dim)
        scheme, at = placed[0]
        x = scheme.embed(x, at)
        if train and rngs is None and max(self.dropout_rates) > 0:
            raise ValueError('dropout draws: pass rngs with a stream for it, or train=False')
        dropping = rngs if train else None
        rate = self.dropout_rates[0] if dropout_rate is None else dropout_rate
        x = dropout(x, rate, dropping)
        for block, (scheme, at) in zip(self.blocks, placed, strict=True):
            at = None if slots and not scheme.overrides('remap') else at  # slot numbers: a core may rely on it
            given = (x, scheme, at, valid, dropout_rate, dropping)
            if train and not sow_weights:
                x = TRAINED[self.remat](block, *given)
            else:  # each layer traced for itself: it may sow, and cores may tell what they compute (`blockwise`)
                x = block(*given, sow_weights)
        return x if self.final_norm is None else self.final_norm(x)
