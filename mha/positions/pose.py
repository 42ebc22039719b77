"""PoSE (Zhu et al., 2023, arXiv:2309.10400): positional skip-wise training.

    p_i <- p_i + u[c],   c = chunk of token i,   u[0] = 0,   u[c] uniform on {u[c - 1] .. target_length - T}

In training only, the T tokens of a sequence are split into `chunks` chunks of random lengths. Skips u grow from chunk
to chunk, so that positions keep their order, stay below target_length, and cover all distances of sequences that long.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Length, at_least, at_most
from mha.positions.base import Position, required


class Pose(Position):
    """Training on short sequences with the positions of sequences of up to `target_length` tokens:
    `'pose(target_length=500)|rope'`. Of two chunks, the first takes 1 token to half of all, as in the released code.
    More `chunks` extend that rule: each takes 1 token to an equal share of the tokens left, and the last takes the
    rest. Sequences as long as the target keep their positions. The released code also skips text between the chunks;
    that is left to the data."""

    per_example = True
    example = 'target_length=64'

    def __init__(self, dims, target_length: Length, chunks: Annotated[int, at_least(2), at_most(100)] = 2, *, rngs):
        self.target_length, self.chunks = target_length, chunks

    def extent(self, length):
        return max(length, self.target_length)

    def remap(self, pos, *, valid=None, key=None, train=False):
        if not train:
            return pos
        key = required(key)
        real = jnp.ones(pos.shape, bool) if valid is None else jnp.broadcast_to(valid, pos.shape)
        rank, count = jnp.cumsum(real, -1) - 1, real.sum(-1, keepdims=True)
        last = jnp.where(real, pos, 0).max(-1, keepdims=True)
        room = jnp.maximum(self.target_length - 1 - jnp.ceil(last).astype(jnp.int32), 0)
        start = skip = jnp.zeros_like(count)
        for left in range(self.chunks, 1, -1):
            for_run, for_skip = jax.random.split(jax.random.fold_in(key, left))
            share = -((start - count) // left)
            run = jax.random.randint(for_run, count.shape, 1, share + 1)
            start = jnp.minimum(start + run, count)
            more = jax.random.randint(for_skip, count.shape, 0, room - skip + 1)
            skip = skip + more
            pos = pos + jnp.where(real & (rank >= start), more, 0)
        return pos
