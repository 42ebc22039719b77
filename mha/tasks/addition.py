"""Addition (Kazemnejad et al., 2023, arXiv:2305.19466): two numbers, most significant digit first.

    86+7=    93.
    86+7=    /6,7:6+7+0=13|3~1&8+/8,0:8+0+1=9|9~0&+!93.

The second line is the scratchpad: per decimal place, both digits and the carry; a last carry takes a step of its own,
with digits 0. A number whose digits are used up leaves nothing; with `released=True`, as in the released code, it
leaves a 0 while the other has digits: &8+0 after the first step above. The released code also spells the computation
out, as 6+7+carry=13+0=13.

Published: trained on lengths up to 8, tested on 9 to 16; length is the number of digits of the longer number. All pairs
of digit counts with that maximum are equally likely. Numbers have no leading zeros. The released data have as many
examples of every pair, so that length l is 2l - 1 times as frequent as length 1: lengths are drawn like that with
`train.curriculum='linear(offset=-0.5)'`.

Huang et al. (2024, arXiv:2410.02140) add binary numbers. Length is the number of symbols of the prompt without `$`,
which begins a sequence, and at least 4. The number of digits of the first number is uniform in 1 .. l - 3. Published:
trained on lengths up to 50, tested on 51 to 150.

    addition(base=2, measure='prompt', bos=True)    $11+1=    100.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from mha.arguments import between
from mha.tasks._decimal import number
from mha.tasks._scratchpad import Scratchpad
from mha.tasks.base import EMPTY, digits


class Addition(Scratchpad):
    """Two numbers of `base` in, their sum out. Length is that of the longer number, or, with `measure='prompt'`, of
    both with + and =. `released=True` writes the scratchpad of the released code."""

    level = 'context-sensitive'

    def __init__(
        self,
        scratchpad: bool | str = False,
        base: Annotated[int, between(2, 10)] = 10,
        measure: Literal['longer', 'prompt'] = 'longer',
        bos: bool = False,
        released: bool = False,
        *,
        causal: bool = False,
    ):
        if scratchpad and base != 10:
            raise ValueError(f'scratchpad must be False for base={base}, not {scratchpad!r}')
        self.base, self.measure, self.released = base, measure, released
        self.alphabet = f'{"0123456789"[:base]}+=.,'
        super().__init__(scratchpad, bos=bos, causal=causal)

    def longest(self, length):
        """Largest number of digits of a number."""
        return length if self.measure == 'longer' else length - 3 + (length < 4) * (4 - length)

    def prompt_length(self, length):
        return 2 * length + 2 if self.measure == 'longer' else self.longest(length) + 3

    def output_length(self, length):
        longest = self.longest(length)
        steps = longest + 1
        fields = dict(input=3 * steps, computation=8 * steps, output=steps, variables=steps, remaining=longest**2 + 1)
        return self.reply_length(steps, steps, **fields)

    def sizes(self, key, length):
        """Numbers of digits of both numbers."""
        if self.measure == 'prompt':
            longest = self.longest(length)
            first = jax.random.randint(key, (), 1, longest + 1)
            return first, longest + 1 - first
        # (length, 1) .. (length, length), (1, length) .. (length - 1, length)
        pair = jax.random.randint(key, (), 0, 2 * length - 1)
        return jnp.where(pair < length, length, pair - length + 1), jnp.where(pair < length, pair + 1, length)

    def sample(self, key, length, max_length):
        size_key, *number_keys = jax.random.split(key, 3)
        sizes = self.sizes(size_key, length)
        place = jnp.arange(self.longest(max_length) + 1)
        numbers = zip(number_keys, sizes, strict=True)
        (a, real_a), (b, real_b) = (number(key, size, place.size, self.base) for key, size in numbers)

        def add(carry, pair):
            total = pair.sum() + carry
            return total // self.base, (total, carry)

        _, (total, carry) = jax.lax.scan(add, 0, jnp.stack([a, b], axis=1))
        longer = jnp.maximum(*sizes)
        real = (place < longer) | (total > 0) & (place == longer)
        left = place[None] > place[:, None]
        left_a, left_b = (self.remaining(real & left, place, longer) for real in (real_a[None], real_b[None]))
        answer = self.reply(
            jnp.where(real, total % self.base, EMPTY)[::-1],
            real,
            input=self.concat(a[:, None], ',', b[:, None]),
            computation=self.concat(a[:, None], '+', b[:, None], '+', carry[:, None], '=', digits(total, 2)),
            output=total[:, None] % self.base,
            variables=total[:, None] // self.base,
            remaining=self.concat(self.written(a, left_a), '+', self.written(b, left_b)),
        )
        return self.concat(self.written(a, real_a), '+', self.written(b, real_b), '='), answer

    def remaining(self, left, place, longer):
        """Mask [steps, places] of the digits of a number that a step writes as left; beyond a number's end they are 0.
        The longer number has `longer` digits."""
        if not self.released:
            return left
        used_up = ~left.any(1, keepdims=True) & (place[:, None] + 1 < longer)
        return left | used_up & (place[None] == place[:, None] + 1)

    def written(self, number, real):
        """Symbols [.., 2 N] of digits [N] masked by `real` [.., N], most significant digit first."""
        return self.listed(number[::-1, None], real[..., ::-1])
