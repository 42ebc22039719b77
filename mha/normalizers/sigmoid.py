"""Sigmoid attention (Ramapuram et al., 2025, arXiv:2409.04431): A_ij = sigmoid(z_ij + b), without a sum over keys."""

import jax
import jax.numpy as jnp

from mha.arguments import Level
from mha.normalizers.base import Normalizer, rowwise


class Sigmoid(Normalizer):
    """Weights of each key for itself. With the default `bias`, b = -ln n_i for the n_i keys that query i sees, so that
    the weights sum to about one at the start. The paper has n = length of all training sequences: `bias=-6.9` for
    n = 1,000."""

    form = 'pointwise'

    def __init__(self, dims, bias: Level | None = None, *, rngs):
        self.bias = bias

    def level(self, coords):
        if self.bias is not None:
            return jnp.full((1, 1, 1), self.bias)
        return -jnp.log(jnp.maximum(coords.visible_by_head, 1).astype(jnp.float32))

    def weigh(self, logits):
        return jax.nn.sigmoid(logits)

    def weights(self, logits, mask, level):
        return jnp.where(mask, self.weigh(jnp.where(mask, logits + rowwise(level), 0)), 0)
