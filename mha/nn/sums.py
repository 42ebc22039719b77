"""Sums over all later entries of a row, by products with small triangular matrices, which a CPU computes in less time
than `jnp.cumsum`."""

import jax.numpy as jnp
from jaxtyping import Array, Float

BLOCK = 32
"""Number of entries that one product sums."""


def sums_after(x: Float[Array, '*b S']) -> Float[Array, '*b S']:
    """Sum of the entries after each entry. No sums are subtracted, so that small ones stay exact beside large ones."""
    size = x.shape[-1]
    block = min(BLOCK, size)
    count = -(-size // block)
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, count * block - size)]).reshape(*x.shape[:-1], count, block)
    after = _product(x, block)
    if count > 1:
        after = after + _product(x.sum(-1), count)[..., None]
    return after.reshape(*after.shape[:-2], -1)[..., :size]


def _product(x, size):
    # A GPU would round the entries to ten bits.
    return jnp.matmul(x, jnp.tri(size, k=-1, dtype=x.dtype), precision='highest')
