"""Polynomial (Kazemnejad et al., 2023, arXiv:2305.19466): the value of a sum of terms at x, modulo 10.

    x=-2;3*x^2+-1*x^0=    1.
    x=-2;3*x^2+-1*x^0=    /3*x^2:3*-2^2=3*4|12~0+12=2&-1*x^0/-1*x^0:-1*-2^0=-1*1|-1~2+-1=1&!1.

The second line is the scratchpad: per term, its value and the sum so far modulo 10. Coefficients are -3 to 3, exponents
0 to 3 (0^0 is 1), x is -2 to 2. Published: trained on lengths up to 8, tested on 9 to 16; length is the number of
terms.
"""

import jax
import jax.numpy as jnp

from mha.tasks._scratchpad import Scratchpad, remaining_length
from mha.tasks.base import EMPTY, digits


class Polynomial(Scratchpad):
    """A number and a sum of terms in, a digit out."""

    level = 'algorithmic'
    alphabet = '0123456789+-*^x=;.'

    def prompt_length(self, length):
        return 7 * length + 5

    def output_length(self, length):
        fields = dict(
            input=6 * length,
            computation=13 * length,
            output=3 * length,
            variables=7 * length,
            remaining=remaining_length(length, 6, separator=1),
        )
        return self.reply_length(1, length, **fields)

    def sample(self, key, length, max_length):
        x_key, coefficient_key, exponent_key = jax.random.split(key, 3)
        x = jax.random.randint(x_key, (1,), -2, 3)
        coefficient = jax.random.randint(coefficient_key, (max_length,), -3, 4)
        exponent = jax.random.randint(exponent_key, (max_length,), 0, 4)
        slot = jnp.arange(max_length)
        real = slot < length
        power = jnp.concatenate([x**0, x, x**2, x**3])[exponent]
        value = coefficient * power
        after = jnp.cumsum(value) % 10
        before = (after - value) % 10
        c, v = self.signed(coefficient, 1), self.signed(value, 2)
        term = self.concat(c, '*', 'x', '^', exponent[:, None])
        written_x = self.signed(x, 1)[0]
        answer = self.reply(
            after[length - 1][None],
            real,
            input=term,
            computation=self.concat(c, '*', written_x, '^', exponent[:, None], '=', c, '*', self.signed(power, 1)),
            output=v,
            variables=self.concat(before[:, None], '+', v, '=', after[:, None]),
            remaining=self.listed(term, real[None] & (slot[None] > slot[:, None]), '+'),
        )
        return self.concat('x', '=', written_x, ';', self.listed(term, real, '+'), '='), answer

    def signed(self, number, width):
        """Symbols [N, 1 + width] of numbers [N]: a minus sign if negative, then the digits."""
        return self.concat(jnp.where(number < 0, self.symbol('-'), EMPTY)[:, None], digits(abs(number), width))
