"""Gates that learn to close: the hard concrete distribution (Louizos et al., 2018, arXiv:1712.01312).

    s = sigmoid((ln u - ln(1 - u) + a) / beta),   z = clip(s (zeta - gamma) + gamma, 0, 1),   u uniform on (0, 1)
    P(z > 0) = sigmoid(a - beta ln(-gamma / zeta)),   beta = 2/3, gamma = -0.1, zeta = 1.1

Some draws are exactly 0 and some exactly 1, and yet the parameter a has a gradient. Without draws, s = sigmoid(a). What
is learned is w = a / 10: Adam moves every parameter by about the learning rate, and a has to go further than weights.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
SCALE = 10.0
"""a / w."""
OPEN = 0.25
"""Parameter of a gate that is 1 without draws, and seldom closed by them."""


def gate(w: Float[Array, 'H'], rngs: nnx.Rngs | None = None) -> Float[Array, 'H']:
    """Gates z of parameters w, drawn from the stream `dropout` if `rngs` are given."""
    a = SCALE * w
    if rngs is None:
        s = jax.nn.sigmoid(a)
    else:
        u = jax.random.uniform(rngs.dropout(), a.shape, minval=1e-6, maxval=1 - 1e-6)
        s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + a) / BETA)
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def chance_open(w: Float[Array, 'H']) -> Float[Array, 'H']:
    """Probability that a drawn gate is above 0."""
    return jax.nn.sigmoid(SCALE * w - BETA * math.log(-GAMMA / ZETA))
