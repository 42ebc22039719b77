"""SHAPE (Kiyono et al., 2021, arXiv:2109.05644): shifted absolute positions.

    p <- p + c,   c uniform on {0 .. max_shift}, one draw per sequence; in training only

An absolute scheme that follows learns that only differences of positions matter; a relative scheme sees no change.
"""

import jax

from mha.positions.base import Position, required
from mha.spec import Shift


class Shape(Position):
    """Random shift in training for the absolute scheme that follows: `'shape(max_shift=500)|sincos'`. In evaluation,
    positions start at 0; the released code draws shifts below `max_shift` in training and evaluates at `max_shift`."""

    per_example = True

    def __init__(self, dims, max_shift: Shift = 500, *, rngs):
        self.max_shift = max_shift

    def extent(self, length):
        return length + self.max_shift

    def remap(self, pos, *, valid=None, key=None, train=False):
        if not train:
            return pos
        key = required(key)
        return pos + jax.random.randint(key, (pos.shape[0], 1), 0, self.max_shift + 1)
