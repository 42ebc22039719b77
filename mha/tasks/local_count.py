"""Local count (Vasylenko et al., 2025, arXiv:2506.16640): at each symbol, how many equal ones are directly before it?

    1 1 1 0 0 2 2 2 2      0 1 2 0 1 0 1 2 3

A string consists of runs of 2 to `longest` equal symbols; all sizes are equally likely. Neighbouring runs have
different symbols. The last run is cut at the end, so that an example of length l has l symbols; in the release their
number varies. No count of a longer string is new to a model that has seen runs of all sizes.

Published: 16 symbols, runs up to 48, trained on lengths 64 to 128.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Several
from mha.tasks._labels import Labels


class LocalCount(Labels):
    """Runs of equal symbols in, the index of each symbol in its run out."""

    level = 'regular'

    def __init__(self, longest: Several = 48, symbols: Several = 16, *, causal: bool = False):
        super().__init__(causal=causal)
        self.inputs, self.num_classes = symbols, longest
        self.alphabet, self.answers = tuple(map(str, range(symbols))), tuple(map(str, range(longest)))

    def sample(self, key, length, max_length):
        size_key, first_key, step_key = jax.random.split(key, 3)
        slot, runs = jnp.arange(max_length), max_length // 2 + 1
        end = jnp.cumsum(jax.random.randint(size_key, (runs,), 2, self.num_classes + 1))
        steps = jax.random.randint(step_key, (runs,), 1, self.inputs)
        symbol = (jax.random.randint(first_key, (), 0, self.inputs) + jnp.cumsum(steps)) % self.inputs
        run = jnp.searchsorted(end, slot, side='right')
        begin = jnp.where(run == 0, 0, end[run - 1])
        return symbol[run], slot - begin
