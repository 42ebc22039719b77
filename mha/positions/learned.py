"""Learned absolute embeddings (Gehring et al., 2017, arXiv:1705.03122): x <- x + W[p], W in R^(max_position x D).

Rows beyond the trained length keep their random initial values, so results at such lengths are those of an untrained
table.
"""

import jax
from flax import nnx

from mha.arguments import Length, Spread
from mha.positions.base import Position, lookup


class Learned(Position):
    """Learned table with one row per position: `max_position` rows, by default the longest sequence of the run. It
    starts at `init_std`, while token embeddings start at 1. Gehring et al. and BERT start both alike (`init_std=1.0`);
    Ruoss et al. (2023) start the table at six times the token embeddings (`init_std=0.88` with `init=haiku`)."""

    directed = True

    def __init__(self, dims, max_position: Length | None = None, init_std: Spread = 0.02, *, rngs):
        self.max_position = max_position or dims.max_len
        self.table = nnx.Param(init_std * jax.random.normal(rngs.params(), (self.max_position, dims.dim)))

    def extent(self, length):
        if length > self.max_position:
            raise ValueError(
                f'its table has {self.max_position} rows for {length} positions, one per token (those of the answer '
                f'included) unless a scheme before it sets them - train with max_position={length} or more'
            )
        return length

    def embed(self, x, pos):
        return x + lookup(self.table[...], pos).astype(x.dtype)
