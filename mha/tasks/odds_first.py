"""Odds first (context-sensitive; Delétang et al., 2023, arXiv:2207.02098): the symbols at odd places, then the rest.

    00110101 -> 0100 0111        110 -> 10 1

Places are counted from 1, as in the paper. The released code puts the even places first (`order='released'`), which is
a different function at odd lengths.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class OddsFirst(Task):
    """Binary string in, s1 s3 s5 .. s2 s4 .. out; with `order='released'` s2 s4 .. s1 s3 .."""

    inputs = num_classes = 2
    level = 'context-sensitive'

    def __init__(self, order: Literal['documented', 'released'] = 'documented', *, causal: bool = False):
        super().__init__(causal=causal)
        self.order = order

    def output_length(self, length):
        return length

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, 2)
        slot = jnp.arange(max_length)
        if self.order == 'documented':
            first, offset = (length + 1) // 2, 0
        else:
            first, offset = length // 2, 1
        source = jnp.where(slot < first, 2 * slot + offset, 2 * (slot - first) + 1 - offset)
        return x, x[jnp.clip(source, 0, max_length - 1)]
