"""Duplicate (context-sensitive; Delétang et al., 2023, arXiv:2207.02098).

101 -> 101101
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class DuplicateString(Task):
    """Binary string in, the string twice out, without a separator."""

    inputs = num_classes = 2
    level = 'context-sensitive'

    def output_length(self, length):
        return 2 * length

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, 2)
        return x, x[jnp.arange(2 * max_length) % length]
