"""Attention in plain jnp with the whole [T, S] matrix in memory: the specification of the other cores."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mha.cores.base import PLAIN, Core, Variant, capped
from mha.nn.dropout import dropout
from mha.nn.masks import Mask
from mha.nn.products import accurate, finite, inner, mix
from mha.positions.base import Coords, Position


@dataclasses.dataclass(frozen=True)
class Dense(Core):
    """Specification of softmax attention; differentiable in every mode, to any order."""

    def attend(self, q, k, v, *, position, coords, mask, scale, variant=PLAIN, dropout_rate=0.0, rngs=None):
        a, seen = _rows(q, k, position=position, coords=coords, mask=mask, scale=scale, variant=variant)
        a = dropout(a, dropout_rate, rngs)
        out = mix(a, v.swapaxes(1, 2)).swapaxes(1, 2)
        gain = position.values(a, coords.q_pos, coords.k_pos)
        out = out if gain is None else out + gain.astype(out.dtype)
        return out * seen.swapaxes(1, 2).astype(out.dtype)  # cheaper than multiplying all weights

    def quadratic(self, position, keys, variant=PLAIN):
        return True


def weights(
    q: Float[Array, 'B T H W'],
    k: Float[Array, 'B S H W'],
    *,
    position: Position,
    coords: Coords,
    mask: Mask,
    scale: float,
    variant: Variant = PLAIN,
) -> Float[Array, 'B H T S']:
    """Attention weights A, in float32 or better. Under the softmax, rows sum to one, or to zero if the mask hides every
    key."""
    if k.shape[1] == 0:
        return jnp.zeros((len(q), q.shape[2], q.shape[1], 0), accurate(q, k))
    a, seen = _rows(q, k, position=position, coords=coords, mask=mask, scale=scale, variant=variant)
    return a * seen


def logits(
    q: Float[Array, 'B T H W'],
    k: Float[Array, 'B S H W'],
    *,
    position: Position,
    coords: Coords,
    scale: float,
) -> Float[Array, 'B H T S']:
    """Logits before what works on whole rows, in float32 or better."""
    if position.overrides('product'):
        total = position.product(q * scale, k, coords)
    else:
        total = inner((q * scale).swapaxes(1, 2), k.swapaxes(1, 2))
    pos = coords.q_pos, coords.k_pos
    for term in (position.bias(*pos), position.content(q, finite(k), *pos)):
        if term is not None:
            total = total + term
    return total


def _rows(q, k, *, position, coords, mask, scale, variant):
    """Attention weights, arbitrary in rows without visible keys, and a mask [#B, #H, T, 1] of the rows that have
    some."""
    found = logits(q, k, position=position, coords=coords, scale=scale)
    allowed = mask.dense(q.shape[1], k.shape[1])
    seen = allowed.any(-1, keepdims=True)
    if position.overrides('rows'):
        found = position.rows(jnp.where(allowed, found, 0), allowed, q, coords)
    found = capped(found, variant.softcap)
    if variant.mixing is not None:
        found = variant.mixing.logits(found, allowed)
    if position.overrides('weights'):
        a = position.weights(jnp.where(allowed, found, 0), allowed, q, coords)
    else:
        a = variant.normalizer.weights(found, allowed, variant.normalizer.level(coords))
    return a if variant.mixing is None else variant.mixing.weights(a * seen, allowed), seen
