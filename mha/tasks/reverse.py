"""Reverse (Kazemnejad et al., 2023, arXiv:2305.19466): the tokens of the prompt backwards.

    31 4 15 >    mc    15 4 31 .
                 mc2x  15 4 31 | 15 4 31 .
                 mcrv  15 4 31 | 31 4 15 .

Published: trained on lengths up to 20, tested on 21 to 40; length is the number of tokens.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.arguments import Several
from mha.tasks.base import EMPTY, Sequence


class Reverse(Sequence):
    """Prompt of tokens 0 .. symbols - 1 in, the same backwards out; `variant` repeats them backwards (mc2x) or forwards
    (mcrv)."""

    level = 'context-free'

    def __init__(self, variant: Literal['mc', 'mc2x', 'mcrv'] = 'mc', symbols: Several = 100, *, causal: bool = False):
        self.variant, self.symbols = variant, symbols
        self.alphabet = (*map(str, range(symbols)), '>', '.', *('|',) * (variant != 'mc'))
        super().__init__(causal=causal)

    def prompt_length(self, length):
        return length + 1

    def output_length(self, length):
        return length + 1 if self.variant == 'mc' else 2 * length + 2

    def sample(self, key, length, max_length):
        tokens = jax.random.randint(key, (max_length,), 0, self.symbols)
        tokens = jnp.where(jnp.arange(max_length) < length, tokens, EMPTY)
        backwards = tokens[::-1]
        answer = {'mc': (), 'mc2x': ('|', backwards), 'mcrv': ('|', tokens)}[self.variant]
        return self.concat(tokens, '>'), self.concat(backwards, *answer, '.')
