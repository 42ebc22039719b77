"""CABLE: context-aware biases for length extrapolation (Veisi et al., 2025, arXiv:2503.08067).

    a_t = softplus(x_t W + b) per head,   c_i = a_1 + .. + a_i
    logits_ij <- logits_ij - (c_i - c_j),   which is -(a_(j+1) + .. + a_i)

A linear penalty on distance, where each token computes the distance a_t to its predecessor from the layer's input x.
Two extra channels carry the bias: [-c_i, 1] for the query and [1, c_j] for the key.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.positions.base import Position, add_difference


class Cable(Position):
    """Distances learned from content; causal only. This is the bias of the authors' first released code. Later versions
    of the paper add learned weights on the biases and a bidirectional form. Both are left out, because their formulas
    could not be verified. Distances count slots of the array; coordinates are not read. Published with separate
    parameters in every layer (`position_per_layer=True`).

    `scale=False` does not divide q . k by sqrt(K), as that code does not. Then write it first, because it scales all
    channels that earlier schemes have added to the queries."""

    cacheable = False
    directed = True
    causal_only = True

    def __init__(self, dims, scale: bool = True, *, rngs):
        self.w = nnx.Param(0.02 * jax.random.normal(rngs.params(), (dims.dim, dims.heads)))
        self.b = nnx.Param(jnp.zeros((dims.heads,)))
        self.head_dim, self.scale = dims.head_dim, scale

    def qk(self, q, k, coords):
        if k.shape[1] != coords.x.shape[1]:
            raise ValueError(
                f'cable is for self-attention without a cache, but {coords.x.shape[1]} queries meet {k.shape[1]} keys'
            )
        if not self.scale:  # undoes the 1/sqrt(K) of the logits
            q = (self.head_dim**0.5 * q.astype(jnp.float32)).astype(q.dtype)
        z = jnp.einsum('btd,dh->bth', coords.x.astype(jnp.float32), self.w[...]) + self.b[...][None, None]
        return add_difference(q, k, -jnp.cumsum(jax.nn.softplus(z), axis=1), self.head_dim)
