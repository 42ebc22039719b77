"""Selective copying (Gu & Dao, 2023, arXiv:2312.00752; Poli et al., 2024, arXiv:2403.17844): repeat the tokens, without
the blanks between them.

    3 . . 1 . 4 . >      3 1 4

An example of length l has l tokens: those to copy, l - 2 `copies` - 1 blanks, the symbol `>` and one placeholder per
answer. The shortest has no blanks.

All places of the tokens are equally likely. With `places='released'`, each blank is put before one of the tokens, as in
MAD: tokens are then spread evenly, and no blank is behind the last one. In the release that draw ignores the seed.

Published: 16 to 96 tokens of 14 to 126 kinds, l from 256 to 1024.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.arguments import Count, Several
from mha.tasks import _draws
from mha.tasks.base import Task


class SelectiveCopying(Task):
    """`copies` tokens of `symbols` kinds among blanks in, the tokens out."""

    level = 'context-sensitive'
    metric = 'exact_match'

    def __init__(
        self,
        copies: Count = 16,
        symbols: Several = 14,
        places: Literal['uniform', 'released'] = 'uniform',
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.copies, self.places = copies, places
        self.inputs, self.num_classes = symbols + 2, symbols
        self.alphabet = (*map(str, range(symbols)), '.', '>')

    def input_length(self, length):
        shortest = 2 * self.copies + 1
        return length + (length < shortest) * (shortest - length) - self.copies

    def output_length(self, length):
        return self.copies

    def sample(self, key, length, max_length):
        token_key, place_key = jax.random.split(key)
        tokens = jax.random.randint(token_key, (self.copies,), 0, self.num_classes)
        places, most = self.input_length(length) - 1, self.input_length(max_length) - 1
        slot = jnp.arange(most + 1)
        if self.places == 'uniform':
            is_token = _draws.bits(place_key, self.copies, places, most) == 1
        else:
            behind = jax.random.randint(place_key, (most,), 0, self.copies)
            blanks = jnp.zeros(self.copies, int).at[behind].add(jnp.arange(most) < places - self.copies)
            place = jnp.arange(self.copies) + jnp.cumsum(blanks)
            is_token = jnp.zeros(most, bool).at[place].set(True)
        is_token = jnp.append(is_token, False)
        x = jnp.where(is_token, tokens[jnp.clip(jnp.cumsum(is_token) - 1, 0)], self.num_classes)
        return jnp.where(slot == places, self.num_classes + 1, x), tokens
