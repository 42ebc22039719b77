"""SHAPE (Kiyono et al., 2021, arXiv:2109.05644): shifted absolute positions.

    p <- p + c,   c uniform on {0 .. max_shift}, one draw per sequence; in training only

An absolute scheme that follows learns that only differences of positions matter; a relative scheme sees no change.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.arguments import Shift
from mha.positions.base import Position, required


class Shape(Position):
    """Random shift in training for the absolute scheme that follows: `'shape(max_shift=500)|sincos'`. In evaluation,
    positions start at 0; the released code draws shifts below `max_shift` in training and evaluates at `max_shift`.
    With 'room', c is uniform on {0 .. max_len - T}, so that a sequence of T tokens can be anywhere within the longest
    one of the run: `"shape(max_shift='room')|learned"`, as released by Huang et al. (2024, arXiv:2410.02140)."""

    per_example = True

    def __init__(self, dims, max_shift: Shift | Literal['room'] = 500, *, rngs):
        self.max_shift, self.max_len = max_shift, dims.max_len

    def extent(self, length):
        return length + self.max_shift if isinstance(self.max_shift, int) else max(length, self.max_len)

    def remap(self, pos, *, valid=None, key=None, train=False):
        if not train:
            return pos
        key, shape = required(key), (pos.shape[0], 1)
        if isinstance(self.max_shift, int):
            return pos + jax.random.randint(key, shape, 0, self.max_shift + 1)
        real = jnp.ones(pos.shape, bool) if valid is None else valid
        room = jnp.maximum(self.max_len - real.sum(-1, keepdims=True), 0)
        return pos + jnp.where(real, jax.random.randint(key, shape, 0, room + 1), 0)
