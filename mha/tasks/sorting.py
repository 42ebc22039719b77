"""Sorting (Kazemnejad et al., 2023, arXiv:2305.19466): tokens of a ranked alphabet, or integers, in ascending order.

    c1ac>             1acc.
    845,12,3012>      12,845,3012.
    c1ac>             /c:<|1&cac/c:<|a&cc/c:<|c&c/c:<|c&!1acc.

The last line is the scratchpad, a selection sort. A step shows the first unsorted item, `<` for "the smallest is", the
smallest unsorted item, and the items left to sort after these two are swapped. Published: trained on lengths up to 8,
tested on 9 to 16; length is the number of tokens, or of integers from 10 to 9999.

Huang et al. (2024, arXiv:2410.02140) sort distinct tokens; `$` begins a sequence. Published: trained on lengths up
to 50, tested on 51 to 150.

    sorting(symbols=150, distinct=True, bos=True)    $ 31 104 15 >      15 31 104 .
"""

import string
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from mha.arguments import between
from mha.tasks import _draws
from mha.tasks._scratchpad import Scratchpad, remaining_length
from mha.tasks.base import digits

RANKED = string.digits + string.ascii_letters
LARGE = 10_000
"""Number above all sorted values."""


class Sorting(Scratchpad):
    """Items in, the same in ascending order out: some of the first `symbols` of 0..9a..zA..Z (numbers, if there
    are more than 62), or integers digit by digit. With `distinct=True` no token occurs twice, so the longest length is
    `symbols`."""

    level = 'algorithmic'
    fields = 'input', 'computation', 'output', 'remaining'

    def __init__(
        self,
        kind: Literal['tokens', 'integers'] = 'tokens',
        symbols: Annotated[int, between(2, LARGE)] = 50,
        scratchpad: bool | str = False,
        distinct: bool = False,
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        if distinct and kind != 'tokens':
            raise ValueError(f'distinct must be False for kind={kind!r}, not True')
        self.kind, self.symbols, self.distinct = kind, symbols, distinct
        if kind == 'tokens':
            ranked = RANKED[:symbols] if symbols <= len(RANKED) else map(str, range(symbols))
            self.alphabet, self.width, self.separator = (*ranked, *'<>.'), 1, ''
        else:
            self.alphabet, self.width, self.separator = '0123456789,<>.', 4, ','
        super().__init__(scratchpad, bos=bos, causal=causal)

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
        if self.distinct:
            values = _draws.distinct(key, self.symbols, max_length)
        else:
            values = jax.random.randint(key, (max_length,), low, high)
        values = jnp.where(real, values, LARGE)

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
