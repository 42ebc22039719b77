"""ListOps (Nangia & Bowman, 2018, arXiv:1804.06028), as in Long Range Arena (Tay et al., 2021, arXiv:2011.04006): the
value of a nested expression over lists of digits.

    [MAX 4 [SM 9 3 ] 1 ] -> 4        [MED 2 9 4 7 ] -> 5        [MIN 3 8 ] . . -> 3

MIN, MAX, MED (the median, rounded down) and SM (the sum mod 10) have 2 arguments or more; the root has depth 1, and a
node at `max_depth` is a digit. An example of length l has l symbols: a tree, then blanks.

Long Range Arena draws every node independently, an operator with probability 1/4, and rejects trees of the wrong
length. With `released=True`, trees follow that law, conditioned on the length, without rejection: for an operator of a
given size, the sizes of its arguments are drawn one by one from their conditional distribution, which is computed
beforehand. Blanks occur only at lengths that no tree has. Drawing an example takes l^2 operations.

By default, trees are drawn to fill a budget of symbols, with fewer arguments (4.7 on average at lengths 500 to 1000,
against 6.0) and fewer operators deep down. The root is an operator with a budget of l symbols. An operator with a
budget of b symbols draws the number n of its arguments uniformly from
2 .. min(max_arguments, b - 2), then the number of operators among them: 1 + Binomial(n - 1, 1/4), or as many as fit.
The order of the arguments is uniform. The operators share the symbols that the digits leave, split at uniform points.
Symbols that a subtree does not use, as at `max_depth`, go to the operators after it. The rest of the input is blank: 1
to 10 % of it, but half of it for `max_depth=4` at length 100. With fewer than 4 symbols, the tree is one digit.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from mha.arguments import at_least, at_most
from mha.tasks.base import Task

OPERATOR, CLOSE, BLANK = 10, 14, 15
"""First operator, closing bracket and blank; the digits come first, and four operators before the bracket."""
RATE = 0.25


class ListOps(Task):
    """Expression in, its value out: a digit. `released=True` draws trees as Long Range Arena does."""

    level = 'context-free'
    inputs, num_classes = 16, 10
    alphabet = (*'0123456789', '[MIN', '[MAX', '[MED', '[SM', ']', '.')

    def __init__(
        self,
        max_depth: Annotated[int, at_least(2), at_most(1000)] = 10,
        max_arguments: Annotated[int, at_least(2), at_most(1000)] = 10,
        released: bool = False,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.max_depth, self.max_arguments, self.released = max_depth, max_arguments, released

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        # One row per open operator; row 0 holds the root as its only argument.
        rows = jnp.arange(self.max_depth)
        root, room, draw = rows == 0, length, self.filled
        if self.released:
            table = log_sizes(self.max_depth, self.max_arguments, max_length)
            size = np.arange(max_length + 1)
            room = jnp.asarray(np.maximum.accumulate(np.where(np.isfinite(table[1, 1]), size, 0)))[length]
            draw = functools.partial(self.drawn, jnp.asarray(table, jnp.float32))
        state = {
            'operator': jnp.zeros_like(rows),
            'arguments': jnp.where(root, 1, 0),  # arguments still to come
            'operators': jnp.where(root, length >= 4, 0),  # operators among them, where that is planned
            'end': jnp.where(root, room, 0),  # last slot at which its bracket may close; released: symbols to come
            'counts': jnp.zeros((self.max_depth, 10), jnp.int32),  # number of arguments so far with each value
        }

        def step(carry, drawn):
            """Writes one symbol."""
            state, depth = carry
            slot, uniform, more = drawn
            row = {name: values[depth] for name, values in state.items()}
            closes = (row['arguments'] == 0) & (depth > 0)
            done = (row['arguments'] == 0) & (depth == 0)
            opens, used, opened = draw(row, depth, slot, uniform, more)
            opens &= row['arguments'] > 0
            digit, kind = jnp.floor(uniform[1:3] * jnp.array([10, 4])).astype(jnp.int32)
            opened |= {'operator': kind, 'counts': 0}

            value = jnp.where(closes, evaluate(row['operator'], row['counts']), digit)
            here, above = rows == depth, rows == depth - closes
            state = dict(
                state,
                arguments=state['arguments'] - (here & ~closes & ~done),
                operators=state['operators'] - (here & opens),
                end=state['end'] - here * used,
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

    def filled(self, row, depth, slot, uniform, more):
        """Whether the next argument of the operator `row` is one itself, the change of that row's end, and the new
        row: it fills a share of the budget."""
        arguments, operators = row['arguments'], row['operators']
        # An operator gets the 4 symbols that it needs at least, and a share of the spare ones.
        spare = row['end'] - slot - arguments - 3 * operators
        share = jnp.where(operators > 1, 1 - uniform[3] ** (1 / jnp.maximum(operators - 1, 1)), 1)
        room = 4 + jnp.floor(spare * share).astype(jnp.int32)
        choices = jnp.minimum(self.max_arguments, room - 2) - 1
        count = 2 + jnp.floor(uniform[4] * choices).astype(jnp.int32)
        inner = 1 + jnp.sum((more < RATE) & (jnp.arange(more.size) < count - 1))
        inner = jnp.where(depth + 2 < self.max_depth, jnp.minimum(inner, (room - 2 - count) // 3), 0)
        opened = {'arguments': count, 'operators': inner, 'end': slot + room - 1}
        return uniform[0] * arguments < operators, 0, opened

    def drawn(self, table, row, depth, slot, uniform, more):
        """The same from the law of Long Range Arena, given the symbols that the row has left: first the size of the
        next argument, then the number of its own arguments."""
        arguments, room, size = row['arguments'], row['end'], jnp.arange(table.shape[2])
        rest = jnp.maximum(arguments - 1, 0)
        log_rest = jnp.where(size <= room, table[depth + 1, rest, jnp.clip(room - size, 0)], -jnp.inf)
        used = choice(uniform[0], table[depth + 1, 1] + log_rest)
        count = choice(uniform[4], table[depth + 2, :, jnp.maximum(used - 2, 0)].at[:2].set(-jnp.inf))
        opened = {'arguments': count, 'operators': 0, 'end': used - 2}
        return used > 1, jnp.where(arguments > 0, used, 0), opened


def choice(uniform, log_weights):
    """Index drawn with the weights, by a uniform number."""
    heap = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    return jnp.sum(heap <= uniform * heap[-1]).astype(jnp.int32)


@functools.cache
def log_sizes(max_depth: int, max_arguments: int, longest: int) -> np.ndarray:
    """Log probability [e, k, m] that k nodes of depth e have m symbols in all, under the law of Long Range Arena."""
    found = np.zeros((max_depth + 2, max_arguments + 1, longest + 1))
    found[:, 0, 0] = 1
    for depth in range(max_depth, 0, -1):
        digit = 1.0 if depth == max_depth else 1 - RATE
        found[depth, 1, 1:2] = digit
        lists = found[depth + 1, 2:, : max(longest - 1, 0)].sum(0) / (max_arguments - 1)
        found[depth, 1, 2:] += (1 - digit) * lists
        for k in range(2, max_arguments + 1):
            found[depth, k] = np.convolve(found[depth, k - 1], found[depth, 1])[: longest + 1]
    with np.errstate(divide='ignore'):
        return np.log(found)


def evaluate(operator, counts):
    """Value of an operator, given the number of its arguments with each value [10]."""
    number, up_to = counts.sum(), jnp.cumsum(counts)
    ranks = jnp.stack([jnp.ones_like(number), number, (number + 1) // 2, number // 2 + 1])
    low, high, left, right = jnp.argmax(up_to[None, :] >= ranks[:, None], axis=1)  # arguments of these ranks
    return jnp.stack([low, high, (left + right) // 2, jnp.sum(counts * jnp.arange(10)) % 10])[operator]
