"""Reverse (deterministic context-free; Delétang et al., 2023, arXiv:2207.02098).

011010 -> 010110
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class ReverseString(Task):
    """Binary string in, the same string backwards out."""

    inputs = num_classes = 2
    level = 'context-free'

    def output_length(self, length):
        return length

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, 2)
        return x, x[jnp.clip(length - 1 - jnp.arange(max_length), 0, max_length - 1)]
