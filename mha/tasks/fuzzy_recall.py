"""Fuzzy in-context recall (MAD; Poli et al., 2024, arXiv:2403.17844): keys and values are motifs of several symbols, so
that a model must find out where they begin and end.

    . k2 k0 v4 k5 v1 v0 k2 k0 v4 k1 v2 k5 v1        v4 after the second k2 k0; v1, v0 after the second k5

A motif has 1 .. m distinct symbols; the size and the symbols are uniform. Every key has one value in an example. The
last key is one of those shown. Examples are padded on the left with `.` to l symbols, of which at most 4 m - 3 are
padding. If a key occurred before, the symbols of its value are answers. With `sizes='longest'` all keys have m symbols,
as in tests of MAD; values still have 1 .. m.

Published: 7 keys and 8 values, m = 3, l = 128; also up to 63 each, l = 1024. MAD trains on all tokens (`loss='all'`),
and scores answers. A model of all tokens cannot know where a key of any size ends, so it has accuracy 1 for
`sizes='longest'` at most. In the release the last key may not have been shown before.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from mha.arguments import Several, between
from mha.spec import UserError
from mha.tasks import _draws
from mha.tasks._in_context import InContext, Loss
from mha.tasks.base import EMPTY


class FuzzyRecall(InContext):
    """Motifs of keys and values in, the values of repeated keys out. m = `motif`."""

    def __init__(
        self,
        motif: Annotated[int, between(1, 100)] = 3,
        keys: Several = 7,
        values: Several = 8,
        sizes: Literal['any', 'longest'] = 'any',
        loss: Loss = 'answers',
        *,
        causal: bool = False,
    ):
        if not causal:
            raise UserError('the task is for causal models, which see no later symbols - set model.causal=True')
        if motif > min(keys, values):
            raise ValueError(f'motif must be at most keys = {keys} and values = {values}, not {motif}')
        super().__init__(keys, values, ('.',), loss, causal=causal)
        self.motif, self.sizes = motif, sizes

    def input_length(self, length):
        shortest = 4 * self.motif - 1
        return length + (length < shortest) * (shortest - length)

    def num_tokens(self, length):
        return self.input_length(length)

    def motifs(self, key, number, symbols, longest):
        """Motifs [number, m] of distinct symbols, the rest of which is EMPTY."""
        size_key, symbol_key = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(symbol_key, (number, symbols)), axis=1)[:, : self.motif]
        size = jax.random.randint(size_key, (number, 1), self.motif if longest else 1, self.motif + 1)
        return jnp.where(jnp.arange(self.motif)[None] < size, order, EMPTY)

    def stream(self, key, length, max_length):
        key_key, value_key, last_key = jax.random.split(key, 3)
        length, most = self.input_length(length) + 1, self.input_length(max_length) + 1
        pair = jnp.arange(most // 2)
        keys = self.motifs(key_key, pair.size, self.keys, self.sizes == 'longest')
        first = _draws.first_equal(keys)
        values = self.motifs(value_key, pair.size, self.values, False)[first]
        symbols = jnp.concatenate([keys, jnp.where(values == EMPTY, EMPTY, self.keys + values)], axis=1)

        # As many pairs as fit before the longest last one; then a repetition.
        fits = jnp.cumsum(jnp.sum(symbols != EMPTY, axis=1)) <= length - 2 * self.motif
        pairs = jnp.sum(fits)
        again = (first < pair) | (pair == pairs)
        symbols = jnp.where((pair == pairs)[:, None], symbols[jax.random.randint(last_key, (), 0, pairs)], symbols)
        symbols = jnp.where((pair <= pairs)[:, None], symbols, EMPTY)
        asked = again[:, None] & (jnp.arange(2 * self.motif) >= self.motif)[None]

        real = symbols.reshape(-1) != EMPTY
        place = jnp.where(real, jnp.cumsum(real) - 1 + length - jnp.sum(real), most)
        padding = jnp.full(most, self.inputs - 1)
        symbols = padding.at[place].set(symbols.reshape(-1), mode='drop')
        return symbols, jnp.zeros(most, bool).at[place].set(asked.reshape(-1), mode='drop')
