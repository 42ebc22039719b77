"""Randomised positions (Ruoss et al., 2023, arXiv:2305.16843).

    p = T distinct integers drawn uniformly from {0 .. max_position - 1}, sorted

A model trained on short sequences thus sees all positions of long ones. Used in both training and evaluation.
"""

from typing import Literal

import jax.numpy as jnp

from mha.arguments import Length, Repeats
from mha.nn.prng import shuffle
from mha.positions.base import Position, required


class Randomize(Position):
    """Draws the coordinates for whatever scheme follows: `'randomize(max_position=2048)|rope'`. One draw per training
    step, shared by the batch as published, or one per example; an evaluation draws for each example. `redraw='layer'`
    draws anew in every layer, as published for rotary positions. In an evaluation, `test='linspace'` spaces the
    positions evenly instead, without chance, and `test='average'` takes the mean of the logits over `draws` draws."""

    cacheable = False
    first_only = True

    def __init__(
        self,
        dims,
        max_position: Length = 2048,
        per_example: bool = False,
        test: Literal['sample', 'linspace', 'average'] = 'sample',
        redraw: Literal['forward', 'layer'] = 'forward',
        draws: Repeats = 1,
        *,
        rngs,
    ):
        if (draws < 2) if test == 'average' else (draws != 1):
            raise ValueError(
                f"draws={draws} does not go with test={test!r} - write test='average' with draws of 2 or more"
            )
        self.max_position, self.per_example, self.test = max_position, per_example, test
        self.per_layer = redraw == 'layer'
        self.draws = 0 if test == 'linspace' else draws

    def extent(self, length):
        if length > self.max_position:
            raise ValueError(
                f'{self.max_position} positions cannot serve {length} tokens, those of the answer included - set '
                f'max_position={length} or more'
            )
        return self.max_position

    def remap(self, pos, *, valid=None, key=None, train=False):
        length, last = pos.shape[1], self.max_position - 1
        self.extent(length)
        count = jnp.full((1, 1), length) if valid is None else valid.sum(-1, keepdims=True)
        if self.test == 'linspace' and not train:
            spread = jnp.round(jnp.arange(length, dtype=jnp.float32)[None] * (last / jnp.maximum(count - 1, 1)))
            drawn = jnp.minimum(spread.astype(jnp.int32), last)
        else:
            drawn = self.draw(required(key), length, count)
        rows = max(drawn.shape[0], pos.shape[0])
        order = jnp.clip(jnp.round(pos).astype(jnp.int32), 0, length - 1)
        return jnp.take_along_axis(
            jnp.broadcast_to(drawn, (rows, length)), jnp.broadcast_to(order, (rows, length)), axis=1
        )

    def draw(self, key, length, count):
        """Sorted positions of each row: the first `count` are the draw; the rest, for padding, is the last position."""
        # Every count takes the first entries of one permutation, so padding changes nothing and rows share one draw.
        shuffled = shuffle(key, self.max_position)[None, :length]
        return jnp.sort(jnp.where(jnp.arange(length)[None] < count, shuffled, self.max_position - 1), axis=-1)
