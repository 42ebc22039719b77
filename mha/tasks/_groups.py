"""Finite groups, and the base class of their word problems."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from mha.spec import UserError
from mha.tasks._labels import labelled
from mha.tasks.base import Task

LARGEST = 1024
"""Largest number of elements, since the table of products has its square."""


@functools.cache
def group(name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the elements of a group, the identity first, and the table of products: entry [p, q] applies p first,
    then q. `name` is S, A or Z with a number, or several of them joined by x, such as 'A4xZ5'. Raises `UserError` for
    others, and for groups of more than `LARGEST` elements."""
    names, product = ('',), np.zeros((1, 1), np.int32)
    for factor in name.split('x'):
        if not re.fullmatch('[SAZ][1-9][0-9]{0,3}', factor):
            raise UserError(f"name must be S5, A5, Z60 or the like, or a product such as 'A4xZ5', not {name!r}")
        kind, number = factor[0], int(factor[1:])
        order = number if kind == 'Z' else math.factorial(number) // (1 + (kind == 'A' and number > 1))
        if len(names) * order > LARGEST:
            raise UserError(f'the group {name} has more than {LARGEST:,} elements')
        more, table = _cyclic(number) if kind == 'Z' else _permutations(number, even=kind == 'A')
        names = tuple(','.join(filter(None, pair)) for pair in itertools.product(names, more))
        # Element (a, b) of a product has the number a * order + b.
        product = product.repeat(order, 0).repeat(order, 1) * order + np.tile(table, product.shape)
    return names, product


def _cyclic(number: int) -> tuple[list[str], np.ndarray]:
    element = np.arange(number, dtype=np.int32)
    return [*map(str, range(number))], (element[:, None] + element) % number


def _permutations(number: int, even: bool) -> tuple[list[str], np.ndarray]:
    """Permutations of 0 .. number - 1 in lexicographic order, all or the even ones."""
    found = [p for p in itertools.permutations(range(number)) if not (even and _inversions(p) % 2)]
    index = {p: i for i, p in enumerate(found)}
    table = np.array([[index[tuple(q[i] for i in p)] for q in found] for p in found], np.int32)
    return [''.join(map(str, p)) for p in found], table


def _inversions(p: tuple[int, ...]) -> int:
    return sum(a > b for a, b in itertools.combinations(p, 2))


class WordProblem(Task):
    """Elements of the group `name` in, their product out; with `every=True`, the product so far at every element."""

    level = 'regular'

    def __init__(self, name: str, every: bool, *, causal: bool = False):
        super().__init__(causal=causal)
        self.name, self.every = name, every
        self.alphabet, _ = group(name)
        self.inputs = self.num_classes = len(self.alphabet)

    def output_length(self, length):
        return length if self.every else 1

    def num_tokens(self, length):
        return length + (not self.every)

    def products(self, key, length, max_length):
        """Elements [max_length] and the products so far, which stay constant after `length`."""
        x = jax.random.randint(key, (max_length,), 0, self.inputs)
        factors = jnp.where(jnp.arange(max_length) < length, x, 0)
        table = jnp.asarray(group(self.name)[1])
        return x, jax.lax.associative_scan(lambda p, q: table[p, q], factors)

    def sample(self, key, length, max_length):
        x, products = self.products(key, length, max_length)
        return x, products if self.every else products[-1:]

    def example(self, key, length, max_length):
        if not self.every:
            return super().example(key, length, max_length)
        x, products = self.products(key, length, max_length)
        return labelled(x, products, length)
