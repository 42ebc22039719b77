"""ReRoPE, rectified rotary embedding (Su, 2023, kexue.fm/archives/9708).

    logits = q_i . k_j turned by min(D, w),   D = p_i - p_j

Distances up to w are exact, and all larger ones count as w. Longer sequences therefore need no angle that was not seen
in training.
"""

from typing import Literal

from mha.arguments import Base, Length, Part
from mha.positions.base import Rotary, frequencies


class ReRope(Rotary):
    """Rotary embedding for longer sequences than trained. Up to distance `window`, and so in training on sequences of
    at most `window` tokens, it is plain rotary embedding. Costs a second product of queries and keys. The released code
    also scales queries with the logarithm of their position; `logn` does that here."""

    causal_only = True
    example = 'window=8'

    def __init__(
        self,
        dims,
        window: Length,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        self.window = window
        self.frequencies = frequencies(self.width, theta)

    def content(self, q, k, q_pos, k_pos):
        """Change of the logits of far pairs: q and k, already turned by their positions, are turned to w and 0."""
        far = q_pos[:, :, None] - k_pos[:, None, :] > self.window
        return self.turned_on(q, k, self.window - q_pos, -k_pos, where=far)
