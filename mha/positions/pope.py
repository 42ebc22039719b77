"""PoPE (Gopalakrishnan et al., 2025, arXiv:2509.10534): channels in polar coordinates, content apart from position.

    q . k = sum_c softplus(q_c) softplus(k_c) cos(D f_c - delta_c),   D = p_i - p_j,   f_c = theta^(-c/K), c = 0 .. K-1

The magnitude of a channel depends on content alone, its angle on position alone; in rotary embedding, the angle depends
on content too. Each channel becomes two, x cos(p f) and x sin(p f) with x = softplus; keys add delta to p f.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Base
from mha.positions.base import Position, angles, frequencies


class PoPE(Position):
    """Polar position embedding. It doubles the width of the heads; the logits' scale stays 1/sqrt(K). The learned
    `delta`, one per head and channel, is clipped to [-2 pi, 0]. While it is 0, as at the start under `init='zeros'`,
    attention is even in D: an encoder has to learn to tell left from right."""

    directed = True

    def __init__(self, dims, theta: Base = 10000.0, init: Literal['zeros', 'uniform'] = 'zeros', *, rngs):
        self.width = dims.head_dim
        self.frequencies = frequencies(2 * self.width, theta)
        shape = (dims.heads, self.width)
        drawn = jax.random.uniform(rngs.params(), shape, minval=-2 * math.pi, maxval=0.0)
        self.delta = nnx.Param(drawn if init == 'uniform' else jnp.zeros(shape))

    def qk(self, q, k, coords):
        delta = self.delta[...]
        # delta starts at a bound, where jnp.clip would halve its gradient.
        delta = jnp.where(delta > 0, 0.0, jnp.where(delta < -2 * math.pi, -2 * math.pi, delta))
        q_angle = angles(coords.q_pos, self.frequencies)[:, :, None]
        k_angle = angles(coords.k_pos, self.frequencies)[:, :, None] + delta[None, None]
        return self.polar(q, q_angle), self.polar(k, k_angle)

    def polar(self, x, angle):
        """x with each channel replaced by its two coordinates; channels that other schemes appended are kept."""
        magnitude = jax.nn.softplus(x[..., : self.width].astype(jnp.float32))
        both = jnp.concatenate([magnitude * jnp.cos(angle), magnitude * jnp.sin(angle)], axis=-1)
        return jnp.concatenate([both.astype(x.dtype), x[..., self.width :]], axis=-1)
