"""ReRoPE, rectified rotary embedding (Su, 2023, kexue.fm/archives/9708).

    logits = q_i . k_j turned by min(D, w),   D = p_i - p_j

Tokens of the last w positions stand where they are, all before them at distance w: no angle is new beyond the window.
"""

from typing import Literal

from mha.positions.base import Rotary, frequencies


class ReRope(Rotary):
    """Plain rotary embedding up to distance `window`, and so in training on sequences of at most `window` tokens. Costs
    a second product of queries and keys. The release also scales queries with the logarithm of their position, which
    is left to other schemes."""

    causal_only = True
    example = 'window=8'

    def __init__(
        self,
        dims,
        window: int,
        theta: float = 10000.0,
        fraction: float = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        if window < 1:
            raise ValueError(f'window must be at least 1, not {window}')
        self.window = window
        self.frequencies = frequencies(self.width, theta)

    def content(self, q, k, q_pos, k_pos):
        """What far pairs gain: q and k arrive turned by their positions, and are turned on to w and 0."""
        far = q_pos[:, :, None] - k_pos[:, None, :] > self.window
        return self.turned_on(q, k, self.window - q_pos, -k_pos, where=far)
