"""Differential attention (Ye et al., 2025, arXiv:2410.05258): the difference of two maps cancels what both attend to.

    A = A_1 - lambda A_2,   lambda = exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_0,   lambda_0 = 0.8 - 0.6 e^(-0.3 l)
    out_h = (1 - lambda_0) RMSNorm(A v)

Each head has two maps, from the two halves of the channels of its queries and keys, and one value. l is the number of
the layer, from 0. The four vectors l_q1 .. l_k2 are shared by the heads of a layer, as is the gain of the norm.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level
from mha.mixing.base import Mixing


class Differential(Mixing):
    """Difference of two maps per head. H heads have the width of 2 H heads with one map, so the paper compares with a
    model of twice as many heads. `init` replaces lambda_0. Weights may be negative, and rows sum to 1 - lambda under
    the softmax. Both maps have the same position scheme."""

    maps = 2

    def __init__(self, dims, layer, init: Level | None = None, *, rngs):
        self.init = 0.8 - 0.6 * math.exp(-0.3 * layer) if init is None else init
        self.vectors = nnx.Param(0.1 * jax.random.normal(rngs.params(), (4, dims.head_dim)))
        self.norm = nnx.RMSNorm(2 * dims.head_dim, epsilon=1e-5, rngs=rngs)

    @property
    def factor(self):
        """Factor lambda of the second map."""
        q1, k1, q2, k2 = self.vectors[...]
        return jnp.exp(q1 @ k1) - jnp.exp(q2 @ k2) + self.init

    def combine(self, parts):
        first, second = parts
        return first - self.factor.astype(second.dtype) * second

    def finish(self, out):
        return ((1 - self.init) * self.norm(out)).astype(out.dtype)
