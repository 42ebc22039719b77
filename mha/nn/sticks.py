"""Stick-breaking: a stick of length one is divided among the keys, from the most recent one backwards (Tan et al.,
2024, arXiv:2410.17980). The normalizer and the position scheme of this name share it."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mha.nn.sums import sums_after


def broken(
    logits: Float[Array, 'B H T S'], mask: Bool[Array, '#B #H T S'], remainder: Literal['zero', 'self']
) -> Float[Array, 'B H T S']:
    """Attention weights by stick-breaking. The last visible key is the query's own."""
    slot = jnp.arange(logits.shape[3])[None, None, None]
    own = jnp.where(mask, slot, -1).max(-1, keepdims=True)
    earlier = mask & (slot < own)
    z = jnp.where(earlier, logits, 0)
    a = _shares(z, earlier)
    if remainder == 'zero':
        return a
    left = jnp.where(earlier, jax.nn.softplus(z), 0).sum(-1, keepdims=True)
    return a + jnp.where(slot == own, jnp.exp(-left), 0)


@jax.custom_jvp
def _shares(z, earlier):
    """Shares of the keys that take part. With the derivative written out, the backward pass needs one sum along rows
    and the shares, not all steps of the forward pass again."""
    left = jnp.where(earlier, -jax.nn.softplus(z), 0)  # ln(1 - beta); ln beta is larger by z
    left = jax.lax.optimization_barrier(left)  # otherwise XLA computes it three times
    return jnp.where(earlier, jnp.exp(z + left + sums_after(left)), 0)


@_shares.defjvp
def _tangent(primals, tangents):
    (z, earlier), a, d = primals, _shares(*primals), tangents[0]
    beta_d = jnp.where(earlier, jax.nn.sigmoid(z), 0) * d
    return a, a * (d - beta_d - sums_after(beta_d))
