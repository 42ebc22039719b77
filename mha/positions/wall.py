"""Wall attention (code in fla-org/flash-linear-attention, 2026): every channel of a key is forgotten at its own rate.

    g_t = ln sigmoid(x_t W + b) per head and channel,   P_i = g_1 + .. + g_i
    logits_ij = sum_c q_ic k_jc e^(P_ic - P_jc) / sqrt(K)

Forgetting attention (`fox`) has one gate per head; here each channel has its own, within the product. Written as
(q_i e^(P_i - a)) . (k_j e^(a - P_j)), it needs one product per anchor a. There is one anchor per block of `BLOCK` keys,
the last of its sums P: seen from later queries, both powers are at most 1, and from queries in the block at most
e^(-BLOCK FLOOR), so that nothing overflows, however small the sums become.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level
from mha.positions.base import Position, first_channels

BLOCK = 8
"""Number of keys that share an anchor."""
FLOOR = -10.0
"""Smallest logarithm of a gate. A channel loses at most the factor e^10 from one token to the next."""


class Wall(Position):
    """Gates per channel, learned from content; causal only. `bias_init` is the initial b: 8 gives gates of 0.9997. They
    follow the slots of the array; coordinates are not read. Write it before schemes that append channels. Published
    with separate parameters in every layer (`position_per_layer=True`)."""

    cacheable = False
    directed = True
    causal_only = True

    def __init__(self, dims, bias_init: Level = 8.0, *, rngs):
        self.head_dim, self.scale = dims.head_dim, dims.head_dim**-0.5
        shape = dims.heads, dims.head_dim
        self.w = nnx.Param(dims.dim**-0.5 * jax.random.normal(rngs.params(), (dims.dim, *shape)))
        self.b = nnx.Param(jnp.full(shape, bias_init))

    def qk(self, q, k, coords):
        """Queries and keys with the sums P in further channels, which do not meet in the product."""
        if k.shape[1] != coords.x.shape[1]:
            raise ValueError(
                f'wall is for self-attention without a cache, but {coords.x.shape[1]} queries meet {k.shape[1]} keys'
            )
        first_channels(q, self.head_dim, self.name)
        z = jnp.einsum('btd,dhk->bthk', coords.x.astype(jnp.float32), self.w[...]) + self.b[...][None, None]
        rest = jnp.cumsum(jnp.maximum(jax.nn.log_sigmoid(z), FLOOR), axis=1)
        sums = []
        for _ in range(1 if q.dtype == jnp.float32 else 3):  # several numbers of eight bits make up one of 24
            sums.append(rest.astype(q.dtype))
            rest = rest - sums[-1].astype(jnp.float32)
        sums = jnp.broadcast_to(jnp.concatenate(sums, -1), (*q.shape[:3], len(sums) * self.head_dim))
        nothing = jnp.zeros_like(sums)
        return jnp.concatenate([q, sums, nothing], -1), jnp.concatenate([k, nothing, sums], -1)

    def content(self, q, k, q_pos, k_pos):
        """Change of the logits by the gates."""
        terms, width = 1 if q.dtype == jnp.float32 else 3, self.head_dim
        q, k = q.astype(jnp.float32), k.astype(jnp.float32)
        p_q, p_k = (self._summed(x, first, terms) for x, first in ((q, 1), (k, 1 + terms)))
        q, k, keys = q[..., :width], k[..., :width], k.shape[1]
        pad = [(0, 0), (0, -keys % BLOCK), (0, 0), (0, 0)]
        blocks = [jnp.pad(x, pad, mode=mode) for x, mode in ((k, 'constant'), (p_k, 'edge'))]
        k_blocks, p_blocks = (x.reshape(len(x), -1, BLOCK, *x.shape[2:]) for x in blocks)
        anchors = jax.lax.stop_gradient(p_blocks.min(2))  # they cancel
        near = k_blocks * jnp.exp(anchors[:, :, None] - p_blocks)
        # Queries before the block see none of it; the limit keeps their powers finite.
        far = q[:, :, None] * jnp.exp(jnp.minimum(p_q[:, :, None] - anchors[:, None], -BLOCK * FLOOR))
        gated = jnp.einsum('bqnhk,bnphk->bhqnp', far, near).reshape(len(q), q.shape[2], q.shape[1], -1)[..., :keys]
        return self.scale * (gated - jnp.einsum('bqhk,bphk->bhqp', q, k))

    def _summed(self, x, first, terms):
        """Sums P from the channels of a query or key: `terms` times K channels from `first` times K on."""
        parts = x[..., self.head_dim * first : self.head_dim * (first + terms)]
        return parts.reshape(*x.shape[:3], terms, self.head_dim).sum(3)
