"""KERPLE: kernelized relative positional embedding (Chi et al., 2022, arXiv:2205.09921).

    'log':     b[h, i, j] = -r1 ln(1 + r2 |D|)        D = p_i - p_j
    'power':   b[h, i, j] = -r1 |D|^r2,               r2 < 2
    weighted:  logits = exp(-r3 |D|^r4) q . k / sqrt(K) + b,   r4 < 2

Every head has its own r > 0. Initial values are drawn as published: in 'log', r1 from U(0, 2) and r2 from U(0, 1); in
'power', factors from U(0, 1) and exponents from U(0, 2).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.positions.base import OffsetBias


class Kerple(OffsetBias):
    """Learned penalty that grows slowly with distance, shared by all layers as published. It cannot tell left from
    right. `weighted=True`, for `kind='power'` only, also makes the products q . k decay with distance.

    The released code clamps r to at least 0.01 and exponents to at most 2. We learn s with r = softplus(s), or
    r = 2 sigmoid(s) for exponents, so that gradients do not vanish at a bound."""

    def __init__(self, dims, kind: Literal['log', 'power'] = 'log', weighted: bool = False, *, rngs):
        if weighted and kind != 'power':
            raise ValueError(f"weighted=True needs kind='power', not {kind!r}")
        self.kind, self.weighted, self.scale = kind, weighted, dims.head_dim**-0.5

        def start(inverse, high):
            return nnx.Param(inverse(jax.random.uniform(rngs.params(), (dims.heads,), minval=0.01, maxval=high - 0.01)))

        self.s1 = start(inverse_softplus, 2.0 if kind == 'log' else 1.0)
        self.s2 = start(inverse_softplus, 1.0) if kind == 'log' else start(inverse_exponent, 2.0)
        if weighted:
            self.s3, self.s4 = start(inverse_softplus, 1.0), start(inverse_exponent, 2.0)

    def overrides(self, hook):
        return self.weighted if hook == 'content' else super().overrides(hook)

    def offset_bias(self, offset):
        r1 = per_head(jax.nn.softplus(self.s1[...]), offset)
        if self.kind == 'power':
            return -r1 * power(offset, self.s2)
        r2 = per_head(jax.nn.softplus(self.s2[...]), offset)
        return -r1 * jnp.log1p(r2 * jnp.abs(offset).astype(jnp.float32)[None])

    def content(self, q, k, q_pos, k_pos):
        """Change of the logits by the decay of the products q . k, which the logits already contain in full."""
        if not self.weighted:
            return None
        offset = q_pos[:, :, None] - k_pos[:, None, :]
        fading = jnp.expm1(-per_head(jax.nn.softplus(self.s3[...]), offset) * power(offset, self.s4))
        dot = jnp.einsum('bqhk,bphk->bhqp', q, k, preferred_element_type=jnp.float32)
        return self.scale * dot * jnp.moveaxis(fading, 0, 1)


def per_head(r, offset):
    """r [H] reshaped to [H, 1, ..], with an axis of size 1 for each axis of the offsets."""
    return r.reshape(-1, *[1] * offset.ndim)


def power(offset, s):
    """Powers |D|^r with r = 2 sigmoid(s), [H, ..]."""
    distance = jnp.abs(offset).astype(jnp.float32)[None]
    there = distance > 0
    # ln 0 has no gradient, not even behind a `where`.
    log = jnp.log(jnp.where(there, distance, 1.0))
    return jnp.where(there, jnp.exp(per_head(2 * jax.nn.sigmoid(s[...]), offset) * log), 0.0)


def inverse_softplus(r):
    return jnp.log(jnp.expm1(r))


def inverse_exponent(r):
    return jax.scipy.special.logit(r / 2)
