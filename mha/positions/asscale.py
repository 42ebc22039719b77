"""Adaptive scale of ASEntmax (Vasylenko et al., 2025, arXiv:2506.16640): a temperature that each query computes.

    logits_ij <- (1 + beta_i L_i^gamma_i) logits_ij,   L_i = ln(n_i + 1),   n_i = number of keys that query i may see
    beta_i = softplus(x_i . u[h]),   gamma_i = 2 tanh(x_i . w[h])

The queries are scaled, not the logits, so biases keep their scale.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.positions.base import Position


class AsScale(Position):
    """Learned temperature that depends on the query and the number of visible keys. It carries no information about
    order. Published with the normalizer `entmax` and, as `heads='far'`, in the heads without positions of `nape`, the
    second half, alone: `'asscale(heads="far")|nape'`. Write it first, because it scales all channels that earlier
    schemes have added to the queries. Published with separate parameters in every layer
    (`position_per_layer=True`)."""

    def __init__(self, dims, heads: Literal['all', 'far'] = 'all', *, rngs):
        def start():
            return nnx.Param(dims.dim**-0.5 * jax.random.normal(rngs.params(), (dims.dim, dims.heads)))

        self.u, self.w = start(), start()
        self.near = dims.heads // 2 if heads == 'far' else 0

    def qk(self, q, k, coords):
        x = coords.x.astype(jnp.float32)
        beta = jax.nn.softplus(jnp.einsum('btd,dh->bth', x, self.u[...]))
        gamma = 2 * jnp.tanh(jnp.einsum('btd,dh->bth', x, self.w[...]))
        length = jnp.log(coords.visible_by_head.astype(jnp.float32) + 1)
        power = jnp.exp(gamma * jnp.log(jnp.maximum(length, jnp.log(2.0))))  # a query without keys has no say
        factor = jnp.where(jnp.arange(q.shape[2]) < self.near, 1, 1 + beta * power)
        return (q.astype(jnp.float32) * factor[..., None]).astype(q.dtype), k
