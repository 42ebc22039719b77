"""Dual chunk attention (An et al., 2024, arXiv:2402.17463).

    logits = q_i . k_j turned by min(D + r_j, c - 1) - r_j,   D = p_i - p_j,   r_j = p_j mod s,   c = s + w

This is what the paper's three cases amount to. Keys count from the start of their chunk of s positions. Distances are
exact within a chunk and for the w positions after it; from there on the query stands still at c - 1, so that no
distance is c or more.
"""

from typing import Literal

from mha.positions.base import Rotary, frequencies


class DualChunk(Rotary):
    """Plain rotary embedding for sequences of at most c = `chunk` + `window` tokens: the trained length. The paper
    recommends chunks of 3/4 of it, hence a `window` of chunk / 3 by default. Costs a second product of queries and
    keys; the paper's saving of memory is not part of it."""

    causal_only = True
    example = 'chunk=6'

    def __init__(
        self,
        dims,
        chunk: int,
        window: int | None = None,
        theta: float = 10000.0,
        fraction: float = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        window = chunk // 3 if window is None else window
        if not (chunk >= 1 and 0 <= window <= chunk):
            raise ValueError(f'chunk must be at least 1 and window from 0 to chunk, not {chunk} and {window}')
        self.chunk, self.last = chunk, chunk + window - 1
        self.frequencies = frequencies(self.width, theta)

    def content(self, q, k, q_pos, k_pos):
        """What far pairs gain: q and k arrive turned by their positions, and are turned on to c - 1 and r_j."""
        start = self.chunk * (k_pos // self.chunk)
        far = q_pos[:, :, None] - start[:, None, :] > self.last
        return self.turned_on(q, k, self.last - q_pos, -start, where=far)
