"""Sinusoidal embeddings (Vaswani et al., 2017, arXiv:1706.03762).

    x <- x + PE(p),   PE(p) = [sin(p f_m), cos(p f_m)],   f_m = theta^(-2m/D),   m = 0 .. D/2 - 1

The encoder scales its token embeddings by sqrt(D) before, under every scheme.
"""

from typing import Literal

import jax.numpy as jnp
from flax import nnx

from mha.arguments import Base
from mha.positions.base import Position, angles, frequencies


class Sincos(Position):
    """Absolute sinusoids, added once to the embeddings. `layout` orders the channels: 'interleaved' as in the paper,
    'concat' with all sines before all cosines, 'tensor2tensor' like concat but with exponents m / (D/2 - 1).
    `learned_scale=True` multiplies PE by a learned number that starts at D^(-1/2)."""

    directed = True

    def __init__(
        self,
        dims,
        theta: Base = 10000.0,
        layout: Literal['interleaved', 'concat', 'tensor2tensor'] = 'interleaved',
        learned_scale: bool = False,
        *,
        rngs,
    ):
        if dims.dim % 2:
            raise ValueError(f'needs an even model width, not {dims.dim}')
        self.layout = layout
        self.frequencies = frequencies(dims.dim, theta)
        if layout == 'tensor2tensor':
            last = max(dims.dim // 2 - 1, 1)
            self.frequencies = tuple(theta ** (-m / last) for m in range(dims.dim // 2))
        self.scale = nnx.Param(jnp.asarray(dims.dim**-0.5, jnp.float32)) if learned_scale else None

    def embed(self, x, pos):
        turn = angles(pos, self.frequencies)
        waves = jnp.stack([jnp.sin(turn), jnp.cos(turn)], axis=-1 if self.layout == 'interleaved' else -2)
        waves = waves if self.scale is None else self.scale[...] * waves
        return x + waves.reshape(*pos.shape, x.shape[-1]).astype(x.dtype)
