"""ListOps (Nangia & Bowman, 2018, arXiv:1804.06028), as in Long Range Arena (Tay et al., 2021, arXiv:2011.04006): the
value of a nested expression over lists of digits.

    [MAX 4 [SM 9 3 ] 1 ] -> 4        [MED 2 9 4 7 ] -> 5        [MIN 3 8 ] . . -> 3

MIN, MAX, MED (the median, rounded down) and SM (the sum mod 10) have 2 arguments or more; the root has depth 1, and a
node at `max_depth` is a digit. An example of length l has l symbols: a tree, then blanks.

Long Range Arena draws every node independently, an operator with probability 1/4, and rejects trees of the wrong
length. Here trees are drawn to fill a budget of symbols, so that none is rejected. The root is an operator with a
budget of l symbols. An operator with a budget of b symbols draws the number n of its arguments uniformly from
2 .. min(max_arguments, b - 2), then the number of operators among them: 1 + Binomial(n - 1, 1/4), or as many as fit.
The order of the arguments is uniform. The operators share the symbols that the digits leave, split at uniform points.
Symbols that a subtree does not use, as at `max_depth`, go to the operators after it. The rest of the input is blank: 1
to 10 % of it, but half of it for `max_depth=4` at length 100. With fewer than 4 symbols, the tree is one digit.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.spec import at_least, at_most
from mha.tasks.base import Task

OPERATOR, CLOSE, BLANK = 10, 14, 15
"""First operator, closing bracket and blank; the digits come first, and four operators before the bracket."""
RATE = 0.25


class ListOps(Task):
    """Expression in, its value out: a digit."""

    level = 'context-free'
    inputs, num_classes = 16, 10
    alphabet = (*'0123456789', '[MIN', '[MAX', '[MED', '[SM', ']', '.')

    def __init__(
        self,
        max_depth: Annotated[int, at_least(2), at_most(1000)] = 10,
        max_arguments: Annotated[int, at_least(2), at_most(1000)] = 10,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.max_depth, self.max_arguments = max_depth, max_arguments

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        # One row per open operator; row 0 holds the root as its only argument.
        rows = jnp.arange(self.max_depth)
        root = rows == 0
        state = {
            'operator': jnp.zeros_like(rows),
            'arguments': jnp.where(root, 1, 0),  # arguments still to come
            'operators': jnp.where(root, length >= 4, 0),  # operators among them
            'end': jnp.where(root, length, 0),  # last slot at which its bracket may close
            'counts': jnp.zeros((self.max_depth, 10), jnp.int32),  # number of arguments so far with each value
        }

        def step(carry, draw):
            """Writes one symbol."""
            state, depth = carry
            slot, uniform, more = draw
            operator, arguments, operators, end = (
                state[name][depth] for name in ('operator', 'arguments', 'operators', 'end')
            )
            closes = (arguments == 0) & (depth > 0)
            done = (arguments == 0) & (depth == 0)
            opens = uniform[0] * arguments < operators
            digit, kind = jnp.floor(uniform[1:3] * jnp.array([10, 4])).astype(jnp.int32)

            # An operator gets the 4 symbols that it needs at least, and a share of the spare ones.
            spare = end - slot - arguments - 3 * operators
            share = jnp.where(operators > 1, 1 - uniform[3] ** (1 / jnp.maximum(operators - 1, 1)), 1)
            room = 4 + jnp.floor(spare * share).astype(jnp.int32)
            choices = jnp.minimum(self.max_arguments, room - 2) - 1
            count = 2 + jnp.floor(uniform[4] * choices).astype(jnp.int32)
            inner = 1 + jnp.sum((more < RATE) & (jnp.arange(more.size) < count - 1))
            inner = jnp.where(depth + 2 < self.max_depth, jnp.minimum(inner, (room - 2 - count) // 3), 0)
            opened = {'operator': kind, 'arguments': count, 'operators': inner, 'end': slot + room - 1, 'counts': 0}

            value = jnp.where(closes, evaluate(operator, state['counts'][depth]), digit)
            here, above = rows == depth, rows == depth - closes
            state = dict(
                state,
                arguments=state['arguments'] - (here & ~closes & ~done),
                operators=state['operators'] - (here & opens),
                counts=state['counts'] + (above[:, None] & ~opens & ~done & (jnp.arange(10) == value)[None, :]),
            )
            new = opens & (rows == depth + 1)
            state = {name: jnp.where(new[:, None] if x.ndim > 1 else new, opened[name], x) for name, x in state.items()}
            symbol = jnp.where(closes, CLOSE, jnp.where(opens, OPERATOR + kind, jnp.where(done, BLANK, digit)))
            return (state, depth + opens - closes), symbol

        uniform_key, more_key = jax.random.split(key)
        uniform = jax.random.uniform(uniform_key, (max_length, 5))
        more = jax.random.uniform(more_key, (max_length, self.max_arguments - 1))
        carry = state, jnp.int32(0)
        (state, _), symbols = jax.lax.scan(step, carry, (jnp.arange(max_length), uniform, more))
        return symbols, jnp.argmax(state['counts'][0])[None]


def evaluate(operator, counts):
    """Value of an operator, given the number of its arguments with each value [10]."""
    number, up_to = counts.sum(), jnp.cumsum(counts)
    ranks = jnp.stack([jnp.ones_like(number), number, (number + 1) // 2, number // 2 + 1])
    low, high, left, right = jnp.argmax(up_to[None, :] >= ranks[:, None], axis=1)  # arguments of these ranks
    return jnp.stack([low, high, (left + right) // 2, jnp.sum(counts * jnp.arange(10)) % 10])[operator]
