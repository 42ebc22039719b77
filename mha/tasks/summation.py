"""Summation (Kazemnejad et al., 2023, arXiv:2305.19466): the sum of digits 1 to 9, modulo 10.

    7+5+4=    6.
    7+5+4=    /7:7+0|7~7&5+4/5:5+7|12~2&4/4:4+2|6~6&!6.

The second line is the scratchpad: per digit, the sum so far, before and after taking it modulo 10. Published: trained
on lengths up to 8, tested on 9 to 16; length is the number of digits.
"""

import jax
import jax.numpy as jnp

from mha.tasks._scratchpad import Scratchpad, remaining_length
from mha.tasks.base import digits


class Summation(Scratchpad):
    """Digits in, their sum modulo 10 out."""

    level = 'regular'
    alphabet = '0123456789+=.'

    def prompt_length(self, length):
        return 2 * length

    def output_length(self, length):
        remaining = remaining_length(length, 1, separator=1)
        fields = dict(input=length, computation=3 * length, output=2 * length, variables=length, remaining=remaining)
        return self.reply_length(1, length, **fields)

    def sample(self, key, length, max_length):
        number = jax.random.randint(key, (max_length,), 1, 10)
        slot = jnp.arange(max_length)
        real = slot < length
        after = jnp.cumsum(number) % 10
        before = (after - number) % 10
        answer = self.reply(
            after[length - 1][None],
            real,
            input=number[:, None],
            computation=self.concat(number[:, None], '+', before[:, None]),
            output=digits(number + before, 2),
            variables=after[:, None],
            remaining=self.listed(number[:, None], real[None] & (slot[None] > slot[:, None]), '+'),
        )
        return self.concat(self.listed(number[:, None], real, '+'), '='), answer
