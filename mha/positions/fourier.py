"""Learnable Fourier features (Li et al., 2021, arXiv:2106.02795).

    x <- x + PE(p),   PE(p) = GELU(r W_1 + b_1) W_p + b_p,   r = F^(-1/2) [cos(p W_r), sin(p W_r)]

W_r starts as N(0, gamma^-2), so that r(p) . r(p') is about exp(-(p - p')^2 / (2 gamma^2)) / 2: positions closer than
about gamma tokens start with similar embeddings. Unlike a table, the function is defined at every position.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Even, Reach, Width
from mha.positions.base import Position


class Fourier(Position):
    """Learned function of the position, added once to the embeddings. r has F = `fourier_dim` features (by default half
    the model's width), the MLP `hidden` units (by default the model's width). Positions are not divided by the length
    of the sequence. The angles are float32 products with learned frequencies, with errors of about |p| / 10^7."""

    directed = True

    def __init__(self, dims, fourier_dim: Even | None = None, hidden: Width | None = None, gamma: Reach = 1.0, *, rngs):
        features = dims.dim // 2 if fourier_dim is None else fourier_dim
        hidden = dims.dim if hidden is None else hidden
        if features < 2 or features % 2:
            raise ValueError(f'fourier_dim must be even and above 0, not {features}')
        self.w_r = nnx.Param(jax.random.normal(rngs.params(), (features // 2,)) / gamma)
        self.hidden = nnx.Linear(features, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, dims.dim, rngs=rngs)

    def embed(self, x, pos):
        angle = pos.astype(jnp.float32)[:, :, None] * self.w_r[...][None, None]
        r = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1) * (2 * angle.shape[-1]) ** -0.5
        return x + self.out(jax.nn.gelu(self.hidden(r), approximate=False)).astype(x.dtype)
