"""Modular arithmetic (regular; Delétang et al., 2023, arXiv:2207.02098): the value modulo 5, `*` before `+` and `-`.

    3-4*2+1 -> 1        1+2*3-4 -> 3        1-1-1 -> 4

Expressions have odd lengths. At an even length l, the released code drops a symbol, so that inputs are those of length
l - 1. To leave even lengths out, train on lengths such as `1-39:2`.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.tasks.base import Task

PLUS, MINUS, TIMES = 5, 6, 7


class ModularArithmetic(Task):
    """Alternating digits and operators in, their value out. Inputs of even length have one symbol less, or one more
    with `even='add'`. Input symbol 8, a blank, is never drawn."""

    inputs, num_classes = 9, 5
    level = 'regular'
    alphabet = '01234+-* '

    def __init__(self, even: Literal['drop', 'add'] = 'drop', *, causal: bool = False):
        super().__init__(causal=causal)
        self.even = even

    def input_length(self, length):
        return length + (-1 if self.even == 'drop' else 1) * (1 - length % 2)

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        digit_key, operator_key = jax.random.split(key)
        digits = jax.random.randint(digit_key, (max_length // 2 + 1,), 0, 5)
        operators = jax.random.randint(operator_key, digits.shape, PLUS, TIMES + 1)
        used = jnp.arange(1, digits.size) <= self.input_length(length) // 2

        def step(state, inputs):
            """Reads an operator and a digit. `total + term` is the value so far; a following `*` multiplies `term`
            only."""
            total, term = state
            operator, digit, used = inputs
            times = operator == TIMES
            after = jnp.where(times, term * digit, jnp.where(operator == PLUS, digit, -digit))
            new = jnp.where(times, total, total + term) % 5, after % 5
            return jax.tree.map(lambda new, old: jnp.where(used, new, old), new, state), None

        (total, term), _ = jax.lax.scan(step, (jnp.int32(0), digits[0]), (operators[:-1], digits[1:], used))
        return jnp.stack([digits, operators], 1).reshape(-1), (total + term)[None] % 5
