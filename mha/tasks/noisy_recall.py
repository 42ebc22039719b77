"""Noisy in-context recall (MAD; Poli et al., 2024, arXiv:2403.17844): pairs of a key and its value, and pairs of noise.

    k3 v0  n7 n2  k1 v5  k3 v0  n1 n1  k1        v0 after the second k3, v5 after the second k1

Every key has one value in an example, drawn uniformly, as are the keys of pairs. A pair is noise with probability
`noise`. At least one pair shows a key; the last one repeats one of the keys shown, all equally likely.
    causal:         the answer at every key that occurred before is its value.
    bidirectional:  later tokens are visible, so only the value of the last key, which is not shown, is the answer.
An example of length l has floor(l / 2) pairs, at least two, without the last value.

Published: 8 keys, 8 values, 16 symbols of noise, l = 128; also up to 64 each and l = 1024. With `noise=0` it is MAD's
in-context recall. MAD trains on all tokens (`loss='all'`), and scores answers. In the release the pair that must not be
noise may be the last, which never is.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Bound, Count, Several
from mha.tasks._in_context import InContext, Loss


class NoisyRecall(InContext):
    """Pairs of keys and values among noise in, the values of repeated keys out."""

    def __init__(
        self,
        noise: Annotated[float, Bound('at least 0 and below 1', lambda value: 0 <= value < 1)] = 0.2,
        keys: Several = 8,
        values: Several = 8,
        noise_symbols: Count = 16,
        loss: Loss = 'answers',
        *,
        causal: bool = False,
    ):
        super().__init__(keys, values, tuple(f'n{i}' for i in range(noise_symbols)), loss, causal=causal)
        self.noise = noise

    def pairs(self, length):
        """Number of pairs, the last one included."""
        return length // 2 + (length < 4) * (2 - length // 2)

    def input_length(self, length):
        return 2 * self.pairs(length) - 1

    def num_tokens(self, length):
        return self.input_length(length) + (not self.causal)

    def stream(self, key, length, max_length):
        noise_key, kept_key, symbol_key, key_key, value_key, last_key = jax.random.split(key, 6)
        pair, last = jnp.arange(self.pairs(max_length)), self.pairs(length) - 1
        kept = jax.random.randint(kept_key, (), 0, last)
        is_noise = (jax.random.uniform(noise_key, pair.shape) < self.noise) & (pair != kept)
        shows = ~is_noise & (pair < last)
        keys = jax.random.randint(key_key, pair.shape, 0, self.keys)
        values = jax.random.randint(value_key, (self.keys,), self.keys, self.keys + self.values)
        shown = jnp.zeros(self.keys, bool).at[jnp.where(shows, keys, self.keys)].set(True, mode='drop')
        asked = jnp.argmax(jnp.where(shown, jax.random.uniform(last_key, (self.keys,)), -1.0))
        keys, shows = jnp.where(pair == last, asked, keys), shows | (pair == last)

        first = jnp.full(self.keys, pair.size).at[jnp.where(shows, keys, self.keys)].min(pair, mode='drop')
        again = shows & (pair > first[keys])
        symbols = jnp.stack([keys, values[keys]], axis=1)
        noise = jax.random.randint(symbol_key, symbols.shape, self.keys + self.values, self.inputs)
        symbols = jnp.where(shows[:, None], symbols, noise)
        return symbols.reshape(-1), jnp.stack([jnp.zeros_like(again), again], axis=1).reshape(-1)

    def sample(self, key, length, max_length):
        symbols, _ = self.stream(key, length, max_length)
        return symbols[:-1], symbols[self.input_length(length)][None]
