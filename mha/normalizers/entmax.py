"""Entmax (Peters et al., 2019, arXiv:1905.05702; for attention, Correia et al., 2019, arXiv:1909.00015): a softmax with
exact zeros.

    A_ij = max((alpha - 1) z_ij - tau_i, 0)^(1 / (alpha - 1)),   tau_i such that sum_j A_ij = 1

alpha = 1 is the limit of the softmax, alpha = 2 is sparsemax (Martins & Astudillo, 2016, arXiv:1602.02068). The
derivative, with s = A^(2 - alpha) where A > 0, is dA = s (dz - <s, dz> / <s, 1>).
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import above, at_most
from mha.normalizers.base import Normalizer

STEPS = 30
"""Steps of the bisection for tau."""


class Entmax(Normalizer):
    """Weights that sum to one, many of them zero. `alpha=1.5` and `alpha=2` are exact, by sorting; others by bisection,
    to about 1e-6. The published combination for long sequences is with the schemes `asscale` and `nape` (Vasylenko et
    al., 2025, arXiv:2506.16640)."""

    def __init__(self, dims, alpha: Annotated[float, above(1), at_most(4)] = 1.5, *, rngs):
        self.alpha = alpha

    def weights(self, logits, mask, level):
        return entmax(self.alpha, jnp.where(mask, logits, -1e30))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def entmax(alpha, logits):
    """Weights along the last axis."""
    z = (alpha - 1) * (logits - logits.max(-1, keepdims=True))
    tau = {1.5: _tau_15, 2.0: _tau_2}.get(alpha, functools.partial(_tau, alpha))(z)
    weights = jnp.maximum(z - tau, 0) ** (1 / (alpha - 1))
    return weights / weights.sum(-1, keepdims=True)


@entmax.defjvp
def _tangent(alpha, primals, tangents):
    weights, (d,) = entmax(alpha, *primals), tangents
    s = jnp.where(weights > 0, jnp.where(weights > 0, weights, 1) ** (2 - alpha), 0)
    return weights, s * (d - (s * d).sum(-1, keepdims=True) / s.sum(-1, keepdims=True))


def _tau_2(z):
    """Threshold of sparsemax: the one for the largest k such that the k-th largest number is above it."""
    ordered = -jnp.sort(-z, axis=-1)
    rank = 1 + jax.lax.broadcasted_iota(z.dtype, z.shape, z.ndim - 1)
    tau = (jnp.cumsum(ordered, -1) - 1) / rank
    return _at_support(ordered, tau)


def _tau_15(z):
    """Threshold of 1.5-entmax: sum over the k largest of (z - tau)^2 = 1, a quadratic equation."""
    ordered = -jnp.sort(-jnp.maximum(z, -1), axis=-1)  # numbers below max - 1 are never in the support
    rank = 1 + jax.lax.broadcasted_iota(z.dtype, z.shape, z.ndim - 1)
    mean = jnp.cumsum(ordered, -1) / rank
    spread = jnp.cumsum(ordered**2, -1) / rank - mean**2
    tau = mean - jnp.sqrt(jnp.maximum(1 / rank - spread, 0))
    return _at_support(ordered, tau)


def _at_support(ordered, tau):
    size = (tau <= ordered).sum(-1, keepdims=True)
    return jnp.take_along_axis(tau, size - 1, axis=-1)


def _tau(alpha, z):
    """Threshold by bisection. The maximum of z is 0, so it lies between -1 and -n^(1 - alpha)."""
    low, width = jnp.full((*z.shape[:-1], 1), -1.0), 1 - float(z.shape[-1]) ** (1 - alpha)

    def step(_, state):
        low, width = state
        width = width / 2
        mass = (jnp.maximum(z - low - width, 0) ** (1 / (alpha - 1))).sum(-1, keepdims=True)
        return jnp.where(mass >= 1, low + width, low), width

    return jax.lax.fori_loop(0, STEPS, step, (low, width))[0]
