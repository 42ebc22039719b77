"""Missing duplicate (context-sensitive; Delétang et al., 2023, arXiv:2207.02098): which symbol is hidden?

    01100?10 -> 1        1011?1. -> 0

The input is a string twice, with one symbol hidden by symbol 2, shown as `?`. Inputs of odd length end in symbol 3,
shown as `.`.
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task


class MissingDuplicateString(Task):
    """Doubled binary string with one symbol hidden in, that symbol out. The input of length 1 is a single 1."""

    inputs, num_classes = 4, 2
    level = 'context-sensitive'
    alphabet = '01?.'

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        word_key, hide_key = jax.random.split(key)
        half = jnp.maximum(length // 2, 1)
        word = jax.random.randint(word_key, (max_length,), 0, 2)
        slot = jnp.arange(max_length)
        doubled = word[slot % half]
        hidden = jax.random.randint(hide_key, (), 0, 2 * half)
        x = jnp.where(slot == hidden, 2, doubled)
        x = jnp.where((length % 2 == 1) & (slot == length - 1), 3, x)
        answer = word[hidden % half]
        alone = length == 1
        return jnp.where(alone, 1, x), jnp.where(alone, 1, answer)[None]
