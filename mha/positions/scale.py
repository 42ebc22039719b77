"""Temperature of the logits: HeadScale (Wang et al., 2024, arXiv:2404.12224) without its search.

    logits_ij <- s[h] logits_ij

Models without positions fail beyond the trained length because attention flattens. A constant above 1 sharpens it
again: the paper finds 1.2 for all heads, or one number per head by a search after training.
"""

import jax.numpy as jnp

from mha.positions.base import Position


class Scale(Position):
    """Constant factor of the queries, one number or one per head. Made for evaluations of trained models:
    `eval.py --position='scale(1.2)'`. Write it first, because it scales all channels that earlier schemes have
    added to the queries."""

    example = '1.2'

    def __init__(self, dims, s: float | tuple[int | float, ...], *, rngs):
        self.s = tuple(float(x) for x in s) if isinstance(s, tuple) else (float(s),) * dims.heads
        if len(self.s) != dims.heads or not all(0 < x <= 1000 for x in self.s):
            raise ValueError(f's must be above 0 and at most 1,000: one number, or {dims.heads}, one per head, not {s}')

    def qk(self, q, k, coords):
        return (q * jnp.asarray(self.s, jnp.float32)[None, None, :, None]).astype(q.dtype), k
