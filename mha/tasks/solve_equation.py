"""Solve an equation (deterministic context-free; Delétang et al., 2023, arXiv:2207.02098): which digit, modulo 5, is x?

    (x-1)=3 -> 4

An expression of `_expressions.py` without `*`, one of its digits replaced by x, and its value. Every digit counts
once, with a plus or a minus: there is exactly one solution.
"""

import jax
import jax.numpy as jnp

from mha.tasks import _expressions
from mha.tasks.base import Task


class SolveEquation(Task):
    """Expression, `=` and value in, the digit for x out. Equations have at least three symbols: below, the input is all
    zero and so is the answer."""

    inputs, num_classes = 11, 5
    level = 'context-free'
    alphabet = '01234+-()x='

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        text_key, place_key = jax.random.split(key)
        size = jnp.maximum(length - 2, 1)
        text, value = _expressions.sample(text_key, size, max_length, times=False)
        slot = jnp.arange(max_length)
        # The next digit from a uniform place on, around the end: digits behind brackets are likelier.
        place = jax.random.randint(place_key, (), 0, size)
        is_digit = (text < _expressions.PLUS) & (slot < size)
        hidden = jnp.where(is_digit, (slot - place) % size, max_length).argmin()
        x = jnp.where(text > _expressions.TIMES, text - 1, text)
        x = jnp.where(slot == hidden, self.alphabet.index('x'), x)
        x = jnp.where(slot == size, self.alphabet.index('='), x)
        x = jnp.where(slot == size + 1, value, x)
        return jnp.where(length < 3, 0, x), jnp.where(length < 3, 0, text[hidden])[None]
