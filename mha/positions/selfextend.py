"""Self-Extend (Jin et al., 2024, arXiv:2401.01325): exact distances to neighbours, grouped ones beyond.

    logits = q_i . k_j turned by D                                               for D < w,   D = p_i - p_j
                              by floor(p_i/G) - floor(p_j/G) + w - floor(w/G)    for D >= w

Beyond the w neighbours, each group of G positions shares one, so that distances grow G times more slowly: a sequence of
T tokens needs distances up to about w + (T - w)/G.
"""

from typing import Literal

from mha.arguments import Base, Length, Part
from mha.positions.base import Rotary, frequencies


class SelfExtend(Rotary):
    """Rotary embedding for longer sequences than trained. Up to distance `window`, and so in training on sequences of
    at most `window` tokens, it is plain rotary embedding; beyond it, `group` positions share one. Costs a second
    product of queries and keys."""

    causal_only = True
    example = 'window=8, group=3'

    def __init__(
        self,
        dims,
        window: Length,
        group: Length,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        self.window, self.group = window, group
        self.frequencies = frequencies(self.width, theta)

    def content(self, q, k, q_pos, k_pos):
        """Change of the logits of far pairs: q and k, already turned by their positions, are turned to their
        groups'."""
        shift = self.window - self.window // self.group
        far = q_pos[:, :, None] - k_pos[:, None, :] >= self.window
        q_shift, k_shift = q_pos // self.group + shift - q_pos, k_pos // self.group - k_pos
        return self.turned_on(q, k, q_shift, k_shift, where=far)
