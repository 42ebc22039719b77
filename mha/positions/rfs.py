"""Random float sampling (Shimizu et al., 2026, arXiv:2602.14050): real-valued random positions.

    p = T reals drawn uniformly from [0, max_position), sorted

A model thereby meets every position of the range whatever the length of its sequences. The abstract alone was at hand;
the range, one draw per forward pass for the whole batch, and drawing in evaluation too are choices made here.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.positions.base import Position, required

CELLS = 2**22  # so many that float32 tells any two apart, and can count tokens on top


class Rfs(Position):
    """Draws the coordinates for whatever function of position follows: `'rfs(max_position=2048)|rope'`. No two tokens
    of a sequence share one. `test='linspace'` evaluates at (i + 1/2) max_position / T without chance, which secondary
    sources describe as the published evaluation of longer sequences; this is unverified."""

    first_only = True

    def __init__(self, dims, max_position: int = 2048, test: Literal['sample', 'linspace'] = 'sample', *, rngs):
        if max_position < 1:
            raise ValueError(f'max_position must be at least 1, not {max_position}')
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
            # Sorted cells with repetition, plus the rank, never repeat: the law of sorted reals, down to a cell.
            cells = jnp.sort(jnp.where(index < count, self.cells(key, length)[None], CELLS), axis=-1)
            drawn = (cells + index) * (self.max_position / (CELLS + count).astype(jnp.float32))
        drawn = jnp.minimum(drawn, self.max_position)  # padding: what comes after a sequence stays in range
        shape = (max(drawn.shape[0], pos.shape[0]), length)
        order = jnp.clip(jnp.round(pos).astype(jnp.int32), 0, length - 1)
        return jnp.take_along_axis(jnp.broadcast_to(drawn, shape), jnp.broadcast_to(order, shape), axis=1)

    def cells(self, key, length):
        """One of `CELLS` for every slot, from a key of its own, so that padding changes no other."""
        draw = jax.vmap(lambda slot: jax.random.randint(jax.random.fold_in(key, slot), (), 0, CELLS))
        return draw(jnp.arange(length))
