"""Base class of multi-query recall (Arora et al., 2023, arXiv:2312.04927): a context of keys with their values, then
the keys again, each once, among filler."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from mha.arguments import above, at_least, at_most
from mha.tasks.base import Batch, Task

Power = Annotated[float, above(0), at_most(1000)]
"""Exponent a of the weights of slots; 1 makes all slots equally likely."""
Noise = Annotated[int, at_least(0), at_most(2**20)]
"""Number of symbols that occur in filler alone; 0 for the filler of the release."""


class Associations(NamedTuple):
    """Keys and values of one example. Its context is entries in a row, each a key and a value."""

    keys: Int[Array, 'K W']
    """Keys of W symbols each."""
    values: Int[Array, 'K']
    """Values that the keys ask for."""
    pairs: Int[Array, ''] | int
    """Number of keys that are used."""
    entries: Int[Array, ''] | int
    """Number of entries of the context."""
    entry_keys: Int[Array, 'E']
    """Index of the key of each entry."""
    entry_values: Int[Array, 'E']
    """Value of each entry."""


class Recall(Task):
    """Context and keys in, the values of the keys out. Subclasses define `associations`, the number of symbols of a key
    (`width`), and the `shortest_length`, to which lower ones are raised. There are `vocabulary` symbols, then `noise`
    symbols of filler."""

    level = 'retrieval'
    baseline_per_position = False
    width = 1
    shortest_length: int

    def __init__(self, vocabulary: int, power: float, random_filler: bool, noise: int, *, causal: bool):
        super().__init__(causal=causal)
        self.num_classes, self.inputs = vocabulary, vocabulary + noise
        self.power, self.random_filler, self.noise = power, random_filler, noise
        self.alphabet = (*map(str, range(vocabulary)), *(f'n{i}' for i in range(noise)))

    def associations(self, key: PRNGKeyArray, value_key: PRNGKeyArray, length: Int[Array, '']) -> Associations:
        """Keys, values and context of one example of `length`."""
        raise NotImplementedError

    def filler(self, key: PRNGKeyArray, size: int) -> Int[Array, '{size}']:
        """Symbols between queries: noise, or else any symbols or zeros."""
        if self.noise:
            return jax.random.randint(key, (size,), self.num_classes, self.inputs)
        return jax.random.randint(key, (size,), 0, self.inputs) * self.random_filler

    def recall(self, key, length, max_length):
        """Tokens [max(max_length, shortest)], the value that each token asks for (0 for none), and one more query: the
        symbols of a key and its value."""
        key_key, value_key, slot_key, filler_key, query_key = jax.random.split(key, 5)
        length, max_length = jnp.maximum(length, self.shortest_length), max(max_length, self.shortest_length)
        found, entry = self.associations(key_key, value_key, length), self.width + 1

        # The slots with the largest log weight + Gumbel noise, in that order, are a draw without replacement.
        slot = jnp.arange(max_length // entry)
        score = (self.power - 1) * jnp.log1p(slot) + jax.random.gumbel(slot_key, slot.shape)
        in_reach = slot < (length - entry * found.entries) // entry
        asks_for = jnp.argsort(jnp.argsort(-jnp.where(in_reach, score, -jnp.inf)))
        asks_for = jnp.where(asks_for < found.pairs, asks_for, -1)

        index = jnp.arange(max_length)
        number, part = index // entry, index % entry
        in_context = number < found.entries
        asked = asks_for[jnp.clip(number - found.entries, 0, slot.size - 1)]
        number = jnp.minimum(number, found.entry_keys.size - 1)
        which = jnp.where(in_context, found.entry_keys[number], asked)
        key_symbol = found.keys[which, jnp.minimum(part, self.width - 1)]
        rest = jnp.where((part < self.width) & (asked >= 0), key_symbol, self.filler(filler_key, max_length))
        context = jnp.where(part < self.width, key_symbol, found.entry_values[number])
        asks = ~in_context & (part == self.width - 1) & (asked >= 0)
        query = jax.random.randint(query_key, (), 0, found.pairs)
        tokens = jnp.where(in_context, context, rest)
        return tokens, jnp.where(asks, found.values[asked], 0), found.keys[query], found.values[query]

    def input_length(self, length):
        shortest = self.shortest_length
        return length + (length < shortest) * (shortest - length) + (not self.causal) * self.width

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        return self.input_length(length) + (not self.causal)

    def sample(self, key, length, max_length):
        tokens, _, query, value = self.recall(key, length, max_length)
        tokens = jnp.concatenate([tokens, jnp.zeros_like(query)])
        part = jnp.arange(tokens.size) - (self.input_length(length) - self.width)
        asks = (part >= 0) & (part < self.width)
        return jnp.where(asks, query[jnp.clip(part, 0, self.width - 1)], tokens), value[None]

    def example(self, key, length, max_length):
        if not self.causal:
            return super().example(key, length, max_length)
        tokens, targets, _, _ = self.recall(key, length, max_length)
        valid = jnp.arange(tokens.size) < self.input_length(length)
        asks = targets > 0  # values are never 0
        return Batch(tokens=jnp.where(valid, tokens, 0), valid=valid, targets=targets, loss_mask=asks, metric_mask=asks)
