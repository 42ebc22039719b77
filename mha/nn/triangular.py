"""Triangular systems by products of blocks, which run in parallel and need no library of linear algebra.

    [A 0]^-1   [   A^-1         0  ]
    [B C]    = [-C^-1 B A^-1  C^-1 ]

Blocks are inverted from size 1 on, and pairs of them become one of twice the size.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def unit_lower_inverse(lower: Float[Array, '*b T T']) -> Float[Array, '*b T T']:
    """Inverse of I + L, for L with zeros on and above the diagonal."""
    size = lower.shape[-1]
    padded = 1 << max(size - 1, 0).bit_length()
    batch, room = lower.shape[:-2], padded - size
    lower = jnp.pad(lower, [*[(0, 0)] * len(batch), (0, room), (0, room)])
    inverse, block = jnp.ones((*batch, padded, 1, 1), lower.dtype), 1
    while block < padded:
        pairs = padded // (2 * block)
        tiles = lower.reshape(*batch, pairs, 2, block, pairs, 2, block)
        index = jnp.arange(pairs)
        below = jnp.moveaxis(tiles[..., :, 1, :, :, 0, :], -2, -3)[..., index, index, :, :]  # B of each pair
        first, second = jnp.moveaxis(inverse.reshape(*batch, pairs, 2, block, block), -3, 0)
        corner = -second @ below @ first
        top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverse, block = jnp.concatenate([top, jnp.concatenate([corner, second], axis=-1)], axis=-2), 2 * block
    return inverse[..., 0, :size, :size]
