"""Needle in a haystack, or passkey retrieval (Mohtashami & Jaggi, 2023, arXiv:2305.16300): a key hidden in filler.

tqa#53810xmkwb? -> 53810

The input consists of random letters, the filler, with a marker and the m digits of the key somewhere among them. It
ends in the query symbol. An example of length l has l input symbols; the shortest has no filler.

RULER (Hsieh et al., 2024, arXiv:2404.06654) hides several needles. With several keys, each has a name, a capital
letter, and the query names those whose values are asked for, in the order of the answer:

needle(digits=2, keys=3, queries=2)     t#K53qa#A07#Rm98x?RK -> 9853
needle(digits=2, values=2)              t#53qa#07x?          -> 5307

A key with several values has a needle for each, and the answer has them in the order of the input. The needles stand
in random order at independent places. RULER's settings, with 7 digits: multikey `keys=4`, multivalue `values=4`,
multiquery `keys=4, queries=4`. It takes values in any order, and scores the share of them that is found. Its haystack
that consists of needles is `induction`. Its release shuffles the needles of all examples alike.
"""

import string
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Share, at_least, at_most, between
from mha.tasks import _haystack
from mha.tasks.base import Task


class Needle(Task):
    """Filler with hidden needles in, the values of the keys asked for out. A value has `digits` digits, the filler
    `filler` kinds of letters. `depth` is the share of the filler before the only needle, rounded to a whole number of
    letters; None draws places uniformly. There are `keys` keys, each with `values` values; `queries` keys are asked
    for."""

    level = 'retrieval'
    metric = 'exact_match'
    num_classes = 10

    def __init__(
        self,
        digits: Annotated[int, at_least(1), at_most(1000)] = 5,
        filler: Annotated[int, between(1, 26)] = 26,
        depth: Share | None = None,
        keys: Annotated[int, between(1, 26)] = 1,
        values: Annotated[int, between(1, 100)] = 1,
        queries: Annotated[int, between(1, 26)] = 1,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        if queries > keys:
            raise ValueError(f'queries must be at most keys={keys}, not {queries}')
        if depth is not None and keys * values > 1:
            raise ValueError(f'depth must be None for several needles, not {depth}')
        self.digits, self.filler, self.depth = digits, filler, depth
        self.keys, self.values, self.queries = keys, values, queries
        names = string.ascii_uppercase if keys > 1 else ''
        self.alphabet = string.digits + string.ascii_lowercase[:filler] + '#?' + names
        self.inputs = len(self.alphabet)
        named = len(names) > 0
        self.needles, self.end = keys * values * (1 + named + digits), 1 + named * queries

    def input_length(self, length):
        shortest = self.needles + self.end
        return length + (length < shortest) * (shortest - length)

    def output_length(self, length):
        return self.queries * self.values * self.digits

    def sample(self, key, length, max_length):
        filler_key, digits_key, place_key, name_key, order_key = jax.random.split(key, 5)
        length, slot = self.input_length(length), jnp.arange(self.input_length(max_length))
        filler = jax.random.randint(filler_key, slot.shape, 10, 10 + self.filler)
        marker, query = (self.alphabet.index(symbol) for symbol in '#?')
        owner = jax.random.permutation(order_key, jnp.repeat(jnp.arange(self.keys), self.values))
        value = jax.random.randint(digits_key, (owner.size, self.digits), 0, 10)
        name = query + 1 + jax.random.permutation(name_key, 26)[: self.keys, None]
        named = name[:, : self.keys > 1]
        needles = jnp.concatenate([jnp.full((owner.size, 1), marker), named[owner], value], axis=1)

        letters = length - self.needles - self.end
        if self.depth is None:
            x = _haystack.scattered(place_key, needles, filler, letters)
        else:
            x = _haystack.placed(jnp.round(self.depth * letters).astype(jnp.int32)[None], needles, filler)
        end = jnp.append(query, named[: self.queries])
        index = slot - (length - self.end)
        answer = value[jnp.argsort(owner)].reshape(self.keys, -1)[: self.queries]
        return jnp.where(index < 0, x, end[jnp.clip(index, 0, self.end - 1)]), answer.reshape(-1)
