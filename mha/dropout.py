"""Dropout (Srivastava et al., 2014) with cheap randomness: a hash of an entry's index and a key.

Drawn with Threefry, as in `nnx.Dropout`, the bits take a seventh of a small model's training step on a CPU; these are
computed where they are used, in the forward and in the backward pass, and never stored.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def dropout(x: Float[Array, '*shape'], rate: float | Float[Array, ''], rngs: nnx.Rngs | None) -> Float[Array, '*shape']:
    """Zeroes each entry with probability `rate` and scales the rest to keep the mean. Off for rate 0, and without
    `rngs`, whose stream `dropout` it draws from. A traced rate always draws."""
    if rngs is None or (isinstance(rate, int | float) and rate == 0):
        return x
    share = jnp.asarray(rate, jnp.float32)
    return jnp.where(kept(rngs.dropout(), share, shape=x.shape), x * (1 / (1 - share)).astype(x.dtype), 0)


@functools.partial(jax.jit, static_argnames='shape')  # traced once for all layers
def kept(key: PRNGKeyArray, rate: Float[Array, ''], shape: tuple[int, ...]) -> Bool[Array, '*shape']:
    """True with probability 1 - rate, for each entry on its own."""
    first, second = jax.random.key_data(key).reshape(-1)[-2:]
    index = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    bits = _mixed(_mixed(index + first) ^ second)
    return (bits >> 8).astype(jnp.int32) >= jnp.round(rate * 2.0**24).astype(jnp.int32)


def _mixed(x):
    """A permutation of the 32-bit numbers that changes half of the bits where one changes: Wellons' `lowbias32`."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
