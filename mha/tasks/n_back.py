"""N-back (Vasylenko et al., 2025, arXiv:2506.16640): at each symbol, which one was n places before it?

    3 1 4 1 5      - - 3 1 4

Symbols are uniform and independent. The first n answers are `-`. In the release, each string also begins with the
symbol of that answer.

Published: n = 2, 15 symbols, trained on lengths 32 to 64, tested up to 4,096.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Count, Several
from mha.tasks._labels import Labels


class NBack(Labels):
    """Symbols in, the symbols `n` places before them out."""

    level = 'regular'

    def __init__(self, n: Count = 2, symbols: Several = 15, *, causal: bool = False):
        super().__init__(causal=causal)
        self.n, self.inputs, self.num_classes = n, symbols, symbols + 1
        self.alphabet = tuple(map(str, range(symbols)))
        self.answers = (*self.alphabet, '-')

    def sample(self, key, length, max_length):
        x, slot = jax.random.randint(key, (max_length,), 0, self.inputs), jnp.arange(max_length)
        return x, jnp.where(slot < self.n, self.inputs, x[jnp.maximum(slot - self.n, 0)])
