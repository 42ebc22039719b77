"""Cycle navigation (regular; Delétang et al., 2023, arXiv:2207.02098): where on a cycle of five does a walk end?

    +0++- -> 2

Symbols 0, 1, 2 are the steps -1, 0, +1, as in the released code; the walk starts at 0.
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class CycleNavigation(Task):
    """Steps in, the sum of the steps modulo 5 out. Permuting the input changes nothing."""

    inputs, num_classes = 3, 5
    level = 'regular'
    alphabet, answers = '-0+', '01234'

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, 3)
        return x, jnp.where(jnp.arange(max_length) < length, x - 1, 0).sum(keepdims=True) % 5
