"""PaTH attention (Yang et al., 2025, arXiv:2505.16381): the tokens between two others reflect what one reads of the
other.

    logits_ij = q_i . H_i H_(i-1) .. H_(j+1) k_j / sqrt(K),   H_t = I - beta_t w_t w_t^T,   j <= i
    w_t = u / |u|, u = silu(conv3(W_2 W_1 x_t)) per head,   beta_t = 2 sigmoid(x_t . b[h] + c[h])

With Q, K and W the rows q, k and w of a head, all products at once are

    tril(Q K^T) - tril(Q W^T) M tril(W K^T, -1),   M = (I + tril(diag(beta) W W^T, -1))^-1 diag(beta)

which takes one triangular inverse per head. Transitions that depend on the tokens keep track of states, such as
permutations, that no rotation by positions can follow.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level, at_least, at_most
from mha.nn.products import accurate, finite, inner
from mha.nn.triangular import unit_lower_inverse
from mha.positions.base import Position, short_convolution


class Path(Position):
    """Products through generalised Householder matrices; causal only. W_1 has `rank` columns. `bias_init` is the
    initial c; -20 makes all beta 0, which is the scheme `none`. `'path|fox'` also forgets; the released code then
    divides the forget term by sqrt(K), too, and we do not. Reflections follow the slots of the array; coordinates are
    not read. Write it before schemes that append channels. Published with separate parameters in every layer
    (`position_per_layer=True`)."""

    cacheable = False
    directed = True
    causal_only = True

    def __init__(self, dims, rank: Annotated[int, at_least(1), at_most(1024)] = 32, bias_init: Level = 0.0, *, rngs):
        self.heads, self.head_dim = dims.heads, dims.head_dim
        width, normal = dims.heads * dims.head_dim, jax.random.normal
        self.down = nnx.Param(dims.dim**-0.5 * normal(rngs.params(), (dims.dim, rank)))
        self.up = nnx.Param(rank**-0.5 * normal(rngs.params(), (rank, width)))
        self.taps = nnx.Param(jax.random.uniform(rngs.params(), (3, width), minval=-(3**-0.5), maxval=3**-0.5))
        self.b = nnx.Param(dims.dim**-0.5 * normal(rngs.params(), (dims.dim, dims.heads)))
        self.c = nnx.Param(jnp.full(dims.heads, bias_init))

    def reflections(self, coords):
        """Unit vectors w [B, H, T, K] and strengths beta [B, H, T] of the tokens; padding has none."""
        x = finite(coords.x).astype(jnp.float32)
        visible = coords.visible_by_head.max(-1)
        real = (visible > 0)[..., None]  # a query that sees no key is padding
        u = jnp.einsum('btd,dr,rc->btc', x, self.down[...], self.up[...])
        u = jax.nn.silu(short_convolution(u, self.taps[...], visible)).reshape(*x.shape[:2], self.heads, self.head_dim)
        w = u * jax.lax.rsqrt((u**2).sum(-1, keepdims=True) + 1e-12)
        z = jnp.einsum('btd,dh->bth', x, self.b[...]) + self.c[...][None, None]
        beta = jnp.where(real, 2 * jax.nn.sigmoid(z), 0)
        return w.swapaxes(1, 2), beta.swapaxes(1, 2)

    def product(self, q, k, coords):
        if k.shape[1] != coords.x.shape[1]:
            raise ValueError(
                f'path is for self-attention without a cache, but {coords.x.shape[1]} queries meet {k.shape[1]} keys'
            )
        q, k = (x.swapaxes(1, 2).astype(accurate(x)) for x in (q, k))
        (w, beta), width = self.reflections(coords), self.head_dim
        met = jnp.tril(inner(w, finite(k[..., :width])), -1)  # inner(q, k) tells a key that is not finite
        system = jnp.tril(beta[..., None] * inner(w, w), -1)
        moved = unit_lower_inverse(system) @ (beta[..., None] * met)
        return inner(q, k) - jnp.tril(inner(q[..., :width], w)) @ moved
