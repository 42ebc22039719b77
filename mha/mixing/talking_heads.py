"""Talking-heads attention (Shazeer et al., 2020, arXiv:2003.02436): heads exchange logits and weights.

z'_g = sum_h z_h P[h, g],   A = softmax(z'),   A'_g = sum_h A_h R[h, g]
"""

import jax.numpy as jnp
from flax import nnx

from mha.mixing.base import Mixing, free


class TalkingHeads(Mixing):
    """Two linear maps over the heads, one before and one after the softmax, both at first the identity."""

    whole_rows = True

    def __init__(self, dims, layer, *, rngs):
        self.before, self.after = nnx.Param(jnp.eye(dims.heads)), nnx.Param(jnp.eye(dims.heads))

    def logits(self, logits, mask):
        seen = free(logits, mask)
        mixed = jnp.einsum('bhts,hg->bgts', jnp.where(seen, logits, 0), self.before[...])
        return jnp.where(seen, mixed, logits)

    def weights(self, weights, mask):
        return jnp.where(mask, jnp.einsum('bhts,hg->bgts', weights, self.after[...]), 0)
