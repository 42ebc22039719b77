"""Bucket sort (context-sensitive; Delétang et al., 2023, arXiv:2207.02098): sort symbols of a small alphabet.

10204112 -> 00111224
"""

import jax
import jax.numpy as jnp

from mha.arguments import Several
from mha.tasks.base import Task


class BucketSort(Task):
    """Symbols 0 .. symbols - 1 in, sorted out. Guessing the most frequent class of each output position is a strong
    baseline."""

    level = 'context-sensitive'

    def __init__(self, symbols: Several = 5, *, causal: bool = False):
        super().__init__(causal=causal)
        self.inputs = self.num_classes = symbols
        self.alphabet = tuple(map(str, range(symbols)))

    def output_length(self, length):
        return length

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, self.inputs)
        return x, jnp.sort(jnp.where(jnp.arange(max_length) < length, x, self.inputs))
