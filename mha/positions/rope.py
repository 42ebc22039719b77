"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

Each pair of channels (u, w) of q and k turns by the angle p f_m, with f_m = theta^(-2m/R), m = 0 .. R/2 - 1:

    (u, w) <- (u cos - w sin, u sin + w cos),   so that q . k depends on positions through p_i - p_j alone
"""

from typing import Literal

from mha.positions.base import Rotary, frequencies
from mha.spec import Base, Part


class Rope(Rotary):
    """Rotary embedding of the first `fraction` of the channels. `layout` pairs channel m with m + R/2 ('half', as in
    GPT-NeoX and Llama) or 2m with 2m + 1 ('interleaved', as in the paper and GPT-J)."""

    def __init__(
        self,
        dims,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        self.frequencies = frequencies(self.width, theta)
