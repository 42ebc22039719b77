"""GRAPE-A: ALiBi with gates (Zhang et al., 2026, arXiv:2512.07805, ICLR 2026).

    b[h, i, j] = -m[h] softplus(w[h]) g_ij D,   D = p_i - p_j,   m[h] the slopes of ALiBi
    query: g_ij = softplus(v[h] . q_i / sqrt(K)),   key: g_ij = softplus(u[h] . k_j / sqrt(K)),   both: their sum

Queries decide how far they look back, and keys how soon they are forgotten.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.positions.base import Position, alibi_slopes


class Grape(Position):
    """Linear penalty on distance that depends on content; causal only. u and v are of length one, w starts where
    softplus(w) = 1. Published with normalised queries and keys (`qk_norm='rms'`) and separate parameters in every layer
    (`position_per_layer=True`). Of the same paper are learned frequencies, `rope(learned='shared')`, and angles that
    sum up over tokens, `selective_rope(scalar=True)`."""

    directed = True
    causal_only = True

    def __init__(self, dims, gate: Literal['query', 'key', 'both'] = 'query', *, rngs):
        self.head_dim, self.slopes = dims.head_dim, alibi_slopes(dims.heads)

        def start():
            return nnx.Param(dims.head_dim**-0.5 * jax.random.normal(rngs.params(), (dims.heads, dims.head_dim)))

        self.v = nnx.data(start() if gate != 'key' else None)
        self.u = nnx.data(start() if gate != 'query' else None)
        self.w = nnx.Param(jnp.full(dims.heads, math.log(math.e - 1)))

    def content(self, q, k, q_pos, k_pos):
        gates = jnp.float32(0)
        if self.v is not None:
            gates = gates + self._gate(self.v[...], q)[:, :, :, None]
        if self.u is not None:
            gates = gates + self._gate(self.u[...], k)[:, :, None, :]
        distance = (q_pos[:, :, None] - k_pos[:, None, :]).astype(jnp.float32)[:, None]
        slope = jnp.asarray(self.slopes) * jax.nn.softplus(self.w[...])
        return -slope[None, :, None, None] * gates * distance

    def _gate(self, direction, x):
        """Gates [B, H, T] of queries or keys."""
        unit = direction / jnp.maximum(jnp.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
        x = x[..., : self.head_dim].astype(jnp.float32)
        return jax.nn.softplus(self.head_dim**-0.5 * jnp.einsum('bthk,hk->bht', x, unit))
