"""Majority (Huang et al., 2024, arXiv:2410.02140): the symbol that occurs most often.

    two symbols:    $ 1 1 0 1 0 >      1 .
    letters:        $ c a z c >        c .

Two symbols are 0 and 1. The number of zeros of a string of length l is uniform in 0 .. l, without l / 2; their places
are uniform. More symbols are the first letters of the alphabet, each drawn uniformly and independently, and a string is
drawn again until one letter occurs more often than any other. `$` begins a sequence. Published: 2 and 26 symbols,
trained on lengths up to 50, tested on 51 to 150; length is the number of symbols of the string. `majority_interleaved`
asks for several majorities at once.
"""

import string
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import between
from mha.tasks import _draws
from mha.tasks.base import EMPTY, Sequence


class Majority(Sequence):
    """String of `symbols` kinds of symbols in, the most frequent one out. A C-RASP program computes it, so transformers
    are predicted to learn it at all lengths."""

    def __init__(self, symbols: Annotated[int, between(2, 26)] = 2, *, causal: bool = False):
        self.symbols = symbols
        self.level = 'context-free' if symbols == 2 else 'context-sensitive'
        self.alphabet = f'{"01" if symbols == 2 else string.ascii_lowercase[:symbols]}>.'
        super().__init__(bos=True, causal=causal)

    def prompt_length(self, length):
        return length + 1

    def output_length(self, length):
        return 2

    def sample(self, key, length, max_length):
        draw = _draws.uneven_bits if self.symbols == 2 else self.letters
        x = draw(key, length, max_length)
        x = jnp.where(jnp.arange(max_length) < length, x, EMPTY)
        return self.concat(x, '>'), self.concat(self.counts(x).argmax(keepdims=True), '.')

    def counts(self, x):
        """Number of occurrences [symbols] of each symbol in x [N]."""
        return (x[:, None] == jnp.arange(self.symbols)[None]).sum(0)

    def letters(self, key, length, max_length):
        """Independent letters [max_length], of which the first `length` have one most frequent letter."""

        def draw(key):
            return jax.random.randint(key, (max_length,), 0, self.symbols)

        def tied(key):
            x = jnp.where(jnp.arange(max_length) < length, draw(key), EMPTY)
            second, first = jax.lax.top_k(self.counts(x), 2)[0][::-1]
            return first == second

        return draw(jax.lax.while_loop(tied, lambda key: jax.random.split(key, 1)[0], key))
