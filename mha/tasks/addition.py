"""Addition (Kazemnejad et al., 2023, arXiv:2305.19466): two numbers, most significant digit first.

    86+7=    93.
    86+7=    /6,7:6+7+0=13|3~1&8+/8,0:8+0+1=9|9~0&+!93.

The second line is the scratchpad: per decimal place, both digits and the carry; a last carry takes a step of its own,
with digits 0. A number whose digits are used up leaves nothing; with `released=True`, as in the released code, it
leaves a 0 while the other has digits: &8+0 after the first step above. Published: trained on lengths up to 8, tested on
9 to 16; length is the number of digits of the longer number. All pairs of digit counts with that maximum are equally
likely, where the paper's data have as many examples of every pair at all lengths. Numbers have no leading zeros.
"""

import jax
import jax.numpy as jnp

from mha.tasks._scratchpad import Scratchpad
from mha.tasks.base import EMPTY, digits


class Addition(Scratchpad):
    """Two numbers in, their sum out. `released=True` writes the scratchpad of the released code."""

    level = 'context-sensitive'
    alphabet = '0123456789+=.,'

    def __init__(self, scratchpad: bool | str = False, released: bool = False, *, causal: bool = False):
        super().__init__(scratchpad, causal=causal)
        self.released = released

    def prompt_length(self, length):
        return 2 * length + 2

    def output_length(self, length):
        steps = length + 1
        fields = dict(input=3 * steps, computation=8 * steps, output=steps, variables=steps, remaining=length**2 + 1)
        return self.reply_length(steps, steps, **fields)

    def sample(self, key, length, max_length):
        size_key, *number_keys = jax.random.split(key, 3)
        # (length, 1) .. (length, length), (1, length) .. (length - 1, length)
        pair = jax.random.randint(size_key, (), 0, 2 * length - 1)
        sizes = jnp.where(pair < length, length, pair - length + 1), jnp.where(pair < length, pair + 1, length)
        numbers = zip(number_keys, sizes, strict=True)
        (a, real_a), (b, real_b) = (self.number(key, size, max_length + 1) for key, size in numbers)

        def add(carry, pair):
            total = pair.sum() + carry
            return total // 10, (total, carry)

        _, (total, carry) = jax.lax.scan(add, 0, jnp.stack([a, b], axis=1))
        place = jnp.arange(max_length + 1)
        real = (place < length) | (total > 0) & (place == length)
        left = place[None] > place[:, None]
        left_a, left_b = (self.remaining(real & left, place, length) for real in (real_a[None], real_b[None]))
        answer = self.reply(
            jnp.where(real, total % 10, EMPTY)[::-1],
            real,
            input=self.concat(a[:, None], ',', b[:, None]),
            computation=self.concat(a[:, None], '+', b[:, None], '+', carry[:, None], '=', digits(total, 2)),
            output=total[:, None] % 10,
            variables=total[:, None] // 10,
            remaining=self.concat(self.written(a, left_a), '+', self.written(b, left_b)),
        )
        return self.concat(self.written(a, real_a), '+', self.written(b, real_b), '='), answer

    def remaining(self, left, place, length):
        """Mask [steps, places] of the digits of a number that a step writes as left; beyond a number's end they are
        0."""
        if not self.released:
            return left
        used_up = ~left.any(1, keepdims=True) & (place[:, None] + 1 < length)
        return left | used_up & (place[None] == place[:, None] + 1)

    def number(self, key, size, places):
        """Digits [places] of a random number of `size` digits, least significant first, and a mask of those that
        count."""
        first_key, key = jax.random.split(key)
        place = jnp.arange(places)
        digit = jax.random.randint(key, (places,), 0, 10)
        digit = jnp.where((place == size - 1) & (size > 1), jax.random.randint(first_key, (), 1, 10), digit)
        return jnp.where(place < size, digit, 0), place < size

    def written(self, number, real):
        """Symbols [.., 2 N] of digits [N] masked by `real` [.., N], most significant digit first."""
        return self.listed(number[::-1, None], real[..., ::-1])
