"""Transformer-XL's relative encoding (Dai et al., 2019, arXiv:1901.02860).

    logits = [(q_i + u) . k_j + (q_i + v) . W r(D)] / sqrt(K),   D = p_i - p_j,   r(D) = [sin(D f), cos(D f)],
    f_m = theta^(-2m/pos_dim)

With a = (q_i + v) W and its halves a_s and a_c, the angle-difference identities turn the second term into extra
channels

    query: a_s sin(p_i f) + a_c cos(p_i f),  a_c sin(p_i f) - a_s cos(p_i f)     key: cos(p_j f),  sin(p_j f)

so that no relative shift is needed and positions may be any real numbers. If many examples share their positions,
computing W r(D) of every pair, [H, Q, P, K], once for all of them is cheaper.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Base, Even, Reach
from mha.nn.products import inner, linear
from mha.positions.base import Position, angles, frequencies


class TransformerXL(Position):
    """Learned content-position and global biases. `form='content'` adds them to the logits of q . k, by the cheaper of
    the two computations. 'channels' widens the heads of queries and keys by `pos_dim` channels (by default the model
    width): every core supports it, including the fastest, but short sequences take twice the time. Distances beyond
    `clamp` count as `clamp`. Published with separate parameters in every layer (`position_per_layer=True`)."""

    directed = True

    def __init__(
        self,
        dims,
        pos_dim: Even | None = None,
        theta: Base = 10000.0,
        form: Literal['content', 'channels'] = 'content',
        clamp: Reach | None = None,
        *,
        rngs,
    ):
        self.pos_dim = dims.dim if pos_dim is None else pos_dim
        if self.pos_dim < 2 or self.pos_dim % 2:
            raise ValueError(f'pos_dim must be even and above 0, not {self.pos_dim}')
        if clamp is not None and form != 'content':
            raise ValueError(f"clamp={clamp} needs form='content'")
        self.form, self.clamp, self.head_dim = form, clamp, dims.head_dim
        self.frequencies = frequencies(self.pos_dim, theta)
        heads, width = dims.heads, dims.head_dim
        scale = (heads * width) ** -0.5
        self.w = nnx.Param(scale * jax.random.normal(rngs.params(), (heads, width, self.pos_dim)))
        self.u = nnx.Param(0.02 * jax.random.normal(rngs.params(), (heads, width)))
        self.v = nnx.Param(0.02 * jax.random.normal(rngs.params(), (heads, width)))

    def overrides(self, hook):
        return hook == ('qk' if self.form == 'channels' else 'content')

    def qk(self, q, k, coords):
        if self.form == 'content':
            return q, k
        wide_q, wide_k = self.channels(q, coords.q_pos, coords.k_pos)
        wide_k = jnp.broadcast_to(wide_k, (*k.shape[:-1], self.pos_dim))
        head, rest = jnp.split(q, [self.head_dim], axis=-1)
        head = head + self.u[...][None, None].astype(q.dtype)
        q = jnp.concatenate([head, rest, wide_q.astype(q.dtype)], axis=-1)
        return q, jnp.concatenate([k, wide_k.astype(k.dtype)], axis=-1)

    def content(self, q, k, q_pos, k_pos):
        if self.form == 'channels':
            return None
        batch, rows, width = len(q), max(len(q_pos), len(k_pos)), self.head_dim
        scale = width**-0.5  # applied to small operands instead of all pairs
        shared_is_cheaper = rows == 1 and (batch + self.pos_dim) * width < batch * self.pos_dim
        if self.clamp is None and not shared_is_cheaper:
            wide_q, wide_k = self.channels(q, q_pos, k_pos)
            wide_k = jnp.broadcast_to(wide_k.squeeze(2), (batch, len(k_pos[0]), self.pos_dim))
            relative = jnp.einsum('bqhp,bsp->bhqs', scale * wide_q, wide_k)
        else:
            offset = q_pos[:, :, None] - k_pos[:, None, :]
            offset = offset if self.clamp is None else jnp.clip(offset, -self.clamp, self.clamp)
            r = jnp.concatenate(self.waves(offset.reshape(rows, -1)), axis=-1).reshape(*offset.shape, -1)
            if rows == 1:
                table = linear(r[0], scale * self.w[...].transpose(2, 0, 1)).transpose(2, 0, 1, 3)
                relative = inner(self.biased(q).transpose(2, 1, 0, 3), table).transpose(2, 0, 1, 3)
            else:
                relative = jnp.einsum('bqhp,bqsp->bhqs', scale * self.project(q), r)
        u = jnp.broadcast_to(scale * self.u[...][:, None], (batch, len(self.u), 1, width))
        return relative + inner(u, k[..., :width].astype(jnp.float32).swapaxes(1, 2))

    def channels(self, q, q_pos, k_pos):
        """Extra channels of the queries, [B, T, H, pos_dim], and of the keys, [#B, S, 1, pos_dim], in float32."""
        (q_sin, q_cos), (k_sin, k_cos) = self.waves(q_pos), self.waves(k_pos)
        a_sin, a_cos = jnp.split(self.project(q), 2, axis=-1)
        turned = [a_sin * q_sin + a_cos * q_cos, a_cos * q_sin - a_sin * q_cos]
        return jnp.concatenate(turned, axis=-1), jnp.concatenate([k_cos, k_sin], axis=-1)

    def biased(self, q):
        """Sums q + v, [B, T, H, K] in float32."""
        return (q[..., : self.head_dim] + self.v[...][None, None].astype(q.dtype)).astype(jnp.float32)

    def project(self, q):
        """Products a = (q + v) W, [B, T, H, pos_dim] in float32."""
        return jnp.einsum('bthk,hkp->bthp', self.biased(q), self.w[...])

    def waves(self, pos):
        """Sines and cosines of p f, each [#B, T, 1, pos_dim / 2], in float32."""
        turn = angles(pos, self.frequencies)[:, :, None]
        return jnp.sin(turn), jnp.cos(turn)
