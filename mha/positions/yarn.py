"""YaRN (Peng et al., 2023, arXiv:2309.00071): rotary embedding for s times longer sequences.

    f'_m = g_m f_m + (1 - g_m) f_m / s,   f_m = theta^(-2m/R),   s = new length / trained length

Fast pairs of channels keep their frequency (g = 1), slow ones are interpolated (g = 0). The turned channels of q and k
are scaled by t = 0.1 ln s + 1, hence their logits by t^2. Between fast and slow lies one of two ramps, with L the
trained length:

    'released'   g_m = 1 - clip((m - low) / (high - low), 0, 1),   low = floor(i(32)),  high = ceil(i(1)),
                 i(r) = R ln(L / (2 pi r)) / (2 ln theta), the pair that turns r times within L
    'paper'      g_m = clip((L f_m / (2 pi) - 1) / (32 - 1), 0, 1)

The two ramps differ by up to 0.4 in g for 64 channels, L = 2048 and s = 8.
"""

import math
from typing import Annotated, Literal

from mha.arguments import Base, Length, Part, Reach, Stretch, above, at_most
from mha.positions.base import Rotary, frequencies


class Yarn(Rotary):
    """Rotary embedding for longer sequences than trained, after a short training at the new length. `beta_fast` and
    `beta_slow` are the 32 and 1 turns of the ramp; `attention_factor` replaces t."""

    example = 'scale=4, original_length=64'

    def __init__(
        self,
        dims,
        scale: Stretch,
        original_length: Length,
        beta_fast: Reach = 32.0,
        beta_slow: Reach = 1.0,
        ramp: Literal['released', 'paper'] = 'released',
        attention_factor: Annotated[float, above(0), at_most(1000)] | None = None,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        if not beta_fast > beta_slow:
            raise ValueError(f'beta_fast must be above beta_slow, not {beta_fast} and {beta_slow}')
        if not theta > 1:
            raise ValueError(f'theta must be above 1, not {theta}')
        plain = frequencies(self.width, theta)
        if ramp == 'paper':
            turns = [original_length * f / (2 * math.pi) for f in plain]
            kept = [clip((r - beta_slow) / (beta_fast - beta_slow)) for r in turns]
        else:
            low, high = (
                self.width * math.log(original_length / (2 * math.pi * r)) / (2 * math.log(theta))
                for r in (beta_fast, beta_slow)
            )
            low, high = max(math.floor(low), 0), min(math.ceil(high), self.width - 1)
            high = max(high, low + 0.001)  # a step, if few channels or a short length leave no room for a ramp
            kept = [1 - clip((m - low) / (high - low)) for m in range(len(plain))]
        self.frequencies = tuple(g * f + (1 - g) * f / scale for g, f in zip(kept, plain, strict=True))
        self.amplitude = 0.1 * math.log(scale) + 1 if attention_factor is None else float(attention_factor)


def clip(x: float) -> float:
    return min(max(x, 0.0), 1.0)
