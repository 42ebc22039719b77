"""NAPE: no positions beside ALiBi (Vasylenko et al., 2025, arXiv:2506.16640).

    b[h, i, j] = -m[h] |D|,   m[h] = 1 / (h + 1) for the first H/2 heads h,   0 for the others,   D = p_i - p_j

Heads with ALiBi look at what is near, and heads without positions find content at any distance.
"""

from typing import Literal

import jax.numpy as jnp

from mha.positions.base import OffsetBias


class Nape(OffsetBias):
    """Linear penalty on distance in half of the heads; of an odd number, the odd one has no positions. It cannot tell
    left from right. `slopes='exp'` has m = 2^-h. Published with `entmax` and, in the heads without positions, the scale
    `asscale`."""

    def __init__(self, dims, slopes: Literal['linear', 'exp'] = 'linear', *, rngs):
        if dims.heads < 2:
            raise ValueError('needs at least 2 heads, half of them without positions')
        near = range(dims.heads // 2)
        m = [1 / (h + 1) if slopes == 'linear' else 2.0**-h for h in near]
        self.slopes = (*m, *[0.0] * (dims.heads - len(m)))

    def offset_bias(self, offset):
        m = jnp.asarray(self.slopes).reshape(-1, *[1] * offset.ndim)
        return -m * jnp.abs(offset).astype(jnp.float32)[None]
