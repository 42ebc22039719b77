"""Solve an equation (deterministic context-free; Delétang et al., 2023, arXiv:2207.02098): which digit, modulo 5, is x?

    (x-1)=3 -> 4

The input is an expression of `_expressions.py` without `*`, with one digit replaced by x, and its value. Every digit
counts once, with a plus or a minus sign, so that there is exactly one solution.
"""

import jax
import jax.numpy as jnp

from mha.tasks import _expressions
from mha.tasks.base import Task


class SolveEquation(Task):
    """Expression, `=` and value in, the digit for x out. Equations have at least three symbols; at shorter lengths,
    input and answer are all zero."""

    inputs, num_classes = 11, 5
    level = 'context-free'
    alphabet = '01234+-()x='

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        text_key, slot_key = jax.random.split(key)
        size = jnp.maximum(length - 2, 1)
        text, value = _expressions.sample(text_key, size, max_length, times=False)
        slot = jnp.arange(max_length)
        # x hides the first digit at or after a uniform slot, cyclically: digits after brackets are more likely.
        start = jax.random.randint(slot_key, (), 0, size)
        is_digit = (text < _expressions.PLUS) & (slot < size)
        hidden = jnp.where(is_digit, (slot - start) % size, max_length).argmin()
        x = jnp.where(text > _expressions.TIMES, text - 1, text)
        x = jnp.where(slot == hidden, self.alphabet.index('x'), x)
        x = jnp.where(slot == size, self.alphabet.index('='), x)
        x = jnp.where(slot == size + 1, value, x)
        return jnp.where(length < 3, 0, x), jnp.where(length < 3, 0, text[hidden])[None]
