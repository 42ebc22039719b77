"""Selective RoPE (Movahedi et al., 2026, ICLR 2026; code in timurcarstensen/selective-rope): rotation by angles that
tokens choose.

    phi_t = conv4(W_2 W_1 x_t) per head and pair of channels,   Phi_t = phi_1 + .. + phi_t
    q_t, k_t turn by temp_m Phi_t,   temp_m = base^(-2m/K),   so that q . k depends on Phi_i - Phi_j

W_1 has `rank` columns, and each head's part of x is first divided by its norm. The convolution is causal, depthwise and
of `conv` taps.

The scalar form is contextual GRAPE-M (Zhang et al., 2026, arXiv:2512.07805): one increment omega_t >= 0 per token,
Phi_t = omega_1 + .. + omega_(t-1), and learned temperatures that start at those of rope.
"""

import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha.arguments import Base, at_least, at_most
from mha.nn.products import finite
from mha.positions.base import Rotary, frequencies, short_convolution, uniform_linear


class SelectiveRope(Rotary):
    """Rotary embedding with angles accumulated over tokens; causal only. `gate=True` multiplies phi by sigmoid(W_g x +
    b) per head. Angles follow the slots of the array; coordinates are not read.

    `scalar=True` is contextual GRAPE-M, with base 10,000 unless another is given. `start` is its increment at the
    beginning: 'small' is omega = softplus(z) with 0.001, as the released code says, and 'sigmoid' omega =
    sigmoid(z / 16), as in its earlier form. Published with separate parameters in every layer
    (`position_per_layer=True`)."""

    cacheable = False
    causal_only = True

    def __init__(
        self,
        dims,
        rank: Annotated[int, at_least(1), at_most(1024)] = 16,
        conv: Annotated[int, at_least(1), at_most(64)] = 4,
        gate: bool = False,
        base: Base | None = None,
        scalar: bool = False,
        start: Literal['small', 'sigmoid'] = 'small',
        *,
        rngs,
    ):
        super().__init__(dims, rngs=rngs)
        if dims.dim % dims.heads:
            raise ValueError(f'divides the input of width {dims.dim} among {dims.heads} heads - choose another width')
        if scalar and gate:
            raise ValueError('scalar=True has no gate - leave out gate')
        self.heads, self.scalar, self.start = dims.heads, scalar, start
        base = (10_000.0 if scalar else 500_000.0) if base is None else base
        self.temperatures, pairs = frequencies(self.width, base), self.width // 2
        self.gate = nnx.data(None)
        if scalar:
            z = math.log(math.expm1(1e-3)) if start == 'small' else 0.0
            constant = nnx.initializers.constant
            self.omega = nnx.Linear(dims.dim, 1, kernel_init=constant(0.0), bias_init=constant(z), rngs=rngs)
            self.log_theta = nnx.Param(jnp.log(jnp.asarray(self.temperatures, jnp.float32)))
            return
        normal = jax.random.normal
        self.down = nnx.Param(dims.dim**-0.5 * normal(rngs.params(), (dims.dim, rank)))
        self.up = nnx.Param(rank**-0.5 * normal(rngs.params(), (rank, dims.heads * pairs)))
        bound = conv**-0.5
        taps = jax.random.uniform(rngs.params(), (conv, dims.heads * pairs), minval=-bound, maxval=bound)
        self.taps = nnx.Param(taps)
        self.gate = nnx.data(uniform_linear(dims.dim, dims.heads, rngs) if gate else None)

    def qk(self, q, k, coords):
        if k.shape[1] != coords.x.shape[1]:
            raise ValueError(
                f'selective_rope is for self-attention without a cache, but {coords.x.shape[1]} queries meet '
                f'{k.shape[1]} keys'
            )
        angle = self.angles(finite(coords.x).astype(jnp.float32), coords.visible_by_head.max(-1))
        return self.rotate(q, angle), self.rotate(k, angle)

    def angles(self, x, visible):
        """Angles [B, T, #H, F] of the tokens. Those that see no key are padding and contribute nothing."""
        real = (visible > 0)[..., None]
        if self.scalar:
            z = self.omega(x)
            omega = jnp.where(real, jax.nn.softplus(z) if self.start == 'small' else jax.nn.sigmoid(z / 16), 0)
            return (jnp.cumsum(omega, axis=1) - omega)[:, :, None] * jnp.exp(self.log_theta[...])[None, None, None]
        parts = x.reshape(*x.shape[:2], self.heads, -1)
        parts = parts * jax.lax.rsqrt((parts**2).sum(-1, keepdims=True) + 1e-6)
        x = parts.reshape(x.shape)
        phi = jnp.einsum('btd,dr,rc->btc', x, self.down[...], self.up[...])
        phi = jnp.where(real, short_convolution(phi, self.taps[...], visible), 0).reshape(*x.shape[:2], self.heads, -1)
        if self.gate is not None:
            phi = phi * jax.nn.sigmoid(self.gate(x))[..., None]
        return jnp.cumsum(phi, axis=1) * jnp.asarray(np.array(self.temperatures, np.float32))[None, None, None]
