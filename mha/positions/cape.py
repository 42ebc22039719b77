"""CAPE (Likhomanenko et al., 2021, arXiv:2106.03143): continuous augmented positions.

    p_i <- (p_i + g + e_i) exp(s),   in training only
    g   uniform on [-max_global, max_global], one draw per sequence
    e_i uniform on [-max_local, max_local],   one draw per token; at most 1/2 keeps the order of tokens
    s   uniform on [-ln max_scale, ln max_scale], one draw per sequence

Shifts teach an absolute scheme to rely on distances; jitter and scale teach it not to rely on exact distances.
"""

import math
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import REACH, Stretch, between
from mha.positions.base import Position, required


class Cape(Position):
    """Real-valued positions for whatever function of position follows: `'cape|sincos'` is the published pair. The
    defaults follow the advice of a public package (gcambara/cape) for text; 0, 0, 1 is no augmentation. `centre`
    subtracts the mean position of a sequence first, in evaluation too, as that package does for audio. A table of rows
    is no partner: it rounds what it meets and reads NaN below -1."""

    per_example = True

    def __init__(
        self,
        dims,
        max_global: Annotated[float, between(0, REACH)] = 5.0,
        max_local: Annotated[float, between(0, REACH)] = 0.5,
        max_scale: Stretch = 1.03,
        centre: bool = False,
        *,
        rngs,
    ):
        self.max_global, self.max_local, self.max_scale, self.centre = max_global, max_local, max_scale, centre
        self.cacheable = not centre

    def extent(self, length):
        """Number of coordinates up to the largest position; positions below 0 are not counted."""
        return math.ceil((length - 1 + self.max_global + self.max_local) * self.max_scale) + 1

    def remap(self, pos, *, valid=None, key=None, train=False):
        pos = pos.astype(jnp.float32)
        real = jnp.ones(pos.shape, bool) if valid is None else jnp.broadcast_to(valid, pos.shape)
        if self.centre:
            total = jnp.where(real, pos, 0).sum(-1, keepdims=True)
            pos = pos - total / jnp.maximum(real.sum(-1, keepdims=True), 1)
        if not train:
            return pos
        key = required(key)
        for_shift, for_scale, for_jitter = jax.random.split(key, 3)
        shift = self.max_global * jax.random.uniform(for_shift, (pos.shape[0], 1), minval=-1, maxval=1)
        scale = self.max_scale ** jax.random.uniform(for_scale, (pos.shape[0], 1), minval=-1, maxval=1)
        return (pos + shift + self.max_local * jitter(for_jitter, jnp.cumsum(real, -1) - 1)) * scale


def jitter(key, rank):
    """Uniform numbers on [-1, 1), one per token. Each is drawn from a key of its own, made from the token's rank among
    the real tokens, so that padding does not change it."""

    def draw(key, index):
        return jax.random.uniform(jax.random.fold_in(key, index), minval=-1, maxval=1)

    return jax.vmap(jax.vmap(draw, (None, 0)))(jax.random.split(key, rank.shape[0]), rank)
