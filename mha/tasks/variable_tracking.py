"""Variable tracking (RULER, Hsieh et al., 2024, arXiv:2404.06654): which variables have a value, directly or by copies?

    tqK=3sQ=KmxA=Qz?3        -> KQA        hops=2
    jI=4K=0Q=KeS=QW=IJ=W?0   -> KQS        hops=2, chains=2

Statements stand in filler, random letters, at independent places. The first of a chain assigns a digit, and each of the
`hops` others copies the variable before it. Chains have different digits, and their statements are mixed at random,
each chain in its own order. The input ends in a digit; the answer has the variables of its chain, in that order. With
one chain they are all variables that there are, so that no chain has to be followed: use several.

An example of length l has l input symbols; the shortest has no filler. RULER assigns numbers of five digits, takes the
variables in any order, and scores the share of them that is found. Published: 4 hops and one chain; 2 to 8 hops, and 2
to 6 chains.
"""

import string
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Count, between
from mha.tasks import _haystack
from mha.tasks.base import Task


class VariableTracking(Task):
    """Statements in filler and a value in, the variables that have it out: `hops` + 1 of them. There are `variables`
    names, `filler` kinds of letters and at most 10 chains."""

    level = 'retrieval'
    metric = 'exact_match'

    def __init__(
        self,
        hops: Count = 4,
        chains: Annotated[int, between(1, 10)] = 1,
        variables: Count = 26,
        filler: Annotated[int, between(1, 26)] = 26,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        if variables < chains * (hops + 1):
            raise ValueError(f'variables must be at least chains * (hops + 1) = {chains * (hops + 1)}, not {variables}')
        self.hops, self.chains, self.filler = hops, chains, filler
        names = string.ascii_uppercase if variables <= 26 else [f'V{i}' for i in range(variables)]
        self.answers = tuple(names[:variables])
        self.alphabet = (*string.digits, *string.ascii_lowercase[:filler], *'=?', *self.answers)
        self.inputs, self.num_classes = len(self.alphabet), variables
        self.needles = 3 * chains * (hops + 1)

    def input_length(self, length):
        shortest = self.needles + 2
        return length + (length < shortest) * (shortest - length)

    def output_length(self, length):
        return self.hops + 1

    def sample(self, key, length, max_length):
        filler_key, place_key, name_key, value_key, order_key = jax.random.split(key, 5)
        length, slot = self.input_length(length), jnp.arange(self.input_length(max_length))
        filler = jax.random.randint(filler_key, slot.shape, 10, 10 + self.filler)
        equals, query = (self.alphabet.index(symbol) for symbol in '=?')
        shape = self.chains, self.hops + 1
        variable = jax.random.permutation(name_key, self.num_classes)[: self.chains * shape[1]].reshape(shape)
        value = jax.random.permutation(value_key, 10)[: self.chains, None]

        name = query + 1 + variable
        source = jnp.concatenate([value, name[:, :-1]], axis=1)
        statements = jnp.stack([name, jnp.full(shape, equals), source], axis=-1).reshape(-1, 3)
        chain = jax.random.permutation(order_key, jnp.repeat(jnp.arange(self.chains), shape[1]))
        mixed = statements[jnp.argsort(jnp.argsort(chain))]

        x = _haystack.scattered(place_key, mixed, filler, length - self.needles - 2)
        x = jnp.where(slot == length - 2, query, jnp.where(slot == length - 1, value[0], x))
        return x, variable[0]
