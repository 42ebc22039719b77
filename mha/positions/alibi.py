"""ALiBi (Press et al., 2022, arXiv:2108.12409): attention with linear biases.

    b[h, i, j] = -m[h] |D|,   D = p_i - p_j,   m[h] = 2^(-8 (h + 1) / H) for H a power of two

For other H the slopes of the next lower power of two come first, then every second slope of the next higher one.
"""

from typing import Literal

import jax.numpy as jnp
from flax import nnx

from mha.positions.base import OffsetBias, alibi_slopes


class Alibi(OffsetBias):
    """Linear penalty on distance, with one slope per head. 'causal', the default of causal models, is the paper's form.
    Encoders choose among three variants. 'symmetric' cannot tell left from right. 'offset', the bidirectional default
    (Ruoss et al., 2023, arXiv:2305.16843), subtracts 0.5 from distances to the past. 'asymmetric' treats the two sides
    differently, as the paper's first author proposed later.

    `side` chooses the form of 'asymmetric'. With 'split', the default, the first half of the heads sees the past only
    and the second half the future only, each with the slopes published for that many heads. Every head sees the query's
    own token; of an odd number of heads, the odd one looks back. With 'slopes', every head learns one slope per side.
    `learned=True` learns the slopes as m = exp(s). `slopes` gives one number per head instead of the published values:
    the slopes themselves, or the start of learned ones."""

    def __init__(
        self,
        dims,
        variant: Literal['causal', 'symmetric', 'offset', 'asymmetric'] | None = None,
        side: Literal['split', 'slopes'] | None = None,
        learned: bool = False,
        slopes: tuple[int | float, ...] | None = None,
        *,
        rngs,
    ):
        self.variant = variant or ('causal' if dims.causal else 'offset')
        self.side = (side or 'split') if self.variant == 'asymmetric' else None
        self.directed = self.variant != 'symmetric'
        if self.variant == 'causal' and not dims.causal:
            raise ValueError("variant='causal' needs a causal model - choose 'symmetric' or 'offset' or 'asymmetric'")
        if self.variant == 'asymmetric' and dims.causal:
            raise ValueError("variant='asymmetric' needs a bidirectional model - choose 'causal'")
        if side and self.variant != 'asymmetric':
            raise ValueError(f"side={side!r} needs variant='asymmetric'")
        if self.side == 'split' and dims.heads < 2:
            raise ValueError("side='split' needs at least 2 heads - choose side='slopes'")

        self.back = -(-dims.heads // 2)
        if slopes is None and self.side == 'split':
            slopes = alibi_slopes(self.back) + alibi_slopes(dims.heads - self.back)
        m = alibi_slopes(dims.heads) if slopes is None else slopes
        learned = learned or self.side == 'slopes'
        if len(m) != dims.heads or min(m) < 0:
            raise ValueError(f'slopes must be {dims.heads} numbers of at least 0, one per head, not {m}')
        if learned and 0 in m:
            raise ValueError(f'learned slopes must start above 0, not at {m}')
        self.slopes = tuple(float(x) for x in m)
        start = jnp.asarray([m, m] if self.side == 'slopes' else m, jnp.float32)
        self.log_slopes = nnx.Param(jnp.log(start)) if learned else None

    def offset_bias(self, offset):
        m = jnp.asarray(self.slopes) if self.log_slopes is None else jnp.exp(self.log_slopes[...])
        m = m.reshape(*m.shape, *[1] * offset.ndim)
        past, distance = offset > 0, jnp.abs(offset).astype(jnp.float32)
        if self.variant == 'offset':
            distance = distance - 0.5 * past
        if self.side == 'slopes':
            m = jnp.where(past[None], m[0], m[1])
        bias = -m * distance[None]
        if self.side == 'split':
            looks_back = (jnp.arange(len(m)) < self.back).reshape(m.shape)
            # Above the -1e30 of masked keys: a query with keys of the wrong side only must still ignore masked ones.
            bias = jnp.where(jnp.where(looks_back, offset[None] < 0, past[None]), -1e29, bias)
        return bias
