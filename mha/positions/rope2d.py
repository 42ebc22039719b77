"""Rotary embedding for grids (Heo et al., 2024, arXiv:2403.13298).

    p = columns r + c:  token p stands in row r and column c

    axial   half of the channels turns by the angles r f_m, the other half by c f_m, with f_m = theta^(-4m/K)
    mixed   pair m turns by r g[h, m] + c f[h, m], both learned for every head: any direction on the grid

Mixed frequencies start with the magnitudes of the axial ones, m = 0 .. K/4 - 1, twice: along a random direction for
each head and at a right angle to it.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Base, Length
from mha.positions.base import Rotary, angles, frequencies


class Rope2D(Rotary):
    """Rotary embedding for tokens that are the cells of a grid with `columns` columns, row by row. By default theta is
    100 for the axial form and 10 for the mixed form, as in the released code. Mixed frequencies are published with
    separate parameters in every layer (`position_per_layer=True`)."""

    example = 'columns=8'

    def __init__(
        self,
        dims,
        columns: Length,
        theta: Base | None = None,
        mixed: bool = False,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        if dims.head_dim % 4:
            raise ValueError(f'two axes of pairs need a head_dim that is divisible by 4, not {dims.head_dim}')
        super().__init__(dims, 1.0 if mixed else 0.5, layout, rngs=rngs)
        self.columns, self.mixed = columns, mixed
        self.frequencies = frequencies(dims.head_dim // 2, (10.0 if mixed else 100.0) if theta is None else theta)
        if mixed:
            direction = jax.random.uniform(rngs.params(), (dims.heads, 1), maxval=2 * math.pi)
            direction = jnp.concatenate([direction, direction + math.pi / 2], axis=-1)[None, :, :, None]
            magnitude = jnp.asarray(self.frequencies)[None, None, None]
            drawn = magnitude * jnp.concatenate([jnp.sin(direction), jnp.cos(direction)])
            self.learned = nnx.Param(drawn.reshape(2, dims.heads, dims.head_dim // 2))

    def turn(self, x, pos):
        row = pos // self.columns
        column = pos - self.columns * row
        if self.mixed:
            g, f = self.learned[...][:, None, None]
            row, column = (axis.astype(jnp.float32)[:, :, None, None] for axis in (row, column))
            return self.rotate(x, row * g + column * f)
        half = self.width
        by_row = self.rotate(x[..., :half], angles(row, self.frequencies)[:, :, None])
        by_column = self.rotate(x[..., half:], angles(column, self.frequencies)[:, :, None])
        return jnp.concatenate([by_row, by_column], axis=-1)
