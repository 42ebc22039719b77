"""Position interpolation (Chen et al., 2023, arXiv:2306.15595).

    p <- p / s,   s = new length / trained length

Longer sequences are compressed into the range of positions seen in training.
"""

import math

import jax.numpy as jnp

from mha.arguments import Stretch
from mha.positions.base import Position


class Interpolate(Position):
    """Coordinates divided by `scale` for the scheme that follows: `'pi(scale=4)|rope'`. Applied in both training and
    evaluation, because it is meant for a short training at the new length. Quotients are float32, exact to 24 bits."""

    example = 'scale=4'

    def __init__(self, dims, scale: Stretch, *, rngs):
        self.scale = scale

    def extent(self, length):
        return math.ceil((length - 1) / self.scale) + 1

    def remap(self, pos, *, valid=None, key=None, train=False):
        return pos.astype(jnp.float32) / self.scale
