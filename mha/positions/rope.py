"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

Each pair of channels (u, w) of q and k turns by the angle p f_m, with f_m = theta^(-2m/R), m = 0 .. R/2 - 1:

    (u, w) <- (u cos - w sin, u sin + w cos),   so that q . k depends on positions through p_i - p_j alone
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha.arguments import Base, Part
from mha.positions.base import Rotary, angles, frequencies

SLOWNESS = 16.0
"""Parameter of a learned frequency per unit of its logarithm. An optimiser that moves all parameters alike changes
frequencies more slowly by this factor."""


class Rope(Rotary):
    """Rotary embedding of the first `fraction` of the channels. `layout` pairs channel m with m + R/2 ('half', as in
    GPT-NeoX and Llama) or 2m with 2m + 1 ('interleaved', as in the paper and GPT-J).

    `resonance=True` rounds wavelengths to whole numbers of positions, so that the angles of all later positions have
    occurred before (Wang et al., 2024, arXiv:2403.00071). `imaginary=True` turns the queries of the second half of the
    heads back by a quarter turn: their logits are the imaginary part of the complex product (RoPE++; Liu et al., 2025,
    arXiv:2512.07525, its form without shared queries). `learned` learns the frequencies, 'shared' by the heads or by
    each 'head', from those of theta (GRAPE-M; Zhang et al., 2026, arXiv:2512.07805)."""

    def __init__(
        self,
        dims,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        resonance: bool = False,
        imaginary: bool = False,
        learned: Literal['shared', 'head'] | None = None,
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        if imaginary and dims.heads < 2:
            raise ValueError('imaginary=True needs at least 2 heads, half of them imaginary')
        self.imaginary, self.heads = imaginary, dims.heads
        self.frequencies = frequencies(self.width, theta)
        if resonance:
            self.frequencies = tuple(2 * math.pi / round(2 * math.pi / f) for f in self.frequencies)
        rows = {'shared': 1, 'head': dims.heads}.get(learned or '', 0)
        start = SLOWNESS * np.log(np.array(self.frequencies, np.float64))
        self.log_frequencies = nnx.data(
            nnx.Param(jnp.tile(jnp.asarray(start, jnp.float32), (rows, 1))) if rows else None
        )

    def qk(self, q, k, coords):
        q, k = super().qk(q, k, coords)
        if not self.imaginary:
            return q, k
        quarter = jnp.where(jnp.arange(self.heads) < (self.heads + 1) // 2, 0, -math.pi / 2)
        return self.rotate(q, jnp.broadcast_to(quarter[:, None], (self.heads, self.width // 2))[None, None]), k

    def turn(self, x, pos):
        if self.log_frequencies is None:
            return self.rotate(x, angles(pos, self.frequencies)[:, :, None])
        learned = jnp.exp(self.log_frequencies[...] / SLOWNESS)
        return self.rotate(x, pos.astype(jnp.float32)[:, :, None, None] * learned[None, None])
