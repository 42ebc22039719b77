"""Dyck-k (Hewitt et al., 2020, arXiv:2010.07515, with a bound D on the depth): strings of k kinds of brackets.

    recognition:  ([]) -> 1        ([]] -> 0        is it balanced?
    next:         ([]  -> )                         which closing bracket may follow?

A string is a random walk. Each step opens or closes a bracket, with equal probability if both are allowed; all kinds
are equally likely. Recognition: half of the strings have one symbol replaced by another, which always unbalances them.
Lengths are even: an odd length l becomes l - 1, and 1 becomes 2. Next: the walk ends inside at least one bracket.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from mha.arguments import at_most
from mha.tasks.base import Task


class Dyck(Task):
    """String of `k` kinds of brackets, nested at most `depth` deep, in; whether it is balanced, or the closing bracket
    that may follow, out. Symbol i opens a bracket that symbol k + i closes."""

    level = 'context-free'

    def __init__(
        self,
        form: Literal['recognition', 'next'] = 'recognition',
        k: Annotated[int, at_most(2**20)] = 2,
        depth: Annotated[int, at_most(2**16)] = 8,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        least = {'recognition': (1, 1), 'next': (2, 2)}[form]  # an open string of even length is two deep
        for name, value, bound in zip(('k', 'depth'), (k, depth), least, strict=True):
            if value < bound:
                raise ValueError(f'{name} must be at least {bound} for form={form!r}, not {value}')
        self.form, self.k, self.depth = form, k, depth
        self.inputs, self.num_classes = 2 * k, k if form == 'next' else 2
        opening = '([{<' if k <= 4 else tuple(f'({i}' for i in range(k))
        closing = ')]}>' if k <= 4 else tuple(f'){i}' for i in range(k))
        self.alphabet = (*opening[:k], *closing[:k])
        self.answers = self.alphabet[k:] if form == 'next' else '01'

    def input_length(self, length):
        return length if self.form == 'next' else length - length % 2 + 2 * (length < 2)

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        move_key, kind_key, label_key, index_key, symbol_key = jax.random.split(key, 5)
        length, slot = self.input_length(length), jnp.arange(self.input_length(max_length))
        levels = jnp.arange(self.depth)

        def move(state, draw):
            stack, depth = state
            slot, prefers_open, kind = draw
            left = length - slot - 1
            if self.form == 'recognition':
                may_open, may_close = (depth < self.depth) & (depth < left), depth > 0
            else:
                may_open, may_close = depth < self.depth, (depth > 1) | ((depth == 1) & (left > 0))
            opens = may_open & (prefers_open | ~may_close)
            symbol = jnp.where(opens, kind, self.k + stack[depth - 1])
            stack = jnp.where(opens & (levels == depth), kind, stack)
            depth += jnp.where(opens, 1, -1)
            return (stack, depth), (symbol, stack[depth - 1])

        moves = jax.random.bernoulli(move_key, shape=slot.shape), jax.random.randint(kind_key, slot.shape, 0, self.k)
        _, (x, innermost) = jax.lax.scan(move, (jnp.zeros_like(levels), jnp.int32(0)), (slot, *moves))
        if self.form == 'next':
            return x, innermost[length - 1][None]
        balanced = jax.random.bernoulli(label_key)
        changed = jax.random.randint(index_key, (), 0, length)
        other = (x + jax.random.randint(symbol_key, (), 1, self.inputs)) % self.inputs
        return jnp.where(balanced | (slot != changed), x, other), balanced[None].astype(jnp.int32)
