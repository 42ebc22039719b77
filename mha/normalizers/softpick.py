"""Softpick (Zuhri et al., 2025, arXiv:2504.20966), a softmax with exact zeros and no need for a sink.

    A_ij = relu(e^(z_ij) - 1) / (epsilon + sum_l |e^(z_il) - 1|)

Keys with negative logits get no weight but still count in the sum.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import above, at_most
from mha.normalizers.base import Normalizer
from mha.positions.base import BARRED


class Softpick(Normalizer):
    """Weights that sum to at most one. `epsilon` keeps the fraction finite where all logits are 0."""

    def __init__(self, dims, epsilon: Annotated[float, above(0), at_most(1)] = 1e-6, *, rngs):
        self.epsilon = epsilon

    def weights(self, logits, mask, level):
        mask = mask & (logits > BARRED)
        # Both sides of the fraction are multiplied by e^(-top), so that nothing overflows.
        top = jax.lax.stop_gradient(jnp.where(mask, logits, 0).max(-1, keepdims=True, initial=0))
        e = jnp.where(mask, jnp.exp(jnp.where(mask, logits, 0) - top) - jnp.exp(-top), 0)
        return jax.nn.relu(e) / (self.epsilon * jnp.exp(-top) + jnp.abs(e).sum(-1, keepdims=True))
