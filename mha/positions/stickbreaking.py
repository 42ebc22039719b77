"""Stick-breaking attention (Tan et al., 2024, arXiv:2410.17980): no softmax and no position encoding.

    beta_ij = sigmoid(logits_ij),   A_ij = beta_ij prod_(j < t < i) (1 - beta_it),   j < i

A stick of length one is divided among the keys, from the most recent one backwards: each key takes the share beta of
the part that is left. Computed as ln A_ij = ln beta_ij + sum_(j < t < i) ln(1 - beta_it).
"""

from typing import Literal

from mha.nn.sticks import broken
from mha.positions.base import Position


class StickBreaking(Position):
    """Attention weights by stick-breaking instead of the softmax; causal only. A query does not attend to its own slot.
    `remainder` says what happens to the rest of the stick: 'zero' drops it, so that rows sum to at most one and the
    first row to zero; 'self' gives it to the query's own slot. Keys are ordered by slot; coordinates are not read. The
    same as a normalizer (`model.normalizer`) composes with every position scheme."""

    directed = True
    causal_only = True

    def __init__(self, dims, remainder: Literal['zero', 'self'] = 'zero', *, rngs):
        self.remainder: Literal['zero', 'self'] = remainder

    def weights(self, logits, mask, q, coords):
        return broken(logits, mask, self.remainder)
