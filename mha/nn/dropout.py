"""Dropout (Srivastava et al., 2014) at a rate that may be traced. Training passes keys of the cheap generator
(`mha.nn.prng`)."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mha.nn.prng import rows


def dropout(x: Float[Array, '*shape'], rate: float | Float[Array, ''], rngs: nnx.Rngs | None) -> Float[Array, '*shape']:
    """`x` with each entry set to zero with probability `rate` and the others scaled to keep the mean. Draws from the
    stream `dropout` of `rngs`. Without `rngs` or with rate 0, nothing is dropped; a traced rate always draws."""
    if rngs is None or (isinstance(rate, int | float) and rate == 0):
        return x
    share = jnp.asarray(rate, jnp.float32)
    return jnp.where(kept(rngs.dropout(), share, shape=x.shape), x * (1 / (1 - share)).astype(x.dtype), 0)


@functools.partial(jax.jit, static_argnums=2)  # traced once for all layers
def kept(key: PRNGKeyArray, rate: Float[Array, ''], shape: tuple[int, ...]) -> Bool[Array, '*shape']:
    """Mask that is true with probability 1 - rate, independently in each entry. The first axis is that of examples."""
    bits = jax.vmap(lambda key: jax.random.bits(key, shape[1:], 'uint32'))(rows(key, shape[0]))
    return (bits >> 8).astype(jnp.int32) >= jnp.round(rate * 2.0**24).astype(jnp.int32)
