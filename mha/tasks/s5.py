"""The word problem of S5 (Merrill et al., 2024, arXiv:2404.08819; Liu et al., 2022, arXiv:2210.10749): the product of
permutations of five elements. It is complete for NC1: if TC0 differs from NC1, no threshold circuits of constant depth
solve it.

    10234 12340 -> 21340

A permutation p is written p(0) .. p(4); the first one is applied first: element 0 goes to 1, and 1 goes on to 2.
Symbols and classes are the 120 permutations in lexicographic order, so that symbol 0 is the identity. With
`steps='all'`, as in Liu et al., a causal model answers at each permutation with the product so far.
"""

import itertools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mha.tasks.base import Batch, Task

PERMUTATIONS = {p: number for number, p in enumerate(itertools.permutations(range(5)))}
PRODUCT = np.array([[PERMUTATIONS[tuple(q[i] for i in p)] for q in PERMUTATIONS] for p in PERMUTATIONS], np.int32)
"""Table of products: entry [p, q] applies p first, then q."""


class S5(Task):
    """Permutations in, their product out; with `steps='all'`, the product so far at every step."""

    level = 'regular'
    inputs = num_classes = len(PERMUTATIONS)
    alphabet = tuple(''.join(map(str, p)) for p in PERMUTATIONS)

    def __init__(self, steps: Literal['last', 'all'] = 'last', *, causal: bool = False):
        super().__init__(causal=causal)
        if steps == 'all' and not causal:
            raise ValueError("steps='all' is for causal models, which see no later permutations")
        self.steps = steps

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        return length + (self.steps == 'last')

    def products(self, key, length, max_length):
        """Permutations [max_length] and the products so far, which stay constant after `length`."""
        x = jax.random.randint(key, (max_length,), 0, self.inputs)
        factors = jnp.where(jnp.arange(max_length) < length, x, 0)
        return x, jax.lax.associative_scan(lambda p, q: jnp.asarray(PRODUCT)[p, q], factors)

    def sample(self, key, length, max_length):
        x, products = self.products(key, length, max_length)
        return x, products[-1:]

    def example(self, key, length, max_length):
        if self.steps == 'last':
            return super().example(key, length, max_length)
        x, products = self.products(key, length, max_length)
        valid = jnp.arange(max_length) < length
        tokens, targets = jnp.where(valid, x, 0), jnp.where(valid, products, 0)
        return Batch(tokens=tokens, valid=valid, targets=targets, loss_mask=valid, metric_mask=valid)
