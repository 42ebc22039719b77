"""Transformer-XL's relative encoding (Dai et al., 2019, arXiv:1901.02860).

    logits = [(q_i + u) . k_j + (q_i + v) . W r(D)] / sqrt(K),   D = p_i - p_j,   r(D) = [sin(D f), cos(D f)],
    f_m = theta^(-2m/pos_dim)

With a = (q_i + v) W, halves a_s and a_c, the angle-difference identities turn the second term into extra channels,

    query: a_s sin(p_i f) + a_c cos(p_i f),  a_c sin(p_i f) - a_s cos(p_i f)     key: cos(p_j f),  sin(p_j f)

so no relative shift is needed and positions may be any real numbers. The gather form evaluates r at each D instead.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.positions.base import Position, angles, frequencies


class TransformerXL(Position):
    """Learned content-position and global biases. `form='factorised'` widens the heads by `pos_dim` channels (the model
    width by default); 'gather' is the same function by way of an array [Q, P, pos_dim], and can `clamp` distances:
    beyond, all are alike. Published with parameters of its own in every layer (`position_per_layer=True`)."""

    directed = True

    def __init__(
        self,
        dims,
        pos_dim: int | None = None,
        theta: float = 10000.0,
        form: Literal['factorised', 'gather'] = 'factorised',
        clamp: float | None = None,
        *,
        rngs,
    ):
        self.pos_dim = dims.dim if pos_dim is None else pos_dim
        if self.pos_dim < 2 or self.pos_dim % 2:
            raise ValueError(f'pos_dim must be even and above 0, not {self.pos_dim}')
        if clamp is not None and (form != 'gather' or clamp <= 0):
            raise ValueError(f"clamp={clamp} must be above 0 and needs form='gather'")
        self.form, self.clamp, self.head_dim = form, clamp, dims.head_dim
        self.frequencies = frequencies(self.pos_dim, theta)
        heads, width = dims.heads, dims.head_dim
        scale = (heads * width) ** -0.5
        self.w = nnx.Param(scale * jax.random.normal(rngs.params(), (heads, width, self.pos_dim)))
        self.u = nnx.Param(0.02 * jax.random.normal(rngs.params(), (heads, width)))
        self.v = nnx.Param(0.02 * jax.random.normal(rngs.params(), (heads, width)))

    def overrides(self, hook):
        return hook == ('qk' if self.form == 'factorised' else 'content')

    def qk(self, q, k, coords):
        if self.form == 'gather':
            return q, k
        q_sin, q_cos = self.waves(coords.q_pos)
        k_sin, k_cos = self.waves(coords.k_pos)
        a_sin, a_cos = jnp.split(self.project(q), 2, axis=-1)
        extra_q = [a_sin * q_sin + a_cos * q_cos, a_cos * q_sin - a_sin * q_cos]
        extra_k = jnp.broadcast_to(jnp.concatenate([k_cos, k_sin], -1), (*k.shape[:-1], self.pos_dim))
        head, rest = jnp.split(q, [self.head_dim], axis=-1)
        head = head + self.u[...][None, None].astype(q.dtype)
        q = jnp.concatenate([head, rest, *[x.astype(q.dtype) for x in extra_q]], axis=-1)
        return q, jnp.concatenate([k, extra_k.astype(k.dtype)], axis=-1)

    def content(self, q, k, q_pos, k_pos):
        if self.form == 'factorised':
            return None
        offset = q_pos[:, :, None] - k_pos[:, None, :]
        offset = offset if self.clamp is None else jnp.clip(offset, -self.clamp, self.clamp)
        r = jnp.concatenate(self.waves(offset.reshape(len(offset), -1)), axis=-1).reshape(*offset.shape, -1)
        if r.shape[0] == 1:  # one row of positions: W r(D) serves all examples
            table = jnp.einsum('hkp,qsp->hqsk', self.w[...], r[0])
            relative = jnp.einsum('bqhk,hqsk->bhqs', q[..., : self.head_dim] + self.v[...][None, None], table)
        else:
            relative = jnp.einsum('bqhp,bqsp->bhqs', self.project(q), r)
        everywhere = jnp.einsum('hk,bshk->bhs', self.u[...], k[..., : self.head_dim].astype(jnp.float32))
        return (relative + everywhere[:, :, None, :]) * self.head_dim**-0.5

    def project(self, q):
        """a = (q + v) W, [B, T, H, pos_dim] in float32."""
        v, w = self.v[...][None, None].astype(q.dtype), self.w[...].astype(q.dtype)
        return jnp.einsum('bthk,hkp->bthp', q[..., : self.head_dim] + v, w).astype(jnp.float32)

    def waves(self, pos):
        """sin and cos of p f, each [#B, T, 1, pos_dim / 2], in float32."""
        turn = angles(pos, self.frequencies)[:, :, None]
        return jnp.sin(turn), jnp.cos(turn)
