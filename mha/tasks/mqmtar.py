"""Multi-query multi-token associative recall, MQMTAR (Vasylenko et al., 2025, arXiv:2506.16640): keys and values are
words of several letters, and several keys ask for their values.

    _73:94__53:11___?53?73>    ?11?94.

The list, of l symbols, is divided into n = floor(density l / (keys + values + 2)) segments of equal size. Each has one
pair at a random place, then at least one blank `_`. No two keys are equal, and no two values. The keys in the queries
are independent, so that one may be asked for twice.

Published: l from 32 to 64 in training, up to 65,536 in tests; 256 letters. The release draws the words from a list of
10,000, another one for each split, and puts pairs near the middle of their segments; here, words and places are
uniform. Its generator is also used with l that n does not divide; the list is then shorter, here it ends in blanks.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp

from mha.arguments import Part, Repeats, Several
from mha.spec import UserError
from mha.tasks import _draws
from mha.tasks.base import Sequence


class Mqmtar(Sequence):
    """List of pairs and queries in, the values of the keys out. Words have `keys` and `values` letters. Pairs fill the
    share `density` of the list."""

    level = 'retrieval'

    def __init__(
        self,
        letters: Several = 256,
        keys: Repeats = 2,
        values: Repeats = 2,
        queries: Repeats = 4,
        density: Part = 0.8,
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        self.letters, self.keys, self.values, self.queries = letters, keys, values, queries
        self.size = keys + values + 2  # with a colon and a blank
        self.density = Fraction(density).limit_denominator(1000)
        self.alphabet = (*map(str, range(letters)), '_', ':', '?', '>', '.')
        super().__init__(bos=bos, causal=causal)

    def list_length(self, length):
        """Number of symbols before the queries: at least those of one segment."""
        shortest = -(-self.size * self.density.denominator // self.density.numerator)
        return length + (length < shortest) * (shortest - length)

    def pairs(self, length):
        """Number of pairs in a list of `length`."""
        return self.list_length(length) * self.density.numerator // (self.density.denominator * self.size)

    def prompt_length(self, length):
        return self.list_length(length) + self.queries * (self.keys + 1) + 1

    def output_length(self, length):
        return self.queries * (self.values + 1) + 1

    def sample(self, key, length, max_length):
        key_key, value_key, place_key, query_key = jax.random.split(key, 4)
        most, pairs = self.pairs(max_length), self.pairs(length)
        words = min(self.letters**self.keys, self.letters**self.values)
        if 4 * most > words:
            raise UserError(f'mqmtar: {most:,} pairs need {4 * most:,} words, not {words:,} - set more letters')
        keys = _draws.distinct_words(key_key, most, self.letters, self.keys)
        values = _draws.distinct_words(value_key, most, self.letters, self.values)

        slot, segment = jnp.arange(self.list_length(max_length)), self.list_length(length) // pairs
        start = jax.random.randint(place_key, (most,), 0, segment - self.size + 1)
        pair = jnp.minimum(slot // segment, most - 1)
        part = slot % segment - start[pair]
        written = self.concat(keys, ':', values, '_')[pair, jnp.clip(part, 0, self.size - 1)]
        shown = (slot < segment * pairs) & (part >= 0) & (part < self.size)
        symbols = jnp.where(shown, written, self.symbol('_'))
        symbols = jnp.where(slot < self.list_length(length), symbols, self.symbol(''))

        asked = jax.random.randint(query_key, (self.queries,), 0, pairs)
        queries, answers = (self.concat('?', word[asked]).reshape(-1) for word in (keys, values))
        return self.concat(symbols, queries, '>'), self.concat(answers, '.')
