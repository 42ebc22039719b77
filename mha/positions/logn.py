"""Log-length scaling of attention (Chiang and Cholak, 2022, arXiv:2202.12172; Su, 2021, kexue.fm/archives/8823).

    logits_ij <- logits_ij ln(n_i) / ln(length),   n_i = number of keys that query i may see

A softmax over n keys needs logits that grow like ln n to keep its peaks. Done by multiplying the queries, so logits
that are biases, not products with a query, keep their scale.
"""

import math

import jax.numpy as jnp

from mha.positions.base import Position


class Logn(Position):
    """A temperature without parameters, 1 at `length` visible keys: give it the longest trained length in tokens. Knows
    nothing of order, so combine it: `'logn(length=40)|rope'`. Scales whatever stands before it in the queries, so write
    it first. `floor` leaves shorter sequences alone, max(1, ln(n) / ln(length))."""

    example = 'length=40'

    def __init__(self, dims, length: int, floor: bool = False, *, rngs):
        if length < 2:
            raise ValueError(f'length must be at least 2, not {length}')
        self.length, self.floor = length, floor

    def qk(self, q, k, coords):
        factor = jnp.log(jnp.maximum(coords.visible_by_head, 1).astype(jnp.float32)) / math.log(self.length)
        factor = jnp.maximum(factor, 1) if self.floor else factor
        return (q.astype(jnp.float32) * factor[:, :, :, None]).astype(q.dtype), k
