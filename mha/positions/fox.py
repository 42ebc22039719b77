"""Forgetting attention (Lin et al., 2025, arXiv:2503.02130).

    f_t = sigmoid(x_t W + b) per head,   c_i = ln f_1 + .. + ln f_i
    logits_ij <- logits_ij + c_i - c_j,   which is ln f_(j+1) + .. + ln f_i for j <= i

Each token computes from the layer's input x how much of the past is forgotten when it is read. For causal attention two
extra channels carry the bias: [c_i, 1] for the query and [1, -c_j] for the key.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level, Spread
from mha.positions.base import Position, add_difference


class Fox(Position):
    """Decay learned from content. `bias_init` is the initial b. The default 0, as in the official code, gives f = 0.5
    and forgets within a few tokens; on short tasks prefer 5, which gives f = 0.993. W starts at `init_std`, by default
    D^(-1/2), in the official code 0.02. For encoders we add a bidirectional
    form that is not in the paper: a second set of gates f' forgets the future, ln f'_(i+1) + .. + ln f'_j for j > i.
    That form needs whole rows of logits. Gates follow the slots of the array; coordinates are
    not read. Published with separate parameters in every layer (`position_per_layer=True`)."""

    cacheable = False
    directed = True

    def __init__(
        self, dims, bias_init: Level = 0.0, causal: bool | None = None, init_std: Spread | None = None, *, rngs
    ):
        self.causal = dims.causal if causal is None else causal
        if self.causal and not dims.causal:
            raise ValueError('causal=True needs a causal model: it would favour the far future - leave it out')
        gates = dims.heads if self.causal else 2 * dims.heads
        std = dims.dim**-0.5 if init_std is None else init_std
        self.w = nnx.Param(std * jax.random.normal(rngs.params(), (dims.dim, gates)))
        self.b = nnx.Param(jnp.full((gates,), bias_init))
        self.head_dim = dims.head_dim

    def overrides(self, hook):
        return hook == ('qk' if self.causal else 'rows')

    def qk(self, q, k, coords):
        if not self.causal:
            return q, k
        return add_difference(q, k, self.sums(coords.x, k.shape[1]), self.head_dim)

    def rows(self, logits, mask, q, coords):
        past, future = jnp.split(self.sums(coords.x, logits.shape[3]).swapaxes(1, 2), 2, axis=1)
        return logits + jnp.where(
            jnp.tri(logits.shape[2], dtype=bool)[None, None],
            past[:, :, :, None] - past[:, :, None, :],
            future[:, :, None, :] - future[:, :, :, None],
        )

    def sums(self, x, keys):
        """Sums c of the log gates, [B, T, gates] in float32."""
        if keys != x.shape[1]:
            raise ValueError(f'fox is for self-attention without a cache, but {x.shape[1]} queries meet {keys} keys')
        z = jnp.einsum('btd,dg->btg', x.astype(jnp.float32), self.w[...]) + self.b[...][None, None]
        return jnp.cumsum(jax.nn.log_sigmoid(z), axis=1)
