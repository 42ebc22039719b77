"""Encoder: token embeddings, blocks of attention and feed-forward layers, and a linear read-out.

Post-norm by default, x <- LN(x + f(x)), as in the models of Ruoss et al. (2023, arXiv:2305.16843). Or pre-norm, x <- x
+ f(LN(x)), with a final norm. The encoder owns the position scheme and passes it to every block.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, Num

from mha import cores, positions, spec
from mha.model import initial, norms
from mha.model import mlp as mlps
from mha.model.attention import MultiHeadAttention
from mha.nn import masks, prng
from mha.nn.dropout import dropout
from mha.spec import Count, Length


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


class Block(nnx.Module):
    """Attention and a feed-forward layer, each with a residual connection and a norm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        *,
        mask: masks.Mask,
        norm: str,
        norm_kind: str,
        norm_eps: float,
        mlp: str,
        kv_heads: int | None,
        qk_norm: str,
        start: initial.Initial,
        dropout_rate: float,
        attention_dropout_rate: float,
        use_bias: bool,
        core: cores.Core,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.mask, self.norm_first, self.dropout_rate = mask, norm == 'pre', dropout_rate
        self.attention = MultiHeadAttention(
            heads,
            dim,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            use_bias=use_bias,
            dropout_rate=attention_dropout_rate,
            normalize_qk=qk_norm,
            kernel_init=start.kernel,
            out_kernel_init=start.residual,
            core=core,
            dtype=dtype,
            rngs=rngs,
        )
        norm_options: dict[str, Any] = dict(epsilon=norm_eps, dtype=dtype, rngs=rngs)
        self.attention_norm = norms.make(norm_kind, dim, **norm_options)
        # Attributes of the block, not of a submodule: that would change the names in checkpoints, and the order of
        # additions in the norm of the gradient.
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        with spec.setting('model.mlp'):
            self.activation, *layers = mlps.make(mlp, dim, mlp_dim, start, **options) or [None] * 4
        self.up, self.down, self.gate = (nnx.data(layer) for layer in layers)
        self.mlp_norm = nnx.data(None if self.up is None else norms.make(norm_kind, dim, **norm_options))

    def __call__(self, x: Float[Array, 'B T D'], given: Given) -> Float[Array, 'B T D']:
        mask = self.mask if given.valid is None else self.mask & masks.padding(given.valid)
        mask = mask if given.segments is None else mask & masks.segments(given.segments)
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
            )

        x = residual(x, self.attention_norm, attend)
        if self.activation is None or self.up is None or self.down is None:
            return x
        layers = mlps.Layers(self.activation, self.up, self.down, self.gate)
        return residual(x, self.mlp_norm, lambda y: mlps.apply(layers, y))


def _apply(block, x, given):
    return block(x, given)


TRAINED = {False: nnx.jit(_apply), True: nnx.jit(nnx.remat(_apply))}
"""Calls of a block in training, without and with recomputation in the backward pass. Traced once for all equal
blocks."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Arguments of a forward pass; see `Encoder.__call__`."""

    tokens: Int[Array, 'B T']
    valid: Bool[Array, '#B S'] | None
    pos: Num[Array, '#B T'] | None
    train: bool
    key: Key[Array, '*B'] | None
    """Random key of the coordinates."""
    rngs: nnx.Rngs | None
    dropout_rate: Float[Array, ''] | None
    sow_weights: bool
    decode: bool
    segments: Int[Array, '#B T'] | None = None

    def halves(self) -> 'tuple[Inputs, Inputs]':
        """Inputs of the two sequences that are stored side by side."""
        arrays = self.tokens, self.valid, self.pos
        parts = ([None, None] if array is None else jnp.split(array, 2, axis=1) for array in arrays)
        first, second = (
            dataclasses.replace(self, tokens=tokens, valid=valid, pos=pos)
            for tokens, valid, pos in zip(*parts, strict=True)
        )
        return first, second


class Encoder(nnx.Module):
    """Encoder from tokens [B, T] to class logits: [B, T, C] per token or, with `readout='pooled'`, [B, C] from the mean
    over real tokens.

    With `readout='pair'`, the two halves of the tokens are separate sequences, each with positions from 0. They are
    encoded separately into means x and y, and the logits are linear in [x, y, x y, x - y]. These are the features of
    the retrieval task of Long Range Arena (Tay et al., 2021, arXiv:2011.04006), which adds two more layers.

    `position` is a spec (`mha.positions`), or a comma-separated list with one per layer. Layers with equal specs share
    one scheme and its parameters unless `position_per_layer`. `max_len` is the longest sequence in tokens that the
    scheme must support. Weights other than those of the scheme have the same initial values under every scheme.
    `pattern` is a spec of `mha.nn.masks`, or one per layer. It hides keys in addition to `causal` and padding.

    Blocks are composed of named parts. `norm` is the order ('post' or 'pre') and `norm_kind` the type of the norms
    (`mha.model.norms`). `mlp` is the spec of the feed-forward layer (`mha.model.mlp`) and `mlp_dim` its inner width, by
    default 4 dim. `kv_heads` is the number of heads of keys and values (grouped-query attention, Ainslie et al., 2023,
    arXiv:2305.13245). `qk_norm` normalises queries and keys (Henry et al., 2020, arXiv:2010.04245). With `tied`, the
    logit of class c is computed with the embedding of symbol c (Press & Wolf, 2017, arXiv:1608.05859). `init` is the
    spec of the initial values of embeddings and linear layers (`mha.model.initial`), `norm_eps` is added to the
    variance in the norms. `embedding_dropout` is whether `dropout_rate` also applies after the embedding.

    `remat` recomputes each block in the backward pass of training (Chen et al., 2016, arXiv:1604.06174), so that the
    activations of only one block are in memory. The CPU compiler undoes this, unless it gets the option
    `xla_disable_hlo_passes=cse_barrier_expander`, as in our training."""

    @spec.checked
    def __init__(
        self,
        *,
        vocab_size: Count,
        num_classes: Count,
        max_len: Length,
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
        norm_kind: str = 'layer',
        norm_eps: float = 1e-6,
        mlp: str = 'relu',
        kv_heads: int | None = None,
        qk_norm: str = 'none',
        readout: Literal['token', 'pooled', 'pair'] = 'token',
        tied: bool = False,
        init: str = 'default',
        dropout_rate: float = 0.1,
        embedding_dropout: bool = True,
        attention_dropout_rate: float = 0.0,
        use_bias: bool = False,
        core: str = 'auto',
        remat: bool = False,
        dtype: Literal['float32', 'bfloat16'] = 'float32',
        rngs: nnx.Rngs,
    ):
        counts = dict(layers=layers, dim=dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim, kv_heads=kv_heads)
        for name, value in counts.items():
            if value is not None and value < 1:
                raise spec.UserError(f'model.{name} must be at least 1, not {value}')
        for name, rate in dict(dropout_rate=dropout_rate, attention_dropout_rate=attention_dropout_rate).items():
            if not 0 <= rate < 1:
                raise spec.UserError(f'model.{name} must be at least 0 and below 1, not {rate}')
        if not 0 < norm_eps < math.inf:
            raise spec.UserError(f'model.norm_eps must be above 0 and finite, not {norm_eps}')
        spec.choose(norm, ('post', 'pre'), 'model.norm')
        spec.choose(readout, ('token', 'pooled', 'pair'), 'model.readout')
        spec.choose(norm_kind, norms.NORMS, 'model.norm_kind')
        spec.choose(qk_norm, ('none', *norms.NORMS), 'model.qk_norm')
        if head_dim is None and dim % heads:
            raise spec.UserError(
                f'{heads} heads do not divide the width {dim} - choose from {_divisors(dim)}, or set model.head_dim'
            )
        if kv_heads is not None and heads % kv_heads:
            raise spec.UserError(f'model.kv_heads={kv_heads} does not divide {heads} heads - choose {_divisors(heads)}')
        if tied and (readout == 'pair' or num_classes > vocab_size):
            raise spec.UserError(
                'model.tied needs a class per symbol, and no pairs of sequences - set model.tied=False'
            )
        head_dim = head_dim or dim // heads
        self.readout, self.remat, self.causal, self.dim = readout, remat, causal, dim
        compute, start = jnp.dtype(dtype), initial.make(init, dim, layers)
        self.embedding = nnx.Embed(vocab_size, dim, embedding_init=start.embedding, dtype=compute, rngs=rngs)
        self.scale = start.scale
        self.dropout_rates, self.embedding_dropout = (dropout_rate, attention_dropout_rate), embedding_dropout
        sizes = (dim, heads, head_dim, mlp_dim or 4 * dim)
        with spec.setting('model.pattern'):
            patterns = [masks.make(text) for text in spec.per_layer(pattern, layers, 'pattern')]
        with spec.setting('model.core'):
            attention_core = cores.make(core)
        self.blocks = nnx.List(
            Block(
                *sizes,
                mask=mask & (masks.causal() if causal else masks.full()),
                norm=norm,
                norm_kind=norm_kind,
                norm_eps=norm_eps,
                mlp=mlp,
                kv_heads=kv_heads,
                qk_norm=qk_norm,
                start=start,
                dropout_rate=dropout_rate,
                attention_dropout_rate=attention_dropout_rate,
                use_bias=use_bias,
                core=attention_core,
                dtype=compute,
                rngs=rngs,
            )
            for mask in patterns
        )
        options: dict[str, Any] = dict(dtype=compute, rngs=rngs)
        self.final_norm = nnx.data(norms.make(norm_kind, dim, epsilon=norm_eps, **options) if norm == 'pre' else None)
        features = 4 * dim if readout == 'pair' else dim
        self.num_classes = num_classes
        self.head = nnx.data(None if tied else nnx.Linear(features, num_classes, kernel_init=start.kernel, **options))

        dims = positions.Dims(dim, heads, head_dim, self.context(max_len), causal)
        key = rngs.params()  # one draw, so that a scheme's parameters do not change the initial values of other weights
        with spec.setting('model.position'):
            self._place(spec.per_layer(position, layers, 'position'), position_per_layer, dims, key)

    def _place(self, specs: tuple[str, ...], per_layer: bool, dims: positions.Dims, key: jax.Array) -> None:
        """Makes the schemes of `specs`, one spec per layer. Layers with the same spec share a scheme, unless
        `per_layer`."""
        owners = tuple(range(len(specs))) if per_layer else tuple(specs.index(text) for text in specs)
        distinct = sorted(set(owners))
        self.positions = nnx.List(
            positions.make(specs[i], dims, rngs=nnx.Rngs(jax.random.fold_in(key, i))) for i in distinct
        )
        for scheme, i in zip(self.positions, distinct, strict=True):
            if i > 0 and scheme.overrides('embed'):
                raise spec.UserError(f'the first layer adds embeddings, but layer {i} has its own {specs[i]!r}')
        self.scheme_of_layer = tuple(distinct.index(i) for i in owners)

    def context(self, length: int) -> int:
        """Number of tokens in one sequence, of `length` tokens in total."""
        return length // 2 if self.readout == 'pair' else length

    def init_cache(self, batch: int, length: int) -> None:
        """Empties the caches of all layers, and makes room for the keys and values of `length` tokens, or of those that
        the pattern of a layer reaches."""
        for block in self.blocks:
            block.attention.init_cache((batch, length, self.dim), self.embedding.dtype, reach=block.mask.reach)

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
        valid: Bool[Array, '#B S'] | None = None,
        pos: Num[Array, '#B T'] | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        dropout_rate: Float[Array, ''] | None = None,
        sow_weights: bool = False,
        position_key: Key[Array, '*B'] | None = None,
        decode: bool = False,
        segments: Int[Array, '#B T'] | None = None,
    ) -> Float[Array, 'B T C'] | Float[Array, 'B C']:
        """Class logits. `valid` marks real tokens; padding does not change the result. `pos` are coordinates, by
        default the slot numbers, which suits padding on the right. `rngs` has the streams `dropout`, used in training,
        and `position`, for schemes that draw coordinates. `position_key` replaces that stream by one key for all
        examples or one per example. If a scheme asks for several draws, an evaluation averages the logits over them,
        while `sow_weights` uses a single draw. `dropout_rate` replaces the rate outside attention, so that one program
        can use several rates.

        `segments` are the numbers of documents that share a row: a token sees its own document only. With coordinates
        `pos` that restart in each, logits are those of the documents alone, except under schemes that scale with the
        number of tokens in the row (`ntk(dynamic=True)`, `longrope`).

        With `decode`, after `init_cache`, the tokens continue those of earlier calls: `pos` are their coordinates, and
        `valid` [B, S] marks the real tokens among all slots of the cache (see `mha.model.generation`)."""
        if getattr(tokens, 'ndim', None) != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise spec.UserError('tokens must be an array of whole numbers, [batch, tokens]')
        key = position_key
        if key is None and rngs is not None and hasattr(rngs, 'position'):
            key = rngs.position()
        inputs = Inputs(tokens, valid, pos, train, key, rngs, dropout_rate, sow_weights, decode, segments)
        draws = max(scheme.draws for scheme in self.positions)
        if draws <= 1 or train or sow_weights or key is None:
            return self.logits(inputs)
        keys = prng.split(key, draws)
        return jax.lax.map(lambda key: self.logits(dataclasses.replace(inputs, key=key, rngs=None)), keys).mean(0)

    def attention_weights(self, tokens: Int[Array, 'B T'], **options: Any) -> Float[Array, 'L B H T T']:
        """Attention weights of every layer, example and head. `options` are passed to `__call__`."""
        _, captured = nnx.capture(self, nnx.Intermediate)(tokens, **options, sow_weights=True)
        blocks = nnx.to_pure_dict(captured)['blocks']
        return jnp.stack([blocks[layer]['attention']['attention_weights'][0] for layer in range(len(self.blocks))])

    def logits(self, inputs: Inputs) -> Float[Array, 'B T C'] | Float[Array, 'B C']:
        """Class logits of one forward pass, in float32."""
        if self.readout == 'token':
            x = self.encode(inputs)
        elif self.readout == 'pooled':
            x = self.pool(inputs)
        else:
            x, y = map(self.pool, inputs.halves())
            x = jnp.concatenate([x, y, x * y, x - y], axis=-1)
        logits = self.embedding.attend(x)[..., : self.num_classes] if self.head is None else self.head(x)
        return logits.astype(jnp.float32)

    def pool(self, inputs: Inputs) -> Float[Array, 'B D']:
        """Mean over real tokens."""
        x, shape = self.encode(inputs), inputs.tokens.shape
        real = jnp.ones(shape) if inputs.valid is None else jnp.broadcast_to(inputs.valid, shape)
        total = jnp.einsum('btd,bt->bd', x.astype(jnp.float32), real.astype(jnp.float32))
        return (total / jnp.maximum(real.sum(-1, keepdims=True), 1)).astype(x.dtype)

    def encode(self, inputs: Inputs) -> Float[Array, 'B T D']:
        """Output of the last layer, with coordinates drawn from the key."""
        placed = self.place(inputs)
        x = self.embedding(inputs.tokens) * self.scale
        scheme, coordinates = placed[0]
        x = scheme.embed(x, coordinates)
        if inputs.train and inputs.rngs is None and max(self.dropout_rates) > 0:
            raise ValueError('dropout draws: pass rngs with a stream for it, or train=False')
        rngs = inputs.rngs if inputs.train else None
        rate = self.dropout_rates[0] if inputs.dropout_rate is None else inputs.dropout_rate
        x = dropout(x, rate, rngs) if self.embedding_dropout else x
        for block, (scheme, coordinates) in zip(self.blocks, placed, strict=True):
            if inputs.pos is None and not scheme.overrides('remap'):
                coordinates = None  # the slot numbers, which allow faster cores
            given = Given(
                scheme,
                coordinates,
                inputs.valid,
                inputs.dropout_rate,
                rngs,
                inputs.sow_weights,
                inputs.decode,
                inputs.segments,
            )
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
            scheme.extent(tokens.shape[1])
            rows = jnp.broadcast_to(pos, tokens.shape) if scheme.per_example else pos
            layer_key = prng.fold_in(key, layer) if scheme.per_layer and key is not None else key
            if key is not None and key.ndim and not (scheme.draws or inputs.train):
                layer_key = None  # without random draws, one row of coordinates is enough for all examples
            valid = None if inputs.decode else inputs.valid
            placed.append(scheme.place(rows, valid=valid, key=layer_key, train=inputs.train))
        return placed


def _divisors(number: int) -> str:
    return ', '.join(str(n) for n in range(1, number + 1) if number % n == 0)
