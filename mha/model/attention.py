"""Multi-head attention (Vaswani et al., 2017, arXiv:1706.03762): projections -> core -> output projection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.nn.initializers import Initializer, lecun_normal
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from mha import arguments, cores, normalizers, positions, spec
from mha import mixing as mixings
from mha.arguments import Count, Decay, Length, Spread
from mha.cores import dense
from mha.model import norms
from mha.nn import gates, masks, prng
from mha.nn.masks import Mask, MaskLike, as_mask, causal, explicit, later, padding
from mha.nn.parameters import keep_rows
from mha.nn.products import linear
from mha.positions.base import Coords, Dims, Position

__all__ = ['MultiHeadAttention', 'attend']


class KeysValues(NamedTuple):
    """Keys and values that several calls of a layer read; see `MultiHeadAttention.keys_values`."""

    keys: Float[Array, 'B S H K']
    values: Float[Array, 'B S H K']


LECUN, ZEROS = lecun_normal(), jax.nn.initializers.zeros


@arguments.checked
def attend(
    q: Float[Array, 'B T H K'],
    k: Float[Array, 'B S H K'],
    v: Float[Array, 'B S H V'],
    *,
    position: Position | str | None = None,
    coords: Coords | None = None,
    mask: MaskLike = None,
    core: str | cores.Core = 'auto',
    normalizer: normalizers.Normalizer | str = 'softmax',
    softcap: Spread = 0.0,
    is_causal: bool = False,
) -> Float[Array, 'B T H V']:
    """Attention under a position scheme and a normalizer, or under specs of them. A spec is built anew in every call,
    with its initial parameters and the same random draws, for a causal model if `is_causal`. `softcap` bounds the
    logits, unless it is 0. Only `mask` determines which keys a query
    sees. Coordinates default to the slot numbers. Schemes that read the input of the layer (`fox`, `cable`) need
    `coords` with that input; without it the result is NaN."""
    for name, array in dict(q=q, k=k, v=v).items():
        if len(shape := getattr(array, 'shape', ())) != 4:
            raise spec.UserError(f'attend: {name} must be an array [batch, tokens, heads, width], not {shape or array}')
    (batch, queries, heads, head_dim), keys = q.shape, k.shape[1]
    dims = Dims(heads * head_dim, heads, head_dim, max(queries, keys, 1), is_causal)
    scheme, mask = _scheme(position, dims, nnx.Rngs(0)), as_mask(mask)
    if coords is None:
        _refuse_placing(scheme)
        coords = Coords(
            q_pos=jnp.arange(queries)[None],
            k_pos=jnp.arange(keys)[None],
            visible=mask.count(queries, keys),
            x=jnp.full((batch, queries, dims.dim), jnp.nan, q.dtype),
            tokens=mask.present(queries, keys).sum(-1),
            contiguous=True,
        )
    if isinstance(normalizer, str):
        normalizer = normalizers.make(normalizer, dims, rngs=nnx.Rngs(0))
    variant = cores.Variant(normalizer, softcap)
    return cores.attend(q, k, v, position=scheme, coords=coords, mask=mask, core=core, variant=variant)


def _scheme(position: Position | str | None, dims: Dims, rngs: nnx.Rngs) -> Position:
    """Position scheme: the one that a spec describes, a given one if it was made for the same heads, or one without
    effect for None."""
    if position is None:
        return Position(dims, rngs=rngs)
    if not isinstance(position, Position):
        return positions.make(position, dims, rngs=rngs)
    made = position.dims
    if made is not None and (made.heads, made.head_dim) != (dims.heads, dims.head_dim):
        raise spec.UserError(
            f'position {position.name!r} was made for {made.heads} heads of {made.head_dim}, but the layer has '
            f'{dims.heads} of {dims.head_dim}'
        )
    return position


def _refuse_placing(scheme: Position) -> None:
    """Raises `UserError` for schemes that act once per forward pass, before any layer."""
    for hook in ('remap', 'embed'):
        if scheme.overrides(hook):
            raise spec.UserError(
                f'position {scheme.name!r} has a {hook!r} hook, which a layer alone does not apply - use an '
                'Encoder, or apply it before (see `Position.place` and `embed`) and call with the coordinates it gives'
            )


class MultiHeadAttention(nnx.Module):
    """Multi-head attention with a position scheme, a replacement for `flax.nnx.MultiHeadAttention` on inputs [B, T, D].

        >>> import jax.numpy as jnp, mha
        >>> from flax import nnx
        >>> layer = mha.MultiHeadAttention(8, 64, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 30, 64)), mask=mha.masks.causal()).shape
        (2, 30, 64)

    With the same weights, the output is that of flax. New arguments: `position`; `head_dim` (size of a head, instead of
    qkv_features / num_heads); `core` (how attention is computed); `head_mask`; `normalizer` (spec of `mha.normalizers`)
    and `softcap`, how logits become weights; `gate`, 'head' or 'channel', which multiplies the output of each head or
    channel by sigmoid(x W), where x are the `inputs_q` (Qiu et al., 2025, arXiv:2505.06708); `mixing`, the spec of a
    mixing of heads (`mha.mixing`), which may depend on the number of the `layer`.

    `position` is a position scheme or its spec. A spec is built for sequences of up to `max_len` tokens, which only
    matters for tables of positions, and for causal masks only if `is_causal`. A layer cannot replace coordinates or add
    to embeddings. Schemes that do so are refused, unless the call passes coordinates, which says that both have been
    done. An encoder whose layers share a scheme passes it with every call.

    Two attributes serve those who look inside (`mha.probes`): `probe` is called with the queries, keys and values of
    every attention, with its scheme, coordinates and mask; `head_mask` is that of the calls that pass none.

    Differences from flax: the output of a query that sees no key is zero, not a mean. Dropout is off unless
    `deterministic` is False, in the constructor or the call, and the call then needs `rngs`. Every weight is dropped
    independently. Inputs have one batch axis. Instead of `precision`, set `jax.default_matmul_precision`; instead of
    `is_causal` in a call, pass `mask=masks.causal()`. There are no arguments for an attention function, dtype
    promotion, sharding or metadata.

    With `decode`, after `init_cache`, a call takes the next one or more tokens of a causal sequence and stores their
    keys, values and coordinates. Keys are stored before position is applied, so schemes whose angles depend on the
    length remain correct. Schemes that sum over the inputs of the layer are refused. If the cache is full, a call
    raises an error or, inside jit, returns NaN."""

    @arguments.checked
    def __init__(
        self,
        num_heads: Count,
        in_features: Count,
        qkv_features: Count | None = None,
        out_features: Count | None = None,
        num_kv_heads: Count | None = None,
        in_kv_features: Count | None = None,
        *,
        head_dim: Count | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        dropout_rate: Decay = 0.0,
        deterministic: bool = True,
        kernel_init: Initializer = LECUN,
        out_kernel_init: Initializer | None = None,
        bias_init: Initializer = ZEROS,
        out_bias_init: Initializer | None = None,
        use_bias: bool = True,
        decode: bool | None = None,
        normalize_qk: bool | str = False,
        position: Position | str | None = None,
        max_len: Length = 2048,
        is_causal: bool = False,
        core: str | cores.Core = 'auto',
        normalizer: str = 'softmax',
        softcap: Spread = 0.0,
        gate: Literal['none', 'head', 'channel'] = 'none',
        mixing: str = 'none',
        layer: int = 0,
        rngs: nnx.Rngs,
    ):
        if head_dim is None:
            head_dim, rest = divmod(qkv_features or in_features, num_heads)
            if rest:
                raise spec.UserError(f'{num_heads} heads do not divide the width {qkv_features or in_features}')
        elif qkv_features not in (None, num_heads * head_dim):
            raise spec.UserError(f'{num_heads} heads of {head_dim} are not qkv_features={qkv_features}')
        num_kv_heads = num_kv_heads or num_heads
        if num_heads % num_kv_heads:
            raise spec.UserError(f'{num_kv_heads} key/value heads do not divide {num_heads} heads')
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.groups, self.kept = num_heads // num_kv_heads, tuple(range(num_heads))  # see `keep`
        self.in_features, self.in_kv_features = in_features, in_kv_features or in_features
        self.out_features = out_features or in_features
        self.dropout_rate, self.deterministic, self.decode = dropout_rate, deterministic, decode
        self.core = cores.make(core)
        self.cached_key = self.cached_value = self.cached_pos = self.cache_index = nnx.data(None)
        self.head_mask: Array | None = nnx.data(None)
        self.head_gates: nnx.Param | None = nnx.data(None)  # parameters of learned gates, see `mha.model.heads`
        self.probe: Callable[..., None] | None = None
        common: dict[str, Any] = dict(
            dtype=dtype, param_dtype=param_dtype, use_bias=use_bias, dot_general=linear, rngs=rngs
        )
        inits: dict[str, Any] = dict(kernel_init=kernel_init, bias_init=bias_init)
        out_inits = dict(kernel_init=out_kernel_init or kernel_init, bias_init=out_bias_init or bias_init)
        self.query = nnx.LinearGeneral(in_features, (num_heads, head_dim), **inits, **common)
        self.key = nnx.LinearGeneral(self.in_kv_features, (num_kv_heads, head_dim), **inits, **common)
        self.value = nnx.LinearGeneral(self.in_kv_features, (num_kv_heads, head_dim), **inits, **common)
        shape = num_heads, head_dim
        self.out = nnx.LinearGeneral(shape, self.out_features, axis=(-2, -1), **out_inits, **common)
        kind = 'layer' if normalize_qk is True else normalize_qk or 'none'  # True as in flax, or the name of a norm
        norm: dict[str, Any] = dict(use_bias=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        map_dim, rest = divmod(head_dim, mixings.kind(mixing).maps)
        if rest:
            raise spec.UserError(
                f'mixing {mixing!r} divides the channels of a head among its maps, but it has {head_dim}'
            )
        self.query_ln = nnx.data(None if kind == 'none' else norms.make(kind, map_dim, **norm))
        self.key_ln = nnx.data(None if kind == 'none' else norms.make(kind, map_dim, **norm))
        self.dims = Dims(in_features, num_heads, map_dim, max_len, is_causal)
        self.position = _scheme(position, self.dims, rngs)
        beside = prng.beside(rngs)
        self.normalizer, self.softcap = normalizers.make(normalizer, self.dims, rngs=beside), softcap
        self.mixing = mixings.make(mixing, self.dims, layer, rngs=beside)
        self.core_parameters: Any = nnx.data(self.core.parameters(self.dims, rngs=beside))
        shape = {'none': (), 'head': (num_heads,), 'channel': (num_heads, head_dim)}[gate]
        common['rngs'] = beside
        self.output_gate = nnx.data(nnx.LinearGeneral(in_features, shape, **inits, **common) if shape else None)

    @property
    def variant(self) -> cores.Variant:
        """Map from logits to weights, for the core."""
        mixing = self.mixing if self.mixing.whole_rows else None
        return cores.Variant(self.normalizer, self.softcap, mixing, self.core_parameters)

    def quadratic(self, position: Position, keys: int) -> bool:
        """Whether a call holds the logits of all pairs in memory."""
        return self.core.quadratic(position, keys, self.variant)

    def __call__(
        self,
        inputs_q: Float[Array, 'B T D'],
        inputs_k: Float[Array, 'B S E'] | KeysValues | None = None,
        inputs_v: Float[Array, 'B S E'] | None = None,
        *,
        mask: MaskLike = None,
        position: Position | None = None,
        q_pos: Num[Array, '#B T'] | None = None,
        k_pos: Num[Array, '#B S'] | None = None,
        head_mask: Num[Array, 'H'] | None = None,
        deterministic: bool | None = None,
        decode: bool | None = None,
        prefix: Bool[Array, '#B N'] | None = None,
        rngs: nnx.Rngs | None = None,
        sow_weights: bool = False,
    ) -> Float[Array, 'B T F']:
        """Output of the layer. `inputs_k` are other inputs to attend to, or their `keys_values`. Coordinates default to
        the slot numbers, counted from the end of the cache when decoding; `prefix` then marks slots whose keys all
        queries see, even before them. `head_mask` multiplies the output of each
        head; 0 removes a head. With `sow_weights`, the attention weights [B, H, T, S] are sown as `nnx.Intermediate`
        named `attention_weights`, to be read with `nnx.capture`."""
        if inputs_k is None and inputs_v is not None:
            raise ValueError('inputs_v needs inputs_k')
        self._check_width('inputs_q', inputs_q, self.in_features)
        if not self.num_heads:
            dtype = self.out.dtype or jnp.result_type(inputs_q, self.out.param_dtype)
            nothing = jnp.zeros((*inputs_q.shape[:2], self.out_features), dtype)
            return nothing if self.out.bias is None else nothing + self.out.bias[...][None, None].astype(dtype)
        inputs_k = inputs_q if inputs_k is None else inputs_k
        deterministic = self.deterministic if deterministic is None else deterministic
        if self.dropout_rate > 0 and not deterministic and rngs is None:
            raise ValueError('dropout draws: pass rngs with a stream for it, or deterministic=True')
        contiguous = q_pos is None and k_pos is None
        if position is None:
            position = self.position
            if contiguous:
                _refuse_placing(position)
        position, mask = _scheme(position, self.dims, nnx.Rngs()), as_mask(mask)
        if self.num_heads < self.dims.heads:
            position = positions.of_heads(position, self.kept, self.dims.heads)
            mask = masks.of_heads(mask, self.kept, self.dims.heads)
        if self.mixing.maps > 1 and position.overrides('values'):
            raise spec.UserError(
                f'position scheme {position.name!r} adds to values of the width of its queries, but under mixing '
                f'{self.mixing.name!r} values are wider'
            )
        if isinstance(inputs_k, KeysValues):
            q, (k, v) = self.query(inputs_q), inputs_k
        else:
            inputs_v = inputs_k if inputs_v is None else inputs_v
            self._check_width('inputs_k', inputs_k, self.in_kv_features)
            self._check_width('inputs_v', inputs_v, self.in_kv_features)
            q, k, v = self.project(inputs_q, inputs_k, inputs_v)
            k = self._normed(k, self.key_ln)
        q = self._normed(q, self.query_ln)
        q_pos = jnp.arange(q.shape[1])[None] if q_pos is None else q_pos
        k_pos = jnp.arange(k.shape[1])[None] if k_pos is None else k_pos
        if decode if decode is not None else self.decode:
            if inputs_k is not inputs_q:
                raise ValueError('decode is for self-attention: leave out inputs_k and inputs_v')
            if not self.mixing.cacheable:
                raise spec.UserError(
                    f'mixing {self.mixing.name!r} relates queries, so that a cache of keys is not enough'
                )
            q, k, v, q_pos, k_pos, mask = self._remember(q, k, v, q_pos, mask, prefix, contiguous)
            contiguous = False
        if self.num_heads == self.groups * self.num_kv_heads > self.num_kv_heads:
            k, v = jnp.repeat(k, self.groups, axis=2), jnp.repeat(v, self.groups, axis=2)
        elif self.num_heads > self.num_kv_heads:  # groups are of different sizes
            k, v = (jnp.take(x, np.array(self._shared), axis=2) for x in (k, v))
        visible, tokens = mask.count(q.shape[1], k.shape[1]), mask.present(q.shape[1], k.shape[1]).sum(-1)
        coords = Coords(q_pos=q_pos, k_pos=k_pos, visible=visible, x=inputs_q, tokens=tokens, contiguous=contiguous)
        if sow_weights and not self.core.has_map:
            raise ValueError(f'core={self.core} forms no attention weights to sow')
        if sow_weights and hasattr(self, '__captures__'):  # without a capture, weights would accumulate in the layer
            call: dict[str, Any] = dict(position=position, coords=coords, mask=mask, variant=self.variant)
            call['scale'] = self.dims.head_dim**-0.5
            maps = [dense.weights(*position.qk(*qk, coords), **call) for qk in self.mixing.split(q, k)]
            self.sow(nnx.Intermediate, 'attention_weights', self.mixing.combine(maps))
        if self.probe is not None:
            self.probe(q, k, v, position=position, coords=coords, mask=mask)
        call = dict(position=position, coords=coords, mask=mask, core=self.core, variant=self.variant)
        call |= dict(dropout_rate=self.dropout_rate, rngs=None if deterministic else rngs)
        parts = [cores.attend(*qk, v, **call) for qk in self.mixing.split(q, k)]
        out = self.mixing.finish(self.mixing.combine(parts))
        if self.output_gate is not None:
            out = out * self.opened(inputs_q).astype(out.dtype)
        head_mask = self.head_mask if head_mask is None else head_mask
        if head_mask is not None:
            out = out * head_mask[None, None, :, None].astype(out.dtype)
        if self.head_gates is not None:
            z = gates.gate(self.head_gates[...], None if deterministic else rngs)
            out = out * z[None, None, :, None].astype(out.dtype)
        return self.out(out)

    def opened(self, inputs_q: Float[Array, 'B T D']) -> Float[Array, 'B T H #K']:
        """Factors of the outputs of heads or channels, for a layer with gates."""
        assert self.output_gate is not None
        gate = jax.nn.sigmoid(self.output_gate(inputs_q))
        return gate if gate.ndim == 4 else gate[..., None]

    def keys_values(self, inputs: Float[Array, 'B S E']) -> KeysValues:
        """Keys and values of inputs that several calls attend to, to be passed as their `inputs_k`."""
        self._check_width('inputs', inputs, self.in_kv_features)
        if not self.num_heads:
            nothing = jnp.zeros((*inputs.shape[:2], 0, self.head_dim), inputs.dtype)
            return KeysValues(nothing, nothing)
        keys = self.key(inputs)
        return KeysValues(self._normed(keys, self.key_ln), self.value(inputs))

    def _normed(self, x: Float[Array, 'B T H K'], norm: Any) -> Float[Array, 'B T H K']:
        """Normalised queries or keys, those of every map for itself."""
        return x if norm is None else norm(x.reshape(*x.shape[:3], self.mixing.maps, -1)).reshape(x.shape)

    def keep(self, heads: Iterable[int]) -> None:
        """Removes all heads but these, numbered as at first. The projections become smaller, and the output is the one
        that a `head_mask` with zeros for the other heads gave before. Without any head, only the bias is left."""
        wanted, shared = set(heads), self._shared
        rows = [row for row, head in enumerate(self.kept) if head in wanted]
        shared_rows = sorted({shared[row] for row in rows})
        for layer, cut in (self.query, rows), (self.key, shared_rows), (self.value, shared_rows):
            layer.out_features = len(cut), self.head_dim
            keep_rows(layer, 'kernel', cut, axis=1)
            keep_rows(layer, 'bias', cut, axis=0)
        self.out.in_features = len(rows), self.head_dim
        if self.output_gate is not None:
            self.output_gate.out_features = len(rows), *self.output_gate.out_features[1:]
            keep_rows(self.output_gate, 'kernel', rows, axis=1)
            keep_rows(self.output_gate, 'bias', rows, axis=0)
        self.normalizer.keep(tuple(rows))
        self.mixing.keep(tuple(rows))
        if self.core_parameters is not None:
            self.core_parameters.keep(tuple(rows))
        keep_rows(self.out, 'kernel', rows, axis=0)
        keep_rows(self, 'head_gates', rows, axis=0)
        if self.head_mask is not None:
            self.head_mask = nnx.data(self.head_mask[np.array(rows, int)])
        self.kept = tuple(self.kept[row] for row in rows)
        self.num_heads, self.num_kv_heads = len(rows), len(shared_rows)

    @property
    def _shared(self) -> list[int]:
        """Index of the key and value head of each head."""
        groups = [head // self.groups for head in self.kept]
        return [sorted(set(groups)).index(group) for group in groups]

    def _check_width(self, name: str, x: Array, width: int) -> None:
        if x.shape[2:] != (width,):
            raise ValueError(f'{name} must be [B, T, {width}], not {x.shape}')

    def project(self, inputs_q: Array, inputs_k: Array, inputs_v: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values, [B, T, H, K] each. Computed in one product if all have the same inputs and number
        of heads."""
        layers = self.query, self.key, self.value
        if not (inputs_q is inputs_k is inputs_v and self.num_heads == self.num_kv_heads):
            q, k, v = (layer(x) for layer, x in zip(layers, (inputs_q, inputs_k, inputs_v), strict=True))
            return q, k, v
        # The axis of heads comes before that of the three kernels, so that a mesh that splits heads splits the product.
        kernel = jnp.stack([layer.kernel[...] for layer in layers], axis=2)
        biases = [layer.bias[...] for layer in layers if layer.bias is not None]
        bias = jnp.stack(biases, axis=1) if biases else None
        x, kernel, bias = self.query.promote_dtype((inputs_q, kernel, bias), dtype=self.query.dtype)
        fused = linear(x, kernel)
        q, k, v = jnp.split(fused if bias is None else fused + bias[None, None], 3, axis=3)
        return q.squeeze(3), k.squeeze(3), v.squeeze(3)

    def init_cache(
        self, input_shape: Sequence[int], dtype: DTypeLike = jnp.float32, *, reach: int | None = None
    ) -> None:
        """Creates an empty cache (`nnx.Cache`) for the keys, values and coordinates of sequences of `input_shape` [B,
        S, D]. Required before decoding; a new call empties the cache. With the `reach` of a mask, keys and values that
        no later query sees are dropped, so that their number does not grow with the sequence."""
        batch, length, _ = input_shape
        room = length if reach is None else min(reach, length)
        shape = (batch, room, self.num_kv_heads, self.head_dim)
        self.cached_key, self.cached_value = nnx.Cache(jnp.zeros(shape, dtype)), nnx.Cache(jnp.zeros(shape, dtype))
        self.cached_pos = nnx.Cache(jnp.zeros((batch, length), jnp.float32))
        self.cache_index = nnx.Cache(jnp.int32(0))

    def _remember(self, q: Array, k: Array, v: Array, q_pos: Array, mask: Mask, prefix: Array | None, contiguous: bool):
        """Stores new keys, values and coordinates in the cache. Returns the queries, the keys and values that they may
        see, the coordinates of both, and the mask of the new queries."""
        if self.cached_key is None or self.cached_value is None or self.cached_pos is None or self.cache_index is None:
            raise ValueError('decode needs room for keys and values: call init_cache first')
        start, (batch, length), new = self.cache_index[...], self.cached_pos.shape, k.shape[1]
        if len(k) != batch or (not isinstance(start, Tracer) and start + new > length):
            raise ValueError(
                f'the cache has room for {batch} sequences of {length} tokens, {start} are in it: '
                f'{k.shape[:2]} do not fit'
            )
        q_pos = q_pos + start if contiguous else q_pos
        new_pos = jnp.broadcast_to(q_pos, k.shape[:2]).astype(jnp.float32)

        def store(cache, x):
            """Entries of a cache that the new queries may see, in the order of slots, which some schemes need."""
            old, x = cache[...], x.astype(cache[...].dtype)
            if old.shape[1] == length:
                cache[...] = seen = jax.lax.dynamic_update_slice_in_dim(old, x, start, axis=1)
            else:  # the oldest make room
                seen = jnp.concatenate([old, x], axis=1)
                cache[...] = seen[:, new:]
            return seen

        k, v = (store(cache, x).astype(x.dtype) for cache, x in ((self.cached_key, k), (self.cached_value, v)))
        k_pos, first = store(self.cached_pos, new_pos), 0
        if self.cached_key.shape[1] != length:
            first = start + new - k.shape[1]
            k_pos = jnp.take(k_pos, first + jnp.arange(k.shape[1]), axis=1, mode='clip')
        self.cache_index[...] = start + new
        q = jnp.where(start + new <= length, q, jnp.nan)  # NaN if the cache overflowed and entries were overwritten
        if not isinstance(mask, explicit):  # arrays already have rows for the new queries only
            mask = later(mask, start, first, length)
        past = causal() if prefix is None else causal() | padding(prefix)
        return q, k, v, q_pos, k_pos, mask & later(past, start, first, length)


def in_tiles(model: nnx.Module) -> nnx.GraphDef:
    """Structure of a model, for the same parameters, whose layers compute softmax attention in tiles. A layer that
    works on whole rows refuses that when it is traced."""
    copy = nnx.merge(*nnx.split(model))
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, MultiHeadAttention) and module.core.has_map:
            module.core = cores.make('blockwise')
    return nnx.split(copy)[0]
