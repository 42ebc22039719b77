"""Position coupling (Cho et al., 2024, arXiv:2405.20671): tokens that belong together share a position id.

    x <- x + W[p],         p = 1, 2, .. the id that the task gives a token;   p = 0 for none
    p <- p + c if p > 0,   c uniform on {0 .. max_position - max p}, one draw per sequence; in training only

In an addition, the digits of one place in both terms and in the sum share an id. The random start trains all ids.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Length, Spread
from mha.positions.base import Position, lookup, required


class Coupling(Position):
    """Learned embedding of position ids, for tasks with a known structure. Ids come with the tokens: pass them as
    `pos`, starting at 1. With slot numbers, the default coordinates of a model, it is a learned table with a random
    start. `max_position` is the largest id in training and evaluation: by default the longest sequence of the run; 132
    for sums of up to 100 digits in the released code. Larger ids read NaN. The table starts at `init_std`; with 1.0
    like the token embeddings, as in the released code."""

    directed = True
    per_example = True

    def __init__(self, dims, max_position: Length | None = None, init_std: Spread = 0.02, *, rngs):
        self.max_position = max_position or dims.max_len
        self.table = nnx.Param(init_std * jax.random.normal(rngs.params(), (self.max_position + 1, dims.dim)))

    def extent(self, length):
        """Always `max_position` + 1: only the task knows how many ids `length` tokens have."""
        return self.max_position + 1

    def remap(self, pos, *, valid=None, key=None, train=False):
        if not train:
            return pos
        key = required(key)
        real = pos > 0 if valid is None else valid & (pos > 0)
        largest = jnp.round(jnp.where(real, pos, 0).max(-1, keepdims=True)).astype(jnp.int32)
        start = jax.random.randint(key, largest.shape, 0, self.max_position - largest + 1)
        return pos + jnp.where(real, start, 0)

    def embed(self, x, pos):
        return x + lookup(self.table[...], pos).astype(x.dtype)
