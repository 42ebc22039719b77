"""Scalable softmax (Nakanishi, 2025, arXiv:2501.19399).

    logits_ij <- (s[h] ln n_i + b[h]) logits_ij,   n_i = number of keys that query i may see

A softmax flattens as keys are added; with logits that grow like ln n, its peaks keep their height. The queries are
scaled, not the logits, so biases keep their scale.
"""

import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level
from mha.positions.base import Position


class Ssmax(Position):
    """Learned temperature that grows with the number of visible keys. It carries no information about order, so combine
    it with another scheme: `'ssmax|rope'`. Write it first, because it scales all channels that earlier schemes have
    added to the queries. `bias=True` adds b, initially 0. With the default `init`, s ln n averages 1 for n up to 1024;
    on short sequences, `init` = 1 / ln(length) starts nearer to a plain softmax. Published with separate parameters in
    every layer (`position_per_layer=True`)."""

    def __init__(self, dims, init: Level = 0.168, bias: bool = False, *, rngs):
        self.s = nnx.Param(jnp.full((dims.heads,), init))
        self.b = nnx.Param(jnp.zeros((dims.heads,))) if bias else None

    def qk(self, q, k, coords):
        ln_n = jnp.log(jnp.maximum(coords.visible_by_head, 1).astype(jnp.float32))[:, :, :, None]
        factor = self.s[...][None, None, :, None] * ln_n
        if self.b is not None:
            factor = factor + self.b[...][None, None, :, None]
        return (q.astype(jnp.float32) * factor).astype(q.dtype), k
