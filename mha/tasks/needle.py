"""Needle in a haystack, or passkey retrieval (Mohtashami & Jaggi, 2023, arXiv:2305.16300): a key hidden in filler.

tqa#53810xmkwb? -> 53810

The input consists of random letters, the filler, with a marker and the m digits of the key somewhere among them. It
ends in the query symbol. An example of length l has l input symbols; the shortest, with m + 2 symbols, has no filler.
"""

import string
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.spec import Share, at_least, at_most, between
from mha.tasks.base import Task


class Needle(Task):
    """Filler with a hidden key in, the key out. The key has `digits` digits, the filler `filler` kinds of letters.
    `depth` is the share of the filler before the marker, rounded to a whole number of letters; None draws the place of
    the marker uniformly."""

    level = 'retrieval'
    metric = 'exact_match'
    num_classes = 10

    def __init__(
        self,
        digits: Annotated[int, at_least(1), at_most(1000)] = 5,
        filler: Annotated[int, between(1, 26)] = 26,
        depth: Share | None = None,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.digits, self.filler, self.depth = digits, filler, depth
        self.inputs = 10 + filler + 2
        self.alphabet = string.digits + string.ascii_lowercase[:filler] + '#?'

    def input_length(self, length):
        shortest = self.digits + 2
        return length + (length < shortest) * (shortest - length)

    def output_length(self, length):
        return self.digits

    def sample(self, key, length, max_length):
        filler_key, digits_key, depth_key = jax.random.split(key, 3)
        length, slot = self.input_length(length), jnp.arange(self.input_length(max_length))
        filler = jax.random.randint(filler_key, slot.shape, 10, 10 + self.filler)
        needle = jax.random.randint(digits_key, (self.digits,), 0, 10)
        letters = length - (self.digits + 2)
        if self.depth is None:
            marker = jax.random.randint(depth_key, (), 0, letters + 1)
        else:
            marker = jnp.round(self.depth * letters).astype(jnp.int32)
        digit = slot - marker - 1
        x = jnp.where((digit >= 0) & (digit < self.digits), needle[jnp.clip(digit, 0, self.digits - 1)], filler)
        return jnp.where(slot == marker, self.inputs - 2, jnp.where(slot == length - 1, self.inputs - 1, x)), needle
