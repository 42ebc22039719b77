"""LEGO (Zhang et al., 2022, arXiv:2206.04301; Kazemnejad et al., 2023, arXiv:2305.19466): follow a chain of signs.

    f=+1;c=-f;k=+c;k?    -1.
    k=+c;f=+1;c=-f;k?    -1.
    f=+1;c=-f;k=+c;k?    /f:|+1&c=-f;k=+c/c:-f=-+1|-1&k=+c/k:+c=+-1|-1&!-1.

The second line is the form `permuted`, the third shows the scratchpad: variable by variable along the chain up to the
queried one, with the clauses not used so far. The query is a variable in the second half of the chain: of n variables,
one of the last n - ceil(n/2). Published: trained on lengths up to 8, tested on 9 to 16; length is the number of
variables.
"""

import string

import jax
import jax.numpy as jnp

from mha.arguments import Count
from mha.spec import UserError
from mha.tasks._scratchpad import Scratchpad, remaining_length
from mha.tasks.base import EMPTY


class Lego(Scratchpad):
    """Clauses and a query in, +1 or -1 out. `permuted=True` shuffles the clauses. Chains have at most `variables`
    variables."""

    level = 'regular'
    fields = 'input', 'computation', 'output', 'remaining'

    def __init__(
        self,
        permuted: bool = False,
        variables: Count = 26,
        scratchpad: bool | str = False,
        *,
        causal: bool = False,
    ):
        self.permuted, self.variables = permuted, variables
        letters = string.ascii_lowercase if variables <= 26 else [f'x{i}' for i in range(variables)]
        self.alphabet = (*letters[:variables], *'+-1=;?.')
        super().__init__(scratchpad, causal=causal)

    def prompt_length(self, length):
        return 5 * length + 2

    def output_length(self, length):
        fields = dict(
            input=length,
            computation=6 * length,
            output=2 * length,
            remaining=remaining_length(length, 4, separator=1),
        )
        return self.reply_length(2, length, **fields)

    def sample(self, key, length, max_length):
        if max_length > self.variables:
            raise UserError(f'lego has {self.variables} variables - set variables={max_length} for so long a chain')
        name_key, sign_key, query_key, order_key = jax.random.split(key, 4)
        slot = jnp.arange(max_length)
        real = slot < length
        name = jax.random.permutation(name_key, self.variables)[:max_length, None]
        negative = jax.random.randint(sign_key, (max_length,), 0, 2)
        value = jnp.cumsum(negative) % 2
        previous = jnp.concatenate([self.concat('1')[None], name[:-1]])
        sign, plus_minus = self.signs(negative), self.signs(value)
        clause = self.concat(name, '=', sign, previous)
        query = jax.random.randint(query_key, (), jnp.minimum((length + 1) // 2, length - 1), length)
        order = slot
        if self.permuted:
            order = jnp.argsort(jnp.where(real, jax.random.uniform(order_key, (max_length,)), 2.0))
        computation = self.concat(sign, previous, '=', sign, jnp.roll(plus_minus, 1, axis=0), '1')
        answer = self.reply(
            self.concat(plus_minus[query], '1'),
            slot <= query,
            input=name,
            computation=jnp.where(slot[:, None] == 0, EMPTY, computation),
            output=self.concat(plus_minus, '1'),
            remaining=self.listed(clause[order], real[None] & (order[None] > slot[:, None]), ';'),
        )
        return self.concat(self.listed(clause[order], real, ';'), ';', name[query], '?'), answer

    def signs(self, negative):
        """Sign symbols [N, 1] of flags [N]."""
        return jnp.where(negative == 1, self.symbol('-'), self.symbol('+'))[:, None]
