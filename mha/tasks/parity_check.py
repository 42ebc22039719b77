"""Parity (regular; Delétang et al., 2023, arXiv:2207.02098): is the number of ones odd?

1010100 -> 1
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class ParityCheck(Task):
    """Binary string in, one bit out: the sum modulo 2. Permuting the input changes nothing."""

    inputs = num_classes = 2
    level = 'regular'

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, 2)
        return x, jnp.where(jnp.arange(max_length) < length, x, 0).sum(keepdims=True) % 2
