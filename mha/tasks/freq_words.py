"""Frequent words (RULER, Hsieh et al., 2024, arXiv:2404.06654): which three words occur most often?

    w4 . . w4 w9 . . w9 w4 . w6 w4 . w9 . w6 . . w4 . . .  -> w4 w9 w6

Numbers of occurrences follow a zeta law: word k of n = 2, 3, .. occurs floor(l k^-alpha / zeta(alpha)) times in an
example of l symbols. All other symbols are `.`, the most frequent one, which is not asked for. All orders are equally
likely. The answer has the three words, the most frequent one first.

The shortest length is the one from which on the numbers of the first four words differ: 53 for alpha = 2. Published:
alpha = 2. RULER takes the words in any order, and scores the share of them that is found. Its release puts them at the
same places in all examples of one length; here places are random.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import zeta

from mha.arguments import at_least, at_most, between
from mha.tasks._draws import shuffled
from mha.tasks.base import Task


class FreqWords(Task):
    """Words and dots in, the three most frequent words out. There are `words` different words; rarer ones are dots."""

    level = 'retrieval'
    metric = 'exact_match'

    def __init__(
        self,
        alpha: Annotated[float, between(1.1, 4)] = 2.0,
        words: Annotated[int, at_least(4), at_most(2**20)] = 64,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.alpha = alpha
        self.answers = tuple(f'w{i}' for i in range(words))
        self.alphabet = ('.', *self.answers)
        self.inputs, self.num_classes = words + 1, words
        enough = int(zeta(alpha) / (4**-alpha - 5**-alpha)) + 2  # numbers of neighbours differ by 1 or more
        differ = (np.diff(self.counts(enough)[:, :4]) < 0).all(1)
        self.smallest = int(np.flatnonzero(~differ).max()) + 1

    def counts(self, longest: int) -> np.ndarray:
        """Number of times [longest + 1, words] that each word occurs, by length; the most frequent first."""
        ranks = int((longest / zeta(self.alpha)) ** (1 / self.alpha)) + 1
        share = np.arange(2, 2 + min(max(ranks, 4), self.num_classes)) ** -self.alpha / zeta(self.alpha)
        return np.floor(np.arange(longest + 1)[:, None] * share).astype(np.int32)

    def input_length(self, length):
        return length + (length < self.smallest) * (self.smallest - length)

    def output_length(self, length):
        return 3

    def sample(self, key, length, max_length):
        name_key, order_key = jax.random.split(key)
        length, max_length = self.input_length(length), self.input_length(max_length)
        ends = jnp.cumsum(jnp.asarray(self.counts(max_length))[length])
        word = shuffled(order_key, jnp.searchsorted(ends, jnp.arange(max_length), side='right'), length)
        name = jax.random.permutation(name_key, self.num_classes)
        return jnp.where(word < ends.size, 1 + name[jnp.minimum(word, self.num_classes - 1)], 0), name[:3]
