"""Parity (Kazemnejad et al., 2023, arXiv:2305.19466): is the number of ones even?

    0110?    Y.
    110?     /1:1^0|1~1&10/1:1^1|0~0&0/0:0^0|0~0&!Y.

The second line is the scratchpad: per bit, its exclusive or with the parity so far. Published: trained on lengths up to
8, tested on 9 to 16; length is the number of bits. `parity_check` is the same task with placeholders, for any model.

Huang et al. (2024, arXiv:2410.02140) draw the number of ones uniformly in 0 .. l, instead of each bit, and begin a
sequence with `$`: `parity(ones='uniform', bos=True)`. Published: trained on lengths up to 50, tested on 51 to 150.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.tasks import _draws
from mha.tasks._scratchpad import Scratchpad, remaining_length


class Parity(Scratchpad):
    """Bits in, Y or N out. All strings of a length are equally likely; with `ones='uniform'`, all numbers of ones."""

    level = 'regular'
    alphabet = '01YN^?.'

    def __init__(
        self,
        scratchpad: bool | str = False,
        ones: Literal['independent', 'uniform'] = 'independent',
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        self.ones = ones
        super().__init__(scratchpad, bos=bos, causal=causal)

    def prompt_length(self, length):
        return length + 1

    def output_length(self, length):
        remaining = remaining_length(length, 1, separator=0)
        fields = dict(input=length, computation=3 * length, output=length, variables=length, remaining=remaining)
        return self.reply_length(1, length, **fields)

    def sample(self, key, length, max_length):
        if self.ones == 'uniform':
            number_key, place_key = jax.random.split(key)
            ones = jax.random.randint(number_key, (), 0, length + 1)
            bit = _draws.bits(place_key, ones, length, max_length)
        else:
            bit = jax.random.randint(key, (max_length,), 0, 2)
        slot = jnp.arange(max_length)
        real = slot < length
        after = jnp.cumsum(bit) % 2
        before = (after - bit) % 2
        answer = self.reply(
            jnp.where(after[length - 1] == 0, self.symbol('Y'), self.symbol('N'))[None],
            real,
            input=bit[:, None],
            computation=self.concat(bit[:, None], '^', before[:, None]),
            output=after[:, None],
            variables=after[:, None],
            remaining=self.listed(bit[:, None], real[None] & (slot[None] > slot[:, None])),
        )
        return self.concat(self.listed(bit[:, None], real), '?'), answer
