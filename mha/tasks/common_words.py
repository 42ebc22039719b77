"""Common words (RULER, Hsieh et al., 2024, arXiv:2404.06654): which words occur more often than the others?

    w7 w2 w5 w2 w7 w9 w7 w2  -> w7 w2        common=2, often=3, rare=1

`common` words occur `often` times each, the others `rare` times, the last of them less if the length demands it. All
orders are equally likely. The answer has the common words, in the order in which they first occur.

An example of length l has l words; the shortest has no others. Published: 10 words, 30 times against 3; 6 times
against 1 in contexts of less than 4,096 tokens. RULER takes the words in any order, and scores the share of them that
is found. Its release puts common words at the same places in all examples of one length; here places are random.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Count
from mha.spec import UserError
from mha.tasks._draws import shuffled
from mha.tasks.base import Task


class CommonWords(Task):
    """Words in, the common ones out. There are `words` different words, which limits the length."""

    level = 'retrieval'
    metric = 'exact_match'

    def __init__(
        self, common: Count = 3, often: Count = 6, rare: Count = 1, words: Count = 512, *, causal: bool = False
    ):
        super().__init__(causal=causal)
        if rare >= often:
            raise ValueError(f'rare must be below often={often}, not {rare}')
        if words < common:
            raise ValueError(f'words must be at least common={common}, not {words}')
        self.common, self.often, self.rare = common, often, rare
        self.inputs = self.num_classes = words
        self.alphabet = tuple(f'w{i}' for i in range(words))

    def input_length(self, length):
        shortest = self.common * self.often
        return length + (length < shortest) * (shortest - length)

    def output_length(self, length):
        return self.common

    def num_tokens(self, length):
        needed = self.common - (self.common * self.often - self.input_length(length)) // self.rare
        if needed > self.inputs:
            raise UserError(f'common_words: length {length} needs {needed} words - set words={needed} or more')
        return super().num_tokens(length)

    def sample(self, key, length, max_length):
        name_key, order_key = jax.random.split(key)
        length, slot = self.input_length(length), jnp.arange(self.input_length(max_length))
        rest = slot - self.common * self.often
        word = shuffled(order_key, jnp.where(rest < 0, slot // self.often, self.common + rest // self.rare), length)
        first = jnp.argmax(word[None] == jnp.arange(self.common)[:, None], axis=1)
        name = jax.random.permutation(name_key, self.inputs)
        return name[word], name[jnp.argsort(first)]
