"""Multi-head attention (Vaswani et al., 2017, arXiv:1706.03762): projections -> core -> output projection."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from mha import cores
from mha.cores import attend, dense
from mha.model import norms
from mha.nn.masks import Mask, as_mask, causal, explicit, later
from mha.nn.products import linear
from mha.positions.base import Coords, Dims, Position

__all__ = ['MultiHeadAttention', 'attend']


class MultiHeadAttention(nnx.Module):
    """Drop-in for `flax.nnx.MultiHeadAttention` on inputs [B, T, D], with a position scheme.

    Given the same weights it gives the same output. It adds `head_dim` (heads of a fixed size instead of
    qkv_features / num_heads), `position` (a scheme for every call; or pass one per call, as the encoder does with the
    scheme its layers share), the choice of `core`, and a `head_mask`.

    With `decode`, after `init_cache`, a call takes the next tokens of a causal sequence, one or many, and remembers
    their keys, values and coordinates. Keys are kept as projected and turned anew in every call, so schemes whose
    angles depend on the length stay right; schemes that sum over the layer's inputs refuse.
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        qkv_features: int | None = None,
        out_features: int | None = None,
        num_kv_heads: int | None = None,
        *,
        head_dim: int | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        dropout_rate: float = 0.0,
        use_bias: bool = True,
        decode: bool | None = None,
        normalize_qk: bool | str = False,
        position: Position | None = None,
        core: str = 'auto',
        rngs: nnx.Rngs,
    ):
        if head_dim is None:
            head_dim, rest = divmod(qkv_features or in_features, num_heads)
            if rest:
                raise ValueError(f'{num_heads} heads do not divide the width {qkv_features or in_features}')
        elif qkv_features not in (None, num_heads * head_dim):
            raise ValueError(f'{num_heads} heads of {head_dim} are not qkv_features={qkv_features}')
        num_kv_heads = num_kv_heads or num_heads
        if num_heads % num_kv_heads:
            raise ValueError(f'{num_kv_heads} key/value heads do not divide {num_heads} heads')
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.dropout_rate, self.core, self.decode = dropout_rate, cores.check(core), decode
        self.cached_key = self.cached_value = self.cached_pos = self.cache_index = nnx.data(None)
        common: dict[str, Any] = dict(
            dtype=dtype, param_dtype=param_dtype, use_bias=use_bias, dot_general=linear, rngs=rngs
        )
        self.query = nnx.LinearGeneral(in_features, (num_heads, head_dim), **common)
        self.key = nnx.LinearGeneral(in_features, (num_kv_heads, head_dim), **common)
        self.value = nnx.LinearGeneral(in_features, (num_kv_heads, head_dim), **common)
        self.out = nnx.LinearGeneral((num_heads, head_dim), out_features or in_features, axis=(-2, -1), **common)
        kind = 'layer' if normalize_qk is True else normalize_qk or 'none'  # flax's switch, or the norm's name
        norm: dict[str, Any] = dict(use_bias=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.query_ln = nnx.data(None if kind == 'none' else norms.make(kind, head_dim, **norm))
        self.key_ln = nnx.data(None if kind == 'none' else norms.make(kind, head_dim, **norm))
        if position is None:
            position = Position(Dims(in_features, num_heads, head_dim, max_len=0), rngs=rngs)
        self.position = position

    def quadratic(self, position: Position, keys: int) -> bool:
        """Whether a call holds the logits of all pairs in memory."""
        return cores.quadratic(self.core, position, keys)

    def __call__(
        self,
        inputs_q: Float[Array, 'B T D'],
        inputs_k: Float[Array, 'B S D'] | None = None,
        inputs_v: Float[Array, 'B S D'] | None = None,
        *,
        mask: Mask | Bool[Array, '#B #H T S'] | None = None,
        position: Position | None = None,
        q_pos: Num[Array, '#B T'] | None = None,
        k_pos: Num[Array, '#B S'] | None = None,
        head_mask: Num[Array, 'H'] | None = None,
        deterministic: bool = True,
        decode: bool | None = None,
        rngs: nnx.Rngs | None = None,
        sow_weights: bool = False,
    ) -> Float[Array, 'B T E']:
        """Coordinates default to the slot numbers, counted on from what the cache holds. `head_mask` multiplies each
        head's output. With `sow_weights` the attention maps [B, H, T, S] are sown as `nnx.Intermediate`: read them with
        `nnx.capture`."""
        if inputs_k is None and inputs_v is not None:
            raise ValueError('inputs_v needs inputs_k')
        inputs_k = inputs_q if inputs_k is None else inputs_k
        inputs_v = inputs_k if inputs_v is None else inputs_v
        if self.dropout_rate > 0 and not deterministic and rngs is None:
            raise ValueError('dropout draws: pass rngs with a stream for it, or deterministic=True')
        q, k, v = self.project(inputs_q, inputs_k, inputs_v)
        if self.query_ln is not None and self.key_ln is not None:
            q, k = self.query_ln(q), self.key_ln(k)
        position, mask = position or self.position, as_mask(mask)
        contiguous = q_pos is None and k_pos is None
        q_pos = jnp.arange(q.shape[1])[None] if q_pos is None else q_pos
        k_pos = jnp.arange(k.shape[1])[None] if k_pos is None else k_pos
        if decode if decode is not None else self.decode:
            if inputs_k is not inputs_q:
                raise ValueError('decode is for self-attention: leave out inputs_k and inputs_v')
            k, v, q_pos, k_pos, mask = self._remember(k, v, q_pos, mask, contiguous)
            contiguous = False
        groups = self.num_heads // self.num_kv_heads
        if groups > 1:
            k, v = jnp.repeat(k, groups, axis=2), jnp.repeat(v, groups, axis=2)
        visible = mask.count(q.shape[1], k.shape[1])
        coords = Coords(q_pos=q_pos, k_pos=k_pos, visible=visible, x=inputs_q, contiguous=contiguous)
        if sow_weights and not cores.has_map(self.core):
            raise ValueError(f'core={self.core} forms no attention weights to sow')
        if sow_weights and hasattr(self, '__captures__'):  # elsewhere maps would pile up in the layer
            turned = position.qk(q, k, coords)
            scale = self.head_dim**-0.5
            self.sow(
                nnx.Intermediate,
                'weights',
                dense.weights(*turned, position=position, coords=coords, mask=mask, scale=scale),
            )
        out = cores.attend(
            q,
            k,
            v,
            position=position,
            coords=coords,
            mask=mask,
            core=self.core,
            dropout_rate=self.dropout_rate,
            rngs=None if deterministic else rngs,
        )
        if head_mask is not None:
            out = out * head_mask[None, None, :, None].astype(out.dtype)
        return self.out(out)

    def project(self, inputs_q: Array, inputs_k: Array, inputs_v: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values, [B, T, H, K] each; by one product where the same inputs give as many of each."""
        layers = self.query, self.key, self.value
        if not (inputs_q is inputs_k is inputs_v and self.num_heads == self.num_kv_heads):
            q, k, v = (layer(x) for layer, x in zip(layers, (inputs_q, inputs_k, inputs_v), strict=True))
            return q, k, v
        # Heads come before the three, so that a mesh that splits the kernels by heads splits the product.
        kernel = jnp.stack([layer.kernel[...] for layer in layers], axis=2)
        biases = [layer.bias[...] for layer in layers if layer.bias is not None]
        bias = jnp.stack(biases, axis=1) if biases else None
        x, kernel, bias = self.query.promote_dtype((inputs_q, kernel, bias), dtype=self.query.dtype)
        fused = linear(x, kernel)
        q, k, v = jnp.split(fused if bias is None else fused + bias[None, None], 3, axis=3)
        return q.squeeze(3), k.squeeze(3), v.squeeze(3)

    def init_cache(self, input_shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> None:
        """Room for sequences of `input_shape` [B, S, D], none of it used."""
        batch, length, _ = input_shape
        shape = (batch, length, self.num_kv_heads, self.head_dim)
        self.cached_key, self.cached_value = nnx.Cache(jnp.zeros(shape, dtype)), nnx.Cache(jnp.zeros(shape, dtype))
        self.cached_pos = nnx.Cache(jnp.zeros((batch, length)))
        self.cache_index = nnx.Cache(jnp.int32(0))

    def _remember(self, k: Array, v: Array, q_pos: Array, mask: Mask, contiguous: bool):
        """All keys and values so far, the coordinates, and the mask of the new queries."""
        if self.cached_key is None or self.cached_value is None or self.cached_pos is None or self.cache_index is None:
            raise ValueError('decode needs room for keys and values: call init_cache first')
        start, (batch, room) = self.cache_index[...], self.cached_pos.shape
        if len(k) != batch or (not isinstance(start, Tracer) and start + k.shape[1] > room):
            raise ValueError(
                f'the cache has room for {batch} sequences of {room} tokens, {start} are in it: '
                f'{k.shape[:2]} do not fit'
            )
        q_pos = q_pos + start if contiguous else q_pos
        new_pos = jnp.broadcast_to(q_pos, k.shape[:2]).astype(jnp.float32)
        for cache, new in ((self.cached_key, k), (self.cached_value, v), (self.cached_pos, new_pos)):
            at = (0, start) + (0,) * (new.ndim - 2)
            cache[...] = jax.lax.dynamic_update_slice(cache[...], new.astype(cache[...].dtype), at)
        self.cache_index[...] = start + k.shape[1]
        mask = mask if isinstance(mask, explicit) else later(mask, start)  # an array has the new queries' rows already
        k, v = self.cached_key[...].astype(k.dtype), self.cached_value[...].astype(v.dtype)
        return k, v, q_pos, self.cached_pos[...], mask & later(causal(), start)
