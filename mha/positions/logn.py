"""Log-length scaling of attention (Chiang and Cholak, 2022, arXiv:2202.12172; Su, 2021, kexue.fm/archives/8823).

    logits_ij <- logits_ij ln(n_i) / ln(length),   n_i = number of keys that query i may see

A softmax over n keys needs logits that grow like ln n to stay equally peaked. The queries are scaled, not the logits,
so biases keep their scale.
"""

import math
from typing import Annotated

import jax.numpy as jnp

from mha.arguments import REACH, at_least, at_most
from mha.positions.base import Position


class Logn(Position):
    """Temperature without parameters, equal to 1 at `length` visible keys: set `length` to the longest trained length
    in tokens. It carries no information about order, so combine it with another scheme: `'logn(length=40)|rope'`. Write
    it first, because it scales all channels that earlier schemes have added to the queries. `floor=True` leaves shorter
    sequences unchanged: max(1, ln(n) / ln(length))."""

    example = 'length=40'

    def __init__(self, dims, length: Annotated[int, at_least(2), at_most(REACH)], floor: bool = False, *, rngs):
        self.length, self.floor = length, floor

    def qk(self, q, k, coords):
        factor = jnp.log(jnp.maximum(coords.visible_by_head, 1).astype(jnp.float32)) / math.log(self.length)
        factor = jnp.maximum(factor, 1) if self.floor else factor
        return (q.astype(jnp.float32) * factor[:, :, :, None]).astype(q.dtype), k
