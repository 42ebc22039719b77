"""Softmax with a sink: a query may attend to nothing.

    A_ij = e^(z_ij) / (e^(s_i) + sum_l e^(z_il))

The sink is like a key with the logit s and a value of zero. Learned, one s per head, in gpt-oss (OpenAI, 2025,
arXiv:2508.10925); with s = 0, the 'softmax1' of Miller (2023, evanmiller.org/attention-is-off-by-one.html).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level
from mha.nn.parameters import keep_rows
from mha.normalizers.base import Normalizer, rowwise


class Sink(Normalizer):
    """Weights that sum to less than one. `kind='head'` learns one s per head, 'query' computes s = w_h . x_i + b_h from
    the input of the layer, and 'fixed' keeps s at `init`. `init` is the start of s; w starts at zero. As s falls, the
    weights become those of the softmax."""

    form = 'softmax'

    def __init__(self, dims, kind: Literal['head', 'query', 'fixed'] = 'head', init: Level = 0.0, *, rngs):
        self.init = init
        self.s = nnx.data(None if kind == 'fixed' else nnx.Param(jnp.full(dims.heads, init)))
        self.w = nnx.data(nnx.Param(jnp.zeros((dims.dim, dims.heads))) if kind == 'query' else None)

    def level(self, coords):
        s = jnp.full((1, 1, 1), self.init) if self.s is None else self.s[...][None, None]
        return s if self.w is None else s + jnp.einsum('btd,dh->bth', coords.x.astype(jnp.float32), self.w[...])

    def weights(self, logits, mask, level):
        logits, level = jnp.where(mask, logits, -1e30), rowwise(level)
        top = jax.lax.stop_gradient(jnp.maximum(logits.max(-1, keepdims=True), level))
        e = jnp.exp(logits - top)
        return e / (e.sum(-1, keepdims=True) + jnp.exp(level - top))

    def keep(self, heads):
        keep_rows(self, 's', heads, axis=0)
        keep_rows(self, 'w', heads, axis=1)
