"""Randomised offsets (the relative schemes of Ruoss et al., 2023, arXiv:2305.16843).

    D_ij = r_{i-j} for j <= i,   -r_{j-i} for j > i,   r_0 = 0,   r_1 < .. < r_{T-1} drawn from {1 .. max_position - 1}

The distance of two tokens depends only on the number of slots between them, and is the same for all queries. Unlike the
differences of randomised positions, distances do not add up along the sequence.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Length
from mha.nn.prng import shuffle
from mha.positions.base import WHOLE, Position, required


class RandomizeOffsets(Position):
    """Draws the distances that whatever follows in the spec meets, in training and in evaluation; that must be a scheme
    of distances, with a bias or content hook. One draw per training step or, as published, per layer, shared by the
    batch; an evaluation draws for each example. `both_sides` draws the future's distances apart from the past's.
    `released` reproduces the released code, bidirectional only: its table has max_position = L rows, read L too far
    and clamped, so that the past at distance r meets D = r - L, and the query's own slot and all of the future meet
    D = 1 - L. A scheme that also reads p_i takes it for 0."""

    cacheable = False
    wraps = True
    draws = 1

    def __init__(
        self,
        dims,
        max_position: Length = 2048,
        both_sides: bool = False,
        released: bool = False,
        redraw: Literal['forward', 'layer'] = 'forward',
        *,
        inner: Position,
        rngs,
    ):
        for hook in ('remap', 'embed', 'qk', *WHOLE):
            if inner.overrides(hook):
                raise ValueError(
                    f'draws distances, but what follows it uses its {hook!r} hook - follow it with schemes that only '
                    'add a bias (some have a form that does)'
                )
        if released and (dims.causal or both_sides):
            raise ValueError('released=True is bidirectional and has one table - leave out both_sides and causal')
        inner.extent(max_position)
        self.max_position, self.both_sides, self.released, self.inner = max_position, both_sides, released, inner
        self.per_layer = redraw == 'layer'
        self.directed = inner.directed or both_sides

    def overrides(self, hook):
        return hook == 'place' or self.inner.overrides(hook)

    def extent(self, length):
        if length > self.max_position:
            raise ValueError(
                f'{self.max_position} distances cannot serve {length} tokens, those of the answer included - set '
                f'max_position={length} or more'
            )
        return length

    def place(self, pos, *, valid=None, key=None, train=False):
        self.extent(pos.shape[1])
        length, key = pos.shape[1], required(key)
        count = jnp.full((1, 1), length) if valid is None else valid.sum(-1, keepdims=True)
        if not key.ndim:
            return _Drawn(self.inner, self.offsets(key, length, count)), pos
        each = jax.vmap(lambda key, count: self.offsets(key, length, count[None])[0])
        return _Drawn(self.inner, each(key, jnp.broadcast_to(count, (len(key), 1)))), pos

    def offsets(self, key, length, count):
        """D for i - j = -(T - 1) .. T - 1, [#B, 2 T - 1]."""
        past, future = (self.draw(k, length, count) for k in jax.random.split(key))
        if not self.both_sides:
            future = past
        if self.released:
            past, future = past - self.max_position, jnp.full_like(past, self.max_position - 1)
        own = future[:, :1] * 0 if not self.released else -future[:, :1]
        return jnp.concatenate([-future[:, ::-1], own, past], axis=1)

    def bias(self, q_pos, k_pos):
        if self.overrides('bias') or self.overrides('content'):
            raise ValueError('randomize_offsets has drawn nothing yet: use the scheme that its place() returns')

    def draw(self, key, length, count):
        """Distances r_1 .. r_{T-1}, [#B, T - 1]: the first entries of one permutation, so padding changes nothing."""
        shuffled = 1 + shuffle(key, self.max_position - 1)[None, : length - 1]
        return jnp.sort(jnp.where(jnp.arange(1, length)[None] < count, shuffled, self.max_position - 1), axis=-1)


class _Drawn(Position):
    """Inner scheme at drawn distances `offsets` [#B, 2 T - 1]: D for i - j = -(T - 1) .. T - 1."""

    def __init__(self, inner, offsets):
        self.inner, self.offsets = inner, nnx.data(offsets)

    def overrides(self, hook):
        return self.inner.overrides(hook)

    def bias(self, q_pos, k_pos):
        def row(slot):
            return self.inner.bias(jnp.zeros((1, 1)), self.keys(slot, k_pos))

        return None if not self.overrides('bias') else self.by_row(row, q_pos)

    def content(self, q, k, q_pos, k_pos):
        def row(slot, q):
            return self.inner.content(q[:, None], k, jnp.zeros((1, 1)), self.keys(slot, k_pos))

        return None if not self.overrides('content') else self.by_row(row, q_pos, q)

    def values(self, weights, q_pos, k_pos):
        def row(slot, weights):
            return self.inner.values(weights[:, :, None], jnp.zeros((1, 1)), self.keys(slot, k_pos))[:, 0]

        if not self.overrides('values'):
            return None
        return jax.vmap(row, (1, 2), 1)(q_pos, weights)

    def by_row(self, row, *over):
        """`row` mapped over queries. A query at 0 and keys at minus their distances have exactly the drawn offsets."""
        return jax.vmap(lambda *at: row(*at)[:, :, 0], 1, 2)(*over)

    def keys(self, slot, k_pos):
        """Coordinates -D of the keys at slots [#B, P], for one query slot [#B]."""
        length = (self.offsets.shape[1] + 1) // 2
        apart = jnp.clip(jnp.round(slot[:, None] - k_pos).astype(jnp.int32), 1 - length, length - 1)
        rows = max(apart.shape[0], self.offsets.shape[0])
        table = jnp.broadcast_to(self.offsets, (rows, self.offsets.shape[1]))
        return -jnp.take_along_axis(table, jnp.broadcast_to(apart, (rows, apart.shape[1])) + length - 1, axis=1)
