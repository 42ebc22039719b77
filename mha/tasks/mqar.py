"""Multi-query associative recall, MQAR (Arora et al., 2023, arXiv:2312.04927): pairs first, then keys ask for values.

    2 8 4 7 0 0 4 0 0 0 0 0 2 0 0 0        7 after the second 4, 8 after the second 2

An example of length S begins with K pairs of a key and a value: distinct keys from 1 .. V/2 - 1 and distinct values
from V/2 .. V - 1. The rest of the S tokens is divided into slots of two. K slots are drawn without replacement; slot
g = 0, 1, .. has weight (g + 1)^(a - 1). The i-th slot drawn begins with key i. All other tokens are filler: 0 or, with
`random_filler`, any of the V symbols, keys included. Filler may then contradict the pairs; with `noise=16` it consists
of 16 more symbols, which occur nowhere else.
    causal:         the answer at a repeated key is its value.
    bidirectional:  later tokens are visible, so one of the keys follows the S tokens, and its value is the answer.
An odd length ends in one more token of filler. A length below 4 K has floor(S / 4) pairs; the shortest length is 4.

With `passes=2` the list of pairs is read twice before the queries (Arora et al., 2024, arXiv:2407.05483), so that
2 (passes + 1) replaces 4 in the last sentence.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Count, Repeats
from mha.tasks._recall import Associations, Noise, Power, Recall


class Mqar(Recall):
    """Pairs and keys in, the values of the keys out. K = `pairs`, V = `vocabulary`, a = `power`; power 1 makes all
    slots equally likely."""

    def __init__(
        self,
        vocabulary: Count = 64,
        pairs: Count = 4,
        power: Power = 0.01,
        random_filler: bool = True,
        passes: Repeats = 1,
        noise: Noise = 0,
        *,
        causal: bool = False,
    ):
        if vocabulary < 2 * pairs + 2:
            raise ValueError(f'vocabulary must be at least 2 * pairs + 2 = {2 * pairs + 2}, not {vocabulary}')
        super().__init__(vocabulary, power, random_filler, noise, causal=causal)
        self.pairs, self.passes, self.shortest_length = pairs, passes, 2 * (passes + 1)

    @property
    def chance(self):
        """Accuracy of a uniform guess among the values."""
        return 1 / (self.num_classes - self.num_classes // 2)

    def associations(self, key, value_key, length):
        half = self.num_classes // 2
        keys = 1 + jax.random.permutation(key, half - 1)[: self.pairs]
        values = half + jax.random.permutation(value_key, self.num_classes - half)[: self.pairs]
        pairs = jnp.clip(length // self.shortest_length, 1, self.pairs)
        entries = jnp.arange(self.pairs * self.passes) % pairs
        return Associations(keys[:, None], values, pairs, pairs * self.passes, entries, values[entries])
