"""Dual chunk attention (An et al., 2024, arXiv:2402.17463).

    logits = q_i . k_j turned by min(D + r_j, c - 1) - r_j,   D = p_i - p_j,   r_j = p_j mod s,   c = s + w

This single formula covers the paper's three cases. r_j counts keys from the start of their chunk of s positions.
Distances are exact within a chunk and for the w positions after it. Farther queries are all placed at c - 1, so that no
distance reaches c.
"""

from typing import Literal

from mha.arguments import Base, Length, Part, Shift
from mha.positions.base import Rotary, frequencies


class DualChunk(Rotary):
    """Rotary embedding for longer sequences than trained; plain rotary embedding up to c = `chunk` + `window` tokens,
    which should be the trained length. The paper recommends chunks of 3/4 of it, hence the default `window` of
    chunk / 3. Costs a second product of queries and keys; the paper's saving of memory is not implemented.

    The released code takes chunks of 5/8 of the trained length L and places far queries at 3/4 L: `chunk` = 5/8 L and
    `window` = L/8 + 1. Its logits also grow with the length, unlike those of the paper's results and ours."""

    causal_only = True
    example = 'chunk=6'

    def __init__(
        self,
        dims,
        chunk: Length,
        window: Shift | None = None,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        window = chunk // 3 if window is None else window
        if window > chunk:
            raise ValueError(f'window must be at most chunk={chunk}, not {window}')
        self.chunk, self.last = chunk, chunk + window - 1
        self.frequencies = frequencies(self.width, theta)

    def content(self, q, k, q_pos, k_pos):
        """Change of the logits of far pairs: q and k, already turned by their positions, are turned to c - 1 and
        r_j."""
        start = self.chunk * (k_pos // self.chunk)
        far = q_pos[:, :, None] - start[:, None, :] > self.last
        return self.turned_on(q, k, self.last - q_pos, -start, where=far)
