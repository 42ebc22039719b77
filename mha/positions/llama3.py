"""Llama 3.1's rotary embedding (Grattafiori et al., 2024, arXiv:2407.21783; formula from the released code).

    f'_m = (1 - u) f_m / s + u f_m,   u = clip((L f_m / (2 pi) - low) / (high - low), 0, 1),   f_m = theta^(-2m/R)

Pairs of channels that turn `high` times or more within the trained length L keep their frequency, those that turn
`low` times or less slow down by s = `scale`, and the others lie between.
"""

import math
from typing import Literal

from mha.arguments import Base, Length, Part, Reach, Stretch
from mha.positions.base import Rotary, frequencies


class Llama3(Rotary):
    """Rotary embedding for longer sequences than trained. The defaults are those of Llama 3.1, except theta, which is
    500000 there."""

    def __init__(
        self,
        dims,
        scale: Stretch = 8.0,
        low: Reach = 1.0,
        high: Reach = 4.0,
        original_length: Length = 8192,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        if not high > low:
            raise ValueError(f'high must be above low, not {high} and {low}')

        def slowed(f):
            u = min(max((original_length * f / (2 * math.pi) - low) / (high - low), 0.0), 1.0)
            return (1 - u) * f / scale + u * f

        self.frequencies = tuple(slowed(f) for f in frequencies(self.width, theta))
