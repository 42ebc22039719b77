"""Even pairs (regular; Delétang et al., 2023, arXiv:2207.02098): are the unequal neighbours even in number?

    001110 -> 0        0101001 -> 1

Equivalently: do the first and the last symbol differ?
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class EvenPairs(Task):
    """Binary string in, one bit out: the parity of the number of unequal neighbours."""

    inputs = num_classes = 2
    level = 'regular'

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, 2)
        unequal = (x[1:] != x[:-1]) & (jnp.arange(1, max_length) < length)
        return x, unequal.sum(keepdims=True) % 2
