"""Interleaved majority (Huang et al., 2024, arXiv:2410.02140): majorities of every third bit, for each of three starts.

    $ 1 0 0 1 0 1 0 1 1 >      1 0 1 .

The first of three strings is 1 1 0, the second 0 0 1, the third 0 1 1, written in turn. Each is drawn as in `majority`:
its number of zeros is uniform, ties excluded. `$` begins a sequence. Published: three strings, trained on lengths up to
50, tested on 51 to 150. Length is the number of bits, rounded down to a multiple of the period and at least that; the
release rounds it to the nearest multiple within the range of lengths.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Several
from mha.tasks import _draws
from mha.tasks.base import EMPTY, Sequence


class MajorityInterleaved(Sequence):
    """Bits of `period` strings in turn in, the majority of each out. A C-RASP program needs positions to compute it:
    models without a position scheme are predicted to fail."""

    level = 'context-sensitive'
    alphabet = '01>.'

    def __init__(self, period: Several = 3, *, causal: bool = False):
        self.period = period
        super().__init__(bos=True, causal=causal)

    def string_length(self, length):
        """Number of bits of each of the strings."""
        return length // self.period + (length < self.period)

    def prompt_length(self, length):
        return self.period * self.string_length(length) + 1

    def output_length(self, length):
        return self.period + 1

    def sample(self, key, length, max_length):
        length, max_length = self.string_length(length), self.string_length(max_length)
        bits = jax.vmap(lambda key: _draws.uneven_bits(key, length, max_length))(jax.random.split(key, self.period))
        zeros = length - bits.sum(axis=1)
        x = jnp.where((jnp.arange(max_length) < length)[None], bits, EMPTY).T.reshape(-1)
        return self.concat(x, '>'), self.concat((2 * zeros < length).astype(jnp.int32), '.')
