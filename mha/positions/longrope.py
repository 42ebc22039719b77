"""LongRoPE (Ding et al., 2024, arXiv:2402.13753): rotary embedding with a separate factor for every frequency.

    f'_m = f_m / factor_m,   f_m = theta^(-2m/R)

The factors come from a search on the trained model. The turned channels of q and k grow by sqrt(1 + ln s / ln L), with
L the trained length and s = new length / L.
"""

import math
from typing import Annotated, Literal

import jax.numpy as jnp

from mha.arguments import REACH, Base, Part, Stretch, at_least, at_most
from mha.positions.base import Rotary, angles, frequencies


class LongRope(Rotary):
    """Rotary embedding for longer sequences than trained. `factors` has one number for each of the R/2 pairs of
    channels; `short_factors`, where given, are used for sequences of at most `original_length` tokens."""

    example = 'factors=(1.0, 1.5, 2.5, 4.0), scale=4, original_length=64'

    def __init__(
        self,
        dims,
        factors: tuple[int | float, ...],
        scale: Stretch,
        original_length: Annotated[int, at_least(2), at_most(REACH)],
        short_factors: tuple[int | float, ...] | None = None,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)

        def divided(factors, name):
            if len(factors) != self.width // 2 or min(factors) <= 0:
                raise ValueError(f'{name} must be {self.width // 2} numbers above 0, not {factors}')
            return tuple(f / x for f, x in zip(frequencies(self.width, theta), factors, strict=True))

        self.original_length = original_length
        self.frequencies = divided(factors, 'factors')
        self.short_frequencies = divided(short_factors or factors, 'short_factors')
        self.cacheable = self.short_frequencies == self.frequencies  # otherwise all angles change at original_length
        self.amplitude = math.sqrt(1 + math.log(scale) / math.log(original_length))

    def qk(self, q, k, coords):
        if self.short_frequencies == self.frequencies:
            return super().qk(q, k, coords)
        long = (coords.length > self.original_length)[:, None, None]

        def turn(x, pos):
            angle = jnp.where(long, angles(pos, self.frequencies), angles(pos, self.short_frequencies))
            return self.rotate(x, angle[:, :, None])

        return turn(q, coords.q_pos), turn(k, coords.k_pos)
