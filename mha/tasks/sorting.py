"""Sorting (Kazemnejad et al., 2023, arXiv:2305.19466): tokens of a ranked alphabet, or integers, in ascending order.

    c1ac>             1acc.
    845,12,3012>      12,845,3012.
    c1ac>             /c:<|1&cac/c:<|a&cc/c:<|c&c/c:<|c&!1acc.

The last line is the scratchpad, a selection sort. A step shows the first unsorted item, `<` for "the smallest is", the
smallest unsorted item, and the items left to sort after these two are swapped. Published: trained on lengths up to 8,
tested on 9 to 16; length is the number of tokens, or of integers from 10 to 9999.
"""

import string
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from mha.spec import between
from mha.tasks._scratchpad import Scratchpad, remaining_length
from mha.tasks.base import digits

RANKED = string.digits + string.ascii_letters
LARGE = 10_000
"""Number above all sorted values."""


class Sorting(Scratchpad):
    """Items in, the same in ascending order out: some of the first `symbols` of 0..9a..zA..Z, or integers digit by
    digit."""

    level = 'algorithmic'
    fields = 'input', 'computation', 'output', 'remaining'

    def __init__(
        self,
        kind: Literal['tokens', 'integers'] = 'tokens',
        symbols: Annotated[int, between(2, len(RANKED))] = 50,
        scratchpad: bool | str = False,
        *,
        causal: bool = False,
    ):
        self.kind, self.symbols = kind, symbols
        if kind == 'tokens':
            self.alphabet, self.width, self.separator = f'{RANKED[:symbols]}<>.', 1, ''
        else:
            self.alphabet, self.width, self.separator = '0123456789,<>.', 4, ','
        super().__init__(scratchpad, causal=causal)

    def prompt_length(self, length):
        return self.width * length + len(self.separator) * (length - 1) + 1

    def output_length(self, length):
        remaining = remaining_length(length, self.width, len(self.separator))
        fields = dict(input=self.width * length, computation=length, output=self.width * length, remaining=remaining)
        return self.reply_length(self.prompt_length(length) - 1, length, **fields)

    def sample(self, key, length, max_length):
        low, high = (0, self.symbols) if self.kind == 'tokens' else (10, LARGE)
        slot = jnp.arange(max_length)
        real = slot < length
        values = jnp.where(real, jax.random.randint(key, (max_length,), low, high), LARGE)

        def select(values, i):
            least = jnp.argmin(jnp.where(slot < i, LARGE, values))
            swapped = values.at[least].set(values[i]).at[i].set(values[least])
            return swapped, (values[i], values[least], swapped)

        _, (first, least, unsorted) = jax.lax.scan(select, values, slot)
        answer = self.reply(
            self.listed(self.written(jnp.sort(values)), real, self.separator),
            real,
            input=self.written(first),
            computation=self.concat('<'),
            output=self.written(least),
            remaining=self.listed(self.written(unsorted), real[None] & (slot[None] > slot[:, None]), self.separator),
        )
        return self.concat(self.listed(self.written(values), real, self.separator), '>'), answer

    def written(self, values):
        """Symbols [.., width] of values [..]."""
        return values[..., None] if self.kind == 'tokens' else digits(values, self.width)
