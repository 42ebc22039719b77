"""Modular arithmetic with brackets (deterministic context-free; Delétang et al., 2023, arXiv:2207.02098).

    (3*(-2)) -> 4        ((4)-(1+3)) -> 0

Expressions are those of `_expressions.py`; the answer is the value modulo 5. Because of products with a factor 0, three
answers in ten are 0.
"""

from mha.tasks import _expressions
from mha.tasks.base import Task


class ModularArithmeticBrackets(Task):
    """Expression with brackets, `+`, `-` and `*` in, its value out. Input symbol 10 is never drawn."""

    inputs, num_classes = 11, 5
    level = 'context-free'
    alphabet = f'{_expressions.CHARACTERS}x'

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        text, value = _expressions.sample(key, length, max_length)
        return text, value[None]
