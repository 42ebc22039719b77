"""Multiplication by a number of M digits (Cho et al., 2024, arXiv:2405.20671); the product begins with its lowest
place.

    307*25=    57670.        7*04=    820.        digits=2

Length is the number of digits of the first number, which does not begin with 0 unless it is 0. The second number has M
digits, all uniform, and the product is padded with zeros to l + M digits. Published: trained on lengths up to 40 and
tested on 100, for M = 1 and 2.

With `coupled`, the model has the ids of position coupling as coordinates, for `model.position='coupling'`: p + 2 for a
digit of place p, 1 for * and =. Published ids run the other way, from the highest place of the product to the lowest.
`binary_multiplication` multiplies numbers of any size.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import between
from mha.tasks._decimal import carried, coupled, number
from mha.tasks.base import EMPTY, Sequence


class Multiplication(Sequence):
    """Two numbers in, their product out. The second one has M = `digits` digits."""

    level = 'context-sensitive'

    def __init__(
        self,
        digits: Annotated[int, between(1, 100)] = 1,
        coupled: bool = False,
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        self.digits, self.coupled = digits, coupled
        self.alphabet = (*'0123456789*=.',)
        super().__init__(bos=bos, causal=causal)

    def prompt_length(self, length):
        return length + self.digits + 2

    def output_length(self, length):
        return length + self.digits + 1

    def sample(self, key, length, max_length):
        first_key, second_key = jax.random.split(key)
        places = max_length + self.digits
        first, real = number(first_key, length, places)
        second = jax.random.randint(second_key, (self.digits,), 0, 10)
        shifted = [digit * jnp.roll(first, shift) for shift, digit in enumerate(second)]
        product = carried(jnp.sum(jnp.stack(shifted), axis=0))
        product = jnp.where(jnp.arange(places) < length + self.digits, product, EMPTY)
        prompt = self.concat(jnp.where(real, first, EMPTY)[::-1], '*', second[::-1], '=')
        return prompt, self.concat(product, '.')

    def example(self, key, length, max_length):
        example = super().example(key, length, max_length)
        if not self.coupled:
            return example
        return coupled(example, (self.symbol('*'), self.symbol('=')), self.symbol('='), self.bos)
