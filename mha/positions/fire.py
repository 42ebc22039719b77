"""FIRE: functional interpolation for relative position encoding (Li et al., 2023, arXiv:2310.04418).

    b[h, i, j] = MLP(z)[h],   z = psi(D) / psi(max(p_i, L)),   psi(x) = ln(1 + |c| x),   D = p_i - p_j >= 0

The distance is normalised by the query's own position, so that z lies in [0, 1] at any length. c and
L = |l| `init_length` are learned. The MLP has one hidden layer of ReLUs.

Our extension to bidirectional models is z = sign(D) psi(|D|) / psi(max(p_i, p_j, |D|, L)). It lies in [-1, 1], also for
negative coordinates, and equals the published z wherever p_i >= p_j >= 0.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Level, Reach, Width
from mha.positions.base import Position, uniform_linear


class Fire(Position):
    """Bias learned as a function of relative distance. Published with separate parameters in every layer
    (`position_per_layer=True`); with parameters shared by all layers it is the paper's FIRE-S. If training sequences
    are much shorter than `init_length`, the normaliser is nearly constant: set `init_length` near their length.

    `init='uniform'` starts weights and biases of the MLP uniform in +-1/sqrt(fan_in), as the published code does. By
    default they are normal: weights of variance 1/fan_in, biases N(0, 1) in the hidden layer and 0 in the output.

    `signed` gives z the sign of D. It changes nothing in a causal model; a bidirectional model requires it."""

    directed = True

    def __init__(
        self,
        dims,
        width: Width = 32,
        init_c: Level = 0.1,
        init_length: Reach = 512.0,
        signed: bool | None = None,
        init: Literal['normal', 'uniform'] = 'normal',
        *,
        rngs,
    ):
        self.signed = not dims.causal if signed is None else signed
        if not dims.causal and not self.signed:
            raise ValueError('signed=False cannot tell left from right in a bidirectional model - leave signed out')
        if init_c == 0:
            raise ValueError('init_c must not be 0, where the bias is flat')
        self.init_length = init_length
        self.c = nnx.Param(jnp.asarray(init_c, jnp.float32))
        self.l = nnx.Param(jnp.asarray(1.0, jnp.float32))
        if init == 'uniform':
            self.hidden, self.out = uniform_linear(1, width, rngs), uniform_linear(width, dims.heads, rngs)
        else:
            # Without random biases, every ReLU would bend at D = 0 and the scheme would start as a straight line.
            self.hidden = nnx.Linear(1, width, bias_init=jax.nn.initializers.normal(1.0), rngs=rngs)
            self.out = nnx.Linear(width, dims.heads, rngs=rngs)

    def bias(self, q_pos, k_pos):
        q_pos, k_pos = q_pos[:, :, None], k_pos[:, None, :]
        offset = q_pos - k_pos
        furthest = jnp.maximum(jnp.maximum(q_pos, k_pos), jnp.abs(offset))
        z = self.psi(jnp.abs(offset)) / (
            self.psi(jnp.maximum(furthest, jnp.abs(self.l[...] * self.init_length))) + 1e-6
        )
        z = jnp.sign(offset) * z if self.signed else z
        return jnp.moveaxis(self.out(jax.nn.relu(self.hidden(z[..., None]))), -1, 1)

    def psi(self, x):
        return jnp.log1p(jnp.abs(self.c[...]) * x.astype(jnp.float32))
