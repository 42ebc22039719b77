"""Flip-flop language modelling (Liu et al., 2023, arXiv:2306.00946): instructions write, read and ignore a bit each.

w1 i0 i1 r1        w0 w1 r1 i0 r1

The bit after a read r is that of the latest write w; other bits are random. The first instruction is w, the last is r;
the others are i (ignore) with probability p, otherwise w or r. The paper trains on 256 pairs with p = 0.8 and also
tests p = 0.98 and 0.1. Models read the string without its last bit.
    causal:         answers with the bit that follows, at every r or at the last one.
    bidirectional:  answers with the last bit.
An example of length n has n pairs, hence 2 n - 1 input symbols; the shortest is 2.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.arguments import Share
from mha.tasks.base import Batch, Task

WRITE, READ, IGNORE = 2, 3, 4


class FlipFlop(Task):
    """Instructions and bits in, the bit written last out. `ignore` is the probability p of an i. Causal models answer
    at `reads`: all of them or the last."""

    level = 'regular'
    inputs, num_classes = 5, 2
    alphabet = '01wri'

    def __init__(self, ignore: Share = 0.8, reads: Literal['all', 'last'] = 'all', *, causal: bool = False):
        super().__init__(causal=causal)
        if not causal and reads != 'all':
            raise ValueError("reads='last' is for causal models; bidirectional ones are asked for the last bit anyway")
        self.ignore, self.reads = ignore, reads

    def input_length(self, length):
        return 2 * (length + (length < 2)) - 1

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        return self.input_length(length) + (not self.causal)

    def string(self, key, length, max_length):
        """Symbols [2 max(max_length, 2)] of a string, including its last bit."""
        instruction_key, bit_key = jax.random.split(key)
        length, pair = jnp.maximum(length, 2), jnp.arange(max(max_length, 2))
        draw = jax.random.uniform(instruction_key, pair.shape)
        instruction = jnp.where(draw < self.ignore, IGNORE, jnp.where(draw < (1 + self.ignore) / 2, WRITE, READ))
        instruction = jnp.where(pair == 0, WRITE, jnp.where(pair == length - 1, READ, instruction))
        latest_write = jax.lax.cummax(jnp.where(instruction == WRITE, pair, 0))
        bit = jax.random.randint(bit_key, pair.shape, 0, 2)
        return jnp.stack([instruction, jnp.where(instruction == READ, bit[latest_write], bit)], axis=1).reshape(-1)

    def sample(self, key, length, max_length):
        symbols = self.string(key, length, max_length)
        return symbols[:-1], symbols[self.input_length(length)][None]

    def example(self, key, length, max_length):
        if not self.causal:
            return super().example(key, length, max_length)
        symbols, end = self.string(key, length, max_length), self.input_length(length)
        slot = jnp.arange(symbols.size - 1)
        valid = slot < end
        asks = valid & (symbols[:-1] == READ)
        if self.reads == 'last':
            asks = slot == end - 1
        here, after = jnp.where(valid, symbols[:-1], 0), jnp.where(asks, symbols[1:], 0)
        return Batch(tokens=here, valid=valid, targets=after, loss_mask=asks, metric_mask=asks)
