"""N-gram lookup (Jelassi et al., 2024, arXiv:2402.01032): a string and one of its n-grams; the answer is what follows
the n-gram in the string.

    suffix:    cabdcbe|bd      cbe.
    prefix:    bd|cabdcbe|     cbe.

The n-gram is one of those that occur once in the string, uniformly; if none does, of those that occur more often, and
the answer follows its first occurrence. The answer is the rest of the string, or its first `answer` letters. Letters
are uniform and independent. Length is that of the string; the shortest is n + 1, or n + `answer`.

Published: 26 letters; `$` begins a sequence (`bos=True`). The release packs several examples into each training
sequence. It draws from all n-grams, including those that occur more than once.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from mha.arguments import Repeats, Shift, between
from mha.tasks import _draws
from mha.tasks.base import EMPTY, Sequence


class NgramLookup(Sequence):
    """String and an n-gram in, the letters that follow it out: `answer` of them, or all if it is 0."""

    level = 'retrieval'

    def __init__(
        self,
        form: Literal['suffix', 'prefix'] = 'suffix',
        n: Repeats = 3,
        answer: Shift = 0,
        letters: Annotated[int, between(2, 26)] = 26,
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        self.form, self.n, self.answer, self.letters = form, n, answer, letters
        self.alphabet = (*'abcdefghijklmnopqrstuvwxyz'[:letters], '|', '.')
        super().__init__(bos=bos, causal=causal)

    def string_length(self, length):
        """Number of letters of the string: at least those of the n-gram and its answer."""
        shortest = self.n + max(self.answer, 1)
        return length + (length < shortest) * (shortest - length)

    def prompt_length(self, length):
        return self.string_length(length) + self.n + 1 + (self.form == 'prefix')

    def output_length(self, length):
        return (self.answer or self.string_length(length) - self.n) + 1

    def sample(self, key, length, max_length):
        string_key, start_key = jax.random.split(key)
        length, slot = self.string_length(length), jnp.arange(self.string_length(max_length))
        string = jax.random.randint(string_key, slot.shape, 0, self.letters)
        string = jnp.where(slot < length, string, EMPTY)

        ngrams = string.at[slot[:, None] + jnp.arange(self.n)[None]].get(mode='fill', fill_value=EMPTY)
        whole = slot <= length - self.n
        ngrams = jnp.where(whole[:, None], ngrams, self.letters + slot[:, None])  # each unlike all others
        first = _draws.first_equal(ngrams) == slot
        last = _draws.first_equal(ngrams[::-1])[::-1] == slot[::-1]
        followed = slot <= length - self.n - max(self.answer, 1)
        score = jax.random.uniform(start_key, slot.shape) + last
        start = jnp.argmax(jnp.where(first & followed, score, -1.0))

        place = slot - start - self.n
        answer = jnp.where((place >= 0) & ((place < self.answer) | (self.answer == 0)), string, EMPTY)
        if self.form == 'prefix':
            return self.concat(ngrams[start], '|', string, '|'), self.concat(answer, '.')
        return self.concat(string, '|', ngrams[start]), self.concat(answer, '.')
