"""The word problem of S5 (Merrill et al., 2024, arXiv:2404.08819; Liu et al., 2022, arXiv:2210.10749): the product of
permutations of five elements. It is complete for NC1: no circuits of constant depth solve it, if TC0 differs from NC1.

    10234 12340 -> 21340

A permutation p is written p(0) .. p(4); the first one is applied first: element 0 goes to 1, and 1 goes on to 2.
Symbols and classes are the 120 permutations in lexicographic order, so that symbol 0 is the identity.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mha.tasks.base import Task

PERMUTATIONS = {p: number for number, p in enumerate(itertools.permutations(range(5)))}
PRODUCT = np.array([[PERMUTATIONS[tuple(q[i] for i in p)] for q in PERMUTATIONS] for p in PERMUTATIONS], np.int32)
"""[p, q]: p first, then q."""


class S5(Task):
    """Permutations in, their product out."""

    level = 'regular'
    inputs = num_classes = len(PERMUTATIONS)
    alphabet = tuple(''.join(map(str, p)) for p in PERMUTATIONS)

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        x = jax.random.randint(key, (max_length,), 0, self.inputs)
        factors = jnp.where(jnp.arange(max_length) < length, x, 0)
        products = jax.lax.associative_scan(lambda p, q: jnp.asarray(PRODUCT)[p, q], factors)
        return x, products[-1:]
