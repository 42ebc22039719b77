"""Kernelised attention, O(n) in time and memory: a function that differs from softmax attention or approximates it.

    out_i = sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j),    over all keys j, or causally over j <= i

The sums over j do not depend on i or, under a causal mask, only through their upper limit. Feature maps phi:

* 'elu+1': phi(x) = elu(x) + 1 (Katharopoulos et al., 2020, arXiv:2006.16236). Unrelated to the softmax.
* 'performer': phi_m(x) = exp(w_m . x - |x|^2 / 2), with x = q or k over K^(1/4), FAVOR+ (Choromanski et al., 2021,
  arXiv:2009.14794). With w_m ~ N(0, I), the mean over m of phi_m(q) phi_m(k) estimates exp(q . k / sqrt(K)) without
  bias, so that the output tends to that of softmax attention as the number of features grows. Vectors w_m within a
  block of K are orthogonal, which lowers the variance. The variance grows with exp(|q + k|^2), so that peaked attention
  needs many features.

Features are computed as logarithms. Before exponentiation, the largest one of each query is subtracted, and the largest
one of the keys seen so far. Both cancel in the fraction, so nothing overflows and no output depends on a later key.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from mha.arguments import at_least, at_most
from mha.cores.base import PLAIN, Core
from mha.nn import masks
from mha.nn.masks import Mask
from mha.nn.products import finite
from mha.spec import UserError

CHUNK = 128
"""Number of slots that are compared pair by pair under a causal mask; all earlier slots enter through one sum."""
LOWEST = -1e30
"""Logarithm of the features of a hidden key. It is finite, because differences must be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Core):
    """Kernelised attention, under `causal` and `padding` masks. It refuses other masks, dropout, and schemes that do
    more than turn queries and keys."""

    features: Literal['elu+1', 'performer'] = 'elu+1'
    count: Annotated[int, at_least(1), at_most(2**16)] = 256
    """Number of random features of 'performer' per head."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of the random features."""
    has_map = False
    cacheable = False

    def attend(self, q, k, v, *, position, coords, mask, scale, variant=PLAIN, dropout_rate=0.0, rngs=None):
        self.refuse_logits(position, variant, scale, q.shape[-1], dropout_rate)
        causal, seen = read_mask(mask, k.shape[1], 'linear')
        bad = seen[:, :, None] & ~jnp.isfinite(k).all(-1)
        k = finite(k)
        one = jnp.ones((*v.shape[:-1], 1), jnp.float32)  # the weighted sum of ones is the denominator
        q, k, values = (x.astype(jnp.float32) for x in (q, k, jnp.concatenate([v, one], axis=-1)))
        if self.features == 'performer':
            q, k = scale**0.5 * q, scale**0.5 * k
            phi = functools.partial(_performer, w=jnp.asarray(_directions(self.count, q.shape[-1], self.seed)))
        else:
            phi = _elu
        sums = (_causal if causal else _full)(q, k, values, seen[:, :, None, None], phi)
        # Above the floor, the reciprocal of the square is finite. Rows without keys are below it and give 0.
        out = (sums[..., :-1] / jnp.maximum(sums[..., -1:], 1e-18)).astype(v.dtype)
        return jnp.where(meets(bad, causal, q.shape[1])[..., None], jnp.nan, out)


def read_mask(mask: Mask, keys: int, core: str) -> tuple[bool, Bool[Array, '#B S']]:
    """Whether the mask is causal, and the keys that it shows."""
    causal, seen, parts = False, jnp.ones((1, keys), bool), [mask]
    while parts:
        part = parts.pop()
        if isinstance(part, masks.And):
            parts += [part.first, part.second]
        elif isinstance(part, masks.padding):
            seen = seen & part.valid
        elif isinstance(part, masks.causal):
            causal = True
        elif not isinstance(part, masks.full):
            name = type(part).__name__.rstrip('_')
            raise UserError(f'the {core} core sums over all keys or all earlier ones: it has no {name!r} mask')
    return causal, seen


def meets(bad: Bool[Array, 'B S H'], causal: bool, queries: int) -> Bool[Array, 'B #T H']:
    """Whether each query sees a bad key."""
    if not causal:
        return bad.any(1, keepdims=True)
    last = np.minimum(np.arange(queries), bad.shape[1] - 1)
    return lax.cummax(bad.astype(jnp.int32), axis=1)[:, last] > 0


def _elu(x: Float[Array, 'B T H K']) -> Float[Array, 'B T H K']:
    """Logarithm of elu(x) + 1."""
    return jnp.where(x > 0, jnp.log1p(jnp.maximum(x, 0)), x)


def _performer(x: Float[Array, 'B T H K'], w: Float[Array, 'M K']) -> Float[Array, 'B T H M']:
    return jnp.einsum('bthk,mk->bthm', x, w) - (x**2).sum(-1, keepdims=True) / 2


def _directions(count: int, width: int, seed: int) -> Float[np.ndarray, 'M K']:
    """Random vectors with distribution N(0, I), orthogonal within each block of `width` vectors."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(-(-count // width)):
        q, r = np.linalg.qr(rng.standard_normal((width, width)))
        blocks.append(q.T * np.sign(np.diag(r))[:, None])  # without the signs the directions are not uniform
    lengths = np.linalg.norm(rng.standard_normal((count, width)), axis=1)
    return (np.concatenate(blocks)[:count] * lengths[:, None]).astype(np.float32)


def _full(q, k, v, seen, phi):
    """Numerators and denominators [B, T, H, V + 1] of attention to all keys, up to a factor per row."""
    logs = jnp.where(seen, phi(k), LOWEST)
    keys = jnp.where(seen, jnp.exp(logs - lax.stop_gradient(logs.max((1, 3), keepdims=True))), 0)
    return jnp.einsum('bthm,bhmv->bthv', _queries(q, phi), jnp.einsum('bshm,bshv->bhmv', keys, v))


def _causal(q, k, v, seen, phi):
    """Numerators and denominators of attention to keys j <= i: pairs within a chunk, and one sum over all earlier
    chunks."""
    batch, queries, heads, _ = q.shape
    longest = max(queries, k.shape[1])
    size = min(CHUNK, longest)

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, -longest % size + longest - x.shape[1]), (0, 0), (0, 0)))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def step(carry, chunk):
        state, before = carry
        q, k, v, seen = chunk
        logs = jnp.where(seen, phi(k), LOWEST)
        # The level of slot t is the largest logarithm up to t. A key is scaled by its level, and less as it rises.
        level = lax.stop_gradient(jnp.maximum(lax.cummax(logs.max(-1), axis=1), before))
        keys, queries = jnp.where(seen, jnp.exp(logs - level[..., None]), 0), _queries(q, phi)
        rows = level.swapaxes(1, 2)
        fade = jnp.exp(jnp.minimum(rows[:, :, None, :] - rows[:, :, :, None], 0))
        pairs = jnp.einsum('bthm,bshm->bhts', queries, keys) * jnp.tril(fade)
        out = jnp.einsum('bhts,bshv->bthv', pairs, v)
        out += jnp.exp(before - level)[..., None] * jnp.einsum('bthm,bhmv->bthv', queries, state)
        last = level[:, -1:]
        state *= jnp.exp(before - last).swapaxes(1, 2)[..., None]
        state += jnp.einsum('bshm,bshv->bhmv', keys, jnp.exp(level - last)[..., None] * v)
        return (state, last), out

    width = jax.eval_shape(phi, k).shape[-1]
    start = jnp.zeros((batch, heads, width, v.shape[-1]), q.dtype), jnp.full((batch, 1, heads), LOWEST, q.dtype)
    _, out = lax.scan(step, start, tuple(chunks(x) for x in (q, k, v, seen)))
    return jnp.moveaxis(out, 0, 1).reshape(batch, -1, heads, v.shape[-1])[:, :queries]


def _queries(q, phi):
    """Features of queries, scaled so that the largest one is 1."""
    logs = phi(q)
    return jnp.exp(logs - lax.stop_gradient(logs.max(-1, keepdims=True)))
