"""Abacus embeddings (McLeish et al., 2024, arXiv:2405.17399): the place of a digit within its number.

    x <- x + W[p],      p = 1, 2, .. for the digits of a number, least significant first;   p = 0 for other tokens
    p <- p + k if p > 0,   k uniform on {0 .. max_shift}, one draw per batch; in training only

The shift also trains the rows of places that no number in the training data reaches.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from mha.arguments import Length, Shift, Spread
from mha.positions.base import Position, lookup, required


class Abacus(Position):
    """Learned embedding of digit places, for tasks that write numbers least significant digit first. Coordinates come
    with the tokens: pass `pos=places(is_digit)`. With slot numbers, the default coordinates of a model, it is a plain
    learned table. The table has `max_position` rows; row 0 serves all tokens that are not digits. It starts at
    `init_std`; with 1.0 like the token embeddings, as in the authors' code."""

    directed = True

    def __init__(
        self,
        dims,
        max_shift: Shift = 99,
        max_position: Length = 1024,
        init_std: Spread = 0.02,
        *,
        rngs,
    ):
        self.max_shift, self.max_position = max_shift, max_position
        self.table = nnx.Param(init_std * jax.random.normal(rngs.params(), (max_position, dims.dim)))

    def extent(self, length):
        rows = length + self.max_shift + 1
        if rows > self.max_position:
            raise ValueError(
                f'its table has {self.max_position} rows, but a number as long as the whole sequence, {length} tokens, '
                f'shifted by {self.max_shift} needs {rows} - set max_position={rows} or more, or lower max_shift'
            )
        return rows

    def remap(self, pos, *, valid=None, key=None, train=False):
        if not train:
            return pos
        key = required(key)
        return jnp.where(pos > 0, pos + jax.random.randint(key, (1, 1), 0, self.max_shift + 1), pos)

    def embed(self, x, pos):
        return x + lookup(self.table[...], pos).astype(x.dtype)


def places(is_digit: Bool[Array, '*batch T']) -> Int[Array, '*batch T']:
    """Place of every token within its run of digits, from 1 on the left; 0 for tokens that are not digits."""
    index = jnp.broadcast_to(jnp.arange(is_digit.shape[-1]), is_digit.shape)
    return index - jax.lax.cummax(jnp.where(is_digit, -1, index), axis=is_digit.ndim - 1)
