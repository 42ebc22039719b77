"""Random float sampling (Shimizu et al., 2026, arXiv:2602.14050): real-valued random positions.

    p = T reals drawn uniformly from [0, max_position), sorted

A model thus sees positions from the whole range at any sequence length. Only the abstract of the paper was available to
us. Our own choices are the range, one draw per forward pass for the whole batch, and drawing in evaluation, too.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.arguments import Length
from mha.positions.base import Position, required

CELLS = 2**22  # few enough for float32 to tell any two cells apart, with a token count added


class Rfs(Position):
    """Random real coordinates for the scheme that follows: `'rfs(max_position=2048)|rope'`. Coordinates of a sequence
    are distinct. `test='linspace'` evaluates at the fixed positions (i + 1/2) max_position / T. Secondary sources
    describe this as the published evaluation of longer sequences, which we could not verify."""

    cacheable = False
    first_only = True

    def __init__(self, dims, max_position: Length = 2048, test: Literal['sample', 'linspace'] = 'sample', *, rngs):
        self.max_position, self.test = max_position, test
        self.draws = 0 if test == 'linspace' else 1

    def extent(self, length):
        return self.max_position + 1

    def remap(self, pos, *, valid=None, key=None, train=False):
        length = pos.shape[1]
        index = jnp.arange(length)[None]
        count = jnp.full((1, 1), length) if valid is None else valid.sum(-1, keepdims=True)
        if self.test == 'linspace' and not train:
            drawn = (index + 0.5) * (self.max_position / jnp.maximum(count, 1))
        else:
            key = required(key)
            # Sorted cells may repeat, cell plus rank does not: sorted uniform reals, up to the width of a cell.
            cells = jnp.sort(jnp.where(index < count, self.cells(key, length)[None], CELLS), axis=-1)
            drawn = (cells + index) * (self.max_position / (CELLS + count).astype(jnp.float32))
        drawn = jnp.minimum(drawn, self.max_position)  # keeps the coordinates of padding in range
        shape = (max(drawn.shape[0], pos.shape[0]), length)
        order = jnp.clip(jnp.round(pos).astype(jnp.int32), 0, length - 1)
        return jnp.take_along_axis(jnp.broadcast_to(drawn, shape), jnp.broadcast_to(order, shape), axis=1)

    def cells(self, key, length):
        """Random cell below `CELLS` for every slot, each from a key of its own, so that padding changes no other
        slot."""
        draw = jax.vmap(lambda slot: jax.random.randint(jax.random.fold_in(key, slot), (), 0, CELLS))
        return draw(jnp.arange(length))
