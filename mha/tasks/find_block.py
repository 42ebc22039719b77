"""Find the block, the toy task of multi-token attention (Golovneva et al., 2025, arXiv:2504.00927): which block
contains all letters of the query?

    dklsr.gpamc.rmzxa#ma    gpamc.

Blocks are N distinct letters in random order; so is the query, which is L letters of one block. No other block contains
all L, though many contain one: a key must match several tokens at once. All such blocks are equally likely. The answer
is the block, or its first or last letter. Length is the number of blocks.

Published: N = 5, L = 2, 26 letters, always 52 blocks. The error of a Transformer of 4 layers depends on the seed (1.9,
75.3 and 77.7 %); that of multi-token attention is at most 0.2 %.
"""

import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mha.arguments import between
from mha.tasks.base import Sequence


class FindBlock(Sequence):
    """Blocks of `block` letters and a query of `query` letters in, the block that contains these out, or its first or
    last letter."""

    level = 'retrieval'

    def __init__(
        self,
        block: Annotated[int, between(1, 25)] = 5,
        query: Annotated[int, between(1, 25)] = 2,
        letters: Annotated[int, between(2, 26)] = 26,
        answer: Literal['block', 'first', 'last'] = 'block',
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        if not query <= block < letters:
            raise ValueError(f'block must be at least query = {query} and below letters = {letters}, not {block}')
        self.block, self.query, self.letters, self.answer = block, query, letters, answer
        self.alphabet = (*'abcdefghijklmnopqrstuvwxyz'[:letters], '#', '.')
        super().__init__(bos=bos, causal=causal)

    def prompt_length(self, length):
        return (self.block + 1) * length + self.query

    def output_length(self, length):
        return (self.block if self.answer == 'block' else 1) + 1

    def others(self, key, number):
        """Blocks [number, N] that do not contain all of the letters 0 .. L - 1."""
        count_key, choice_key, order_key = jax.random.split(key, 3)
        n, q, letters = self.block, self.query, self.letters
        ways = [math.comb(q, shared) * math.comb(letters - q, n - shared) for shared in range(q)]
        with np.errstate(divide='ignore'):
            weights = np.log(np.array(ways, float)).astype(np.float32)
        shared = jax.random.categorical(count_key, weights, shape=(number,))[:, None]
        rank = jax.random.uniform(choice_key, (number, letters))
        taken = jnp.concatenate([_rank(rank[:, :q]) < shared, _rank(rank[:, q:]) < n - shared], axis=1)
        order = jax.random.uniform(order_key, (number, letters))
        return jnp.argsort(jnp.where(taken, order, 2.0), axis=1)[:, :n]

    def sample(self, key, length, max_length):
        letter_key, order_key, place_key, other_key = jax.random.split(key, 4)
        letter = jax.random.permutation(letter_key, self.letters)
        block = letter[jax.random.permutation(order_key, self.block)]
        number = jnp.arange(max_length)[:, None]
        place = jax.random.randint(place_key, (), 0, length)
        blocks = jnp.where(number == place, block[None], letter[self.others(other_key, max_length)])
        listed = self.listed(blocks, number[:, 0] < length, '.')
        answer = {'block': block, 'first': block[:1], 'last': block[-1:]}[self.answer]
        return self.concat(listed, '#', letter[: self.query]), self.concat(answer, '.')


def _rank(x):
    """Rank of each entry in its row; equal ones in their order. Counting is faster than to sort short rows."""
    one, other = x[:, :, None], x[:, None]
    earlier = jnp.tri(x.shape[1], k=-1, dtype=bool)[None]
    return jnp.sum((other < one) | ((other == one) & earlier), axis=2)
