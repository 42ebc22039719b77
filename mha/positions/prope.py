"""p-RoPE (Barbero et al., 2024, arXiv:2410.06205): rotary embedding without its lowest frequencies.

    f_m = theta^(-2m/R) for m < p R/2,   0 for the other m < R/2

The slowest pairs of channels do not turn, so that they carry content alone at any distance. The other frequencies stay
the same. `fraction`, by contrast, spreads the whole range of frequencies over fewer channels.
"""

from typing import Literal

from mha.arguments import Base, Part, Share
from mha.positions.base import Rotary, frequencies


class PRope(Rotary):
    """Rotary embedding of the floor(p R/2) fastest of the R/2 pairs of channels; p = 1 turns all, p = 0 none."""

    def __init__(
        self,
        dims,
        p: Share = 0.75,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        turning = int(p * self.width // 2)
        self.directed = turning > 0
        self.frequencies = frequencies(self.width, theta)[:turning] + (0.0,) * (self.width // 2 - turning)
