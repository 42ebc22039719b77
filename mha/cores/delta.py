"""Gated delta rule: a recurrent memory in the place of attention (Yang et al., 2025, arXiv:2412.06464; ungated, Schlag
et al., 2021, arXiv:2102.11174).

    S_t = a_t (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T,   out_t = S_t^T q_t / sqrt(K)
    b_t = sigmoid(x_t . w[h]),   a_t = exp(-A[h] softplus(x_t . u[h] + c[h])),   |q_t| = |k_t| = 1

A token overwrites what the memory S holds under its key, by the share b, and lets the rest fade by a. With b up to 2,
the matrix has negative eigenvalues, which permutations need (Grazzi et al., 2025, arXiv:2411.12537).

Computed in chunks (Yang et al., 2024, arXiv:2406.06484). With G_t = a_1 .. a_t within a chunk and the memory S before
it,

    u_s + b_s sum_(r<s) G_s / G_r (k_s . k_r) u_r = b_s (v_s - G_s S^T k_s)
    out_t = G_t S^T q_t + sum_(s<=t) G_t / G_s (q_t . k_s) u_s

in which no fraction exceeds 1.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mha.cores.base import PLAIN, Core
from mha.cores.linear import meets, read_mask
from mha.nn.parameters import keep_rows
from mha.nn.products import finite
from mha.nn.triangular import unit_lower_inverse
from mha.positions.base import Dims
from mha.spec import UserError

CHUNK = 32
"""Number of slots in a chunk."""


class Rates(nnx.Module):
    """Parameters of the rates b and a of a layer. A and c start as in the released code."""

    def __init__(self, dims: Dims, gated: bool, *, rngs: nnx.Rngs):
        shape, normal = (dims.dim, dims.heads), functools.partial(jax.random.normal, dtype=jnp.float32)
        self.w = nnx.Param(dims.dim**-0.5 * normal(rngs.params(), shape))
        self.u = self.log_a = self.c = nnx.data(None)
        if gated:
            self.u = nnx.data(nnx.Param(dims.dim**-0.5 * normal(rngs.params(), shape)))
            a, dt = (jax.random.uniform(rngs.params(), (dims.heads,), jnp.float32) for _ in range(2))
            self.log_a = nnx.data(nnx.Param(jnp.log(16 * a + 1e-4)))
            self.c = nnx.data(nnx.Param(jnp.log(jnp.expm1(1e-3 * 100**dt))))  # softplus(c) from .001 to .1

    def __call__(self, x: Float[Array, 'B T D']) -> tuple[Float[Array, 'B T H'], Float[Array, 'B T H']]:
        """Shares b between 0 and 1, and logarithms of a."""
        x = x.astype(jnp.float32)
        b = jax.nn.sigmoid(jnp.einsum('btd,dh->bth', x, self.w[...]))
        if self.u is None or self.log_a is None or self.c is None:
            return b, jnp.zeros_like(b)
        z = jnp.einsum('btd,dh->bth', x, self.u[...]) + self.c[...][None, None]
        return b, -jnp.exp(self.log_a[...])[None, None] * jax.nn.softplus(z)

    def keep(self, heads: tuple[int, ...]) -> None:
        """Removes the parameters of all heads but these."""
        for name in ('w', 'u', 'log_a', 'c'):
            keep_rows(self, name, heads, axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delta(Core):
    """Recurrent memory with the delta rule, causal, O(n) in time and memory. `gated=False` has a = 1, `negative=True` b
    between 0 and 2. It refuses masks but causal and padding, dropout, and schemes that do more than turn queries and
    keys; factors of queries and keys cancel in their norms. Left out of the released layer: short convolutions and SiLU
    of queries, keys and values, and the norm and gate of the outputs (for a gate, `model.gate='channel'`)."""

    gated: bool = True
    negative: bool = True
    has_map = False
    cacheable = False

    def parameters(self, dims, *, rngs):
        return Rates(dims, self.gated, rngs=rngs)

    def attend(self, q, k, v, *, position, coords, mask, scale, variant=PLAIN, dropout_rate=0.0, rngs=None):
        rates = variant.parameters
        if not isinstance(rates, Rates):
            raise UserError('the delta core learns rates: use a layer, such as mha.MultiHeadAttention(core=..)')
        self.refuse_logits(position, variant, scale, q.shape[-1], dropout_rate)
        causal, seen = read_mask(mask, k.shape[1], 'delta')
        if not causal:
            raise UserError('the delta core reads tokens in order - set model.causal=True')
        if q.shape[1] != k.shape[1]:
            raise UserError('the delta core is for self-attention without a cache')
        b, log_a = rates(finite(coords.x))
        seen = seen[:, :, None]
        bad = seen & ~(jnp.isfinite(k).all(-1) & jnp.isfinite(coords.x).all(-1, keepdims=True))
        b, log_a = jnp.where(seen, 2 * b if self.negative else b, 0), jnp.where(seen, log_a, 0)
        q, k = _unit(q), jnp.where(seen[..., None], _unit(finite(k)), 0)
        out = _scan(scale * q, k, v.astype(jnp.float32), b, log_a)[:, : q.shape[1]]
        out = jnp.where(jnp.cumsum(seen, axis=1)[..., None] > 0, out, 0).astype(v.dtype)
        return jnp.where(meets(bad, True, q.shape[1])[..., None], jnp.nan, out)


def _unit(x):
    x = x.astype(jnp.float32)
    return x * lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-6)


def _scan(q, k, v, b, log_a):
    """Outputs [B, T, H, V], padded to whole chunks."""
    length = q.shape[1]
    size = min(CHUNK, length)

    def chunks(x):
        x = jnp.pad(x, [(0, 0), (0, -length % size)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), (1, 3), (0, 2))  # [N, B, H, C, ..]

    @jax.checkpoint
    def step(memory, chunk):
        q, k, v, b, log_a = chunk
        g = jnp.cumsum(log_a, axis=-1)
        fade = jnp.exp(jnp.minimum(g[..., :, None] - g[..., None, :], 0))
        since, along = jnp.exp(g)[..., None], k.swapaxes(-1, -2)
        inverse = unit_lower_inverse(jnp.tril(b[..., None] * fade * (k @ along), -1))
        u = inverse @ (b[..., None] * (v - since * (k @ memory)))
        out = since * (q @ memory) + jnp.tril(fade * (q @ along)) @ u
        left = jnp.exp(g[..., -1:] - g)[..., None]
        return since[..., -1:, :] * memory + along @ (left * u), out

    start = jnp.zeros((len(q), q.shape[2], k.shape[3], v.shape[3]), jnp.float32)
    _, out = lax.scan(step, start, tuple(chunks(x) for x in (q, k, v, b, log_a)))
    return jnp.moveaxis(out, (0, 2), (1, 3)).reshape(len(q), -1, q.shape[2], v.shape[3])
