"""Associative recall with a single query, the task of induction heads (Olsson et al., 2022, arXiv:2209.11895; Ba et
al., 2016, arXiv:1610.06258): k1 v1 .. kK vK and one of the keys again; the answer is its value.

    k3 v0  k1 v2  k7 v0  k1 -> v2

Keys are distinct, values need not be. An example of length K has K pairs.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Count, Several
from mha.spec import UserError
from mha.tasks.base import Task


class Induction(Task):
    """Pairs of a key and a value, and one of the keys, in; its value out. There are `keys` key symbols, then `values`
    value symbols. The longest length is `keys`."""

    level = 'retrieval'
    metric = 'exact_match'

    def __init__(self, keys: Count = 128, values: Several = 16, *, causal: bool = False):
        super().__init__(causal=causal)
        self.inputs, self.num_classes, self.keys = keys + values, values, keys
        self.answers = tuple(f'v{i}' for i in range(values))
        self.alphabet = (*(f'k{i}' for i in range(keys)), *self.answers)

    def input_length(self, length):
        return 2 * length + 1

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        if length > self.keys:
            raise UserError(f'induction: {length} pairs need as many keys, not {self.keys} - set keys={length} or more')
        return super().num_tokens(length)

    def sample(self, key, length, max_length):
        key_key, value_key, query_key = jax.random.split(key, 3)
        keys = jax.random.permutation(key_key, self.keys)
        values = jax.random.randint(value_key, (max_length,), 0, self.num_classes)
        query = jax.random.randint(query_key, (), 0, length)
        at = jnp.arange(2 * max_length + 1)
        pair = jnp.where(at == 2 * length, query, jnp.minimum(at // 2, max_length - 1))
        return jnp.where(at % 2 == 0, keys[pair], self.keys + values[pair]), values[query][None]
