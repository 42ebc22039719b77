"""Multi-query associative recall, MQAR (Arora et al., 2023, arXiv:2312.04927): pairs first, then keys ask for values.

    2 8 4 7 0 0 4 0 0 0 0 0 2 0 0 0        7 after the second 4, 8 after the second 2

An example of length S begins with K pairs of a key and a value: distinct keys from 1 .. V/2 - 1 and distinct values
from V/2 .. V - 1. The rest of the S tokens is divided into slots of two. K slots are drawn without replacement; slot
g = 0, 1, .. has weight (g + 1)^(a - 1). The i-th slot drawn begins with key i. All other tokens are filler: 0 or, with
`random_filler`, any of the V symbols, keys included.
    causal:         the answer at a repeated key is its value.
    bidirectional:  later tokens are visible, so one of the keys follows the S tokens, and its value is the answer.
An odd length ends in one more token of filler. A length below 4 K has floor(S / 4) pairs; the shortest length is 4.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.spec import Count, above, at_most
from mha.tasks.base import Batch, Task


class Mqar(Task):
    """Pairs and keys in, the values of the keys out. K = `pairs`, V = `vocabulary`, a = `power`; power 1 makes all
    slots equally likely."""

    level = 'retrieval'
    baseline_per_position = False

    def __init__(
        self,
        vocabulary: Count = 64,
        pairs: Count = 4,
        power: Annotated[float, above(0), at_most(1000)] = 0.01,
        random_filler: bool = True,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        if vocabulary < 2 * pairs + 2:
            raise ValueError(f'vocabulary must be at least 2 * pairs + 2 = {2 * pairs + 2}, not {vocabulary}')
        self.inputs = self.num_classes = vocabulary
        self.pairs, self.power, self.random_filler = pairs, power, random_filler
        self.alphabet = tuple(str(symbol) for symbol in range(vocabulary))

    @property
    def chance(self):
        """Accuracy of a uniform guess among the values."""
        return 1 / (self.inputs - self.inputs // 2)

    def recall(self, key, length, max_length):
        """Tokens [max(max_length, 4)], the value that each token asks for (0 for none), and one more query: a key and
        its value."""
        key_key, value_key, slot_key, filler_key, query_key = jax.random.split(key, 5)
        length, max_length = jnp.maximum(length, 4), max(max_length, 4)
        pairs, half = jnp.clip(length // 4, 1, self.pairs), self.inputs // 2
        keys = 1 + jax.random.permutation(key_key, half - 1)[: self.pairs]
        values = half + jax.random.permutation(value_key, self.inputs - half)[: self.pairs]

        # The slots with the largest log weight + Gumbel noise, in that order, are a draw without replacement.
        slot = jnp.arange(max_length // 2)
        score = (self.power - 1) * jnp.log1p(slot) + jax.random.gumbel(slot_key, slot.shape)
        in_reach = slot < (length - 2 * pairs) // 2
        asks_for = jnp.argsort(jnp.argsort(-jnp.where(in_reach, score, -jnp.inf)))
        asks_for = jnp.where(asks_for < pairs, asks_for, -1)

        index = jnp.arange(max_length)
        first = index % 2 == 0
        pair = jnp.minimum(index // 2, self.pairs - 1)
        filler = jax.random.randint(filler_key, index.shape, 0, self.inputs) * self.random_filler
        asked = asks_for[jnp.maximum(index // 2 - pairs, 0)]
        asks = first & (index >= 2 * pairs) & (asked >= 0)
        rest = jnp.where(asks, keys[asked], filler)
        tokens = jnp.where(index >= 2 * pairs, rest, jnp.where(first, keys[pair], values[pair]))
        query = jax.random.randint(query_key, (), 0, pairs)
        return tokens, jnp.where(asks, values[asked], 0), keys[query], values[query]

    def input_length(self, length):
        return length + (length < 4) * (4 - length) + (not self.causal)

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        return self.input_length(length) + (not self.causal)

    def sample(self, key, length, max_length):
        tokens, _, query, value = self.recall(key, length, max_length)
        tokens = jnp.append(tokens, 0)
        return jnp.where(jnp.arange(tokens.size) == self.input_length(length) - 1, query, tokens), value[None]

    def example(self, key, length, max_length):
        if not self.causal:
            return super().example(key, length, max_length)
        tokens, targets, _, _ = self.recall(key, length, max_length)
        valid = jnp.arange(tokens.size) < self.input_length(length)
        asks = targets > 0  # values are never 0
        return Batch(tokens=jnp.where(valid, tokens, 0), valid=valid, targets=targets, loss_mask=asks, metric_mask=asks)
