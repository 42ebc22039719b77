"""PCFG SET (Hupkes et al., 2020, arXiv:1908.08351): nested functions of strings, evaluated.

    echo append C1 A2 , shift remove_second D1 D2 D3 , B5 >    C1 A2 D2 D3 D1 D1 .

    copy x1 .. xn                 x1 .. xn           repeat x                   x x
    reverse x1 .. xn              xn .. x1           append x , y               x y
    shift x1 .. xn                x2 .. xn x1        prepend x , y              y x
    swap_first_last x1 .. xn      xn x2 .. x1        remove_first x , y         y
    echo x1 .. xn                 x1 .. xn xn        remove_second x , y        x

Published by Kazemnejad et al. (2023, arXiv:2305.19466): trained on lengths up to 8, tested on longer ones; length is
the number of functions. Strings have 1 to 5 of 520 letters. The probabilities of the published grammar are chosen such
that its trees are as deep and as wide as those of English sentences. Here expressions are drawn from their end to their
beginning. Each step writes a function, or a string that waits for a function of two arguments. All applicable functions
whose result has at most `longest` letters are equally likely; a string is as likely as four of them.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Several, at_least, at_most
from mha.tasks.base import EMPTY, Sequence

UNARY = 'copy', 'reverse', 'shift', 'swap_first_last', 'repeat', 'echo'
BINARY = 'append', 'prepend', 'remove_first', 'remove_second'
STRING = len(UNARY + BINARY)
"""Index of the choice to write a string; smaller indices are functions."""
WEIGHTS = [1] * STRING + [4]
WIDTH, DEPTH = 5, 5
"""Length of the longest string that is written, and largest number of arguments that wait."""


def edit(x, y):
    """Results [10, L] of all functions, applied to the strings x and y, and their numbers of letters [10]. Strings are
    arrays of letters, filled up with EMPTY. A number of letters may exceed L; the result is then cut."""
    slot, n, m = jnp.arange(x.size), jnp.sum(x != EMPTY), jnp.sum(y != EMPTY)
    last, behind = n - 1, x.size + slot
    source, size = zip(
        (slot, n),
        (last - slot, n),
        ((slot + 1) % n, n),
        (jnp.where(slot == 0, last, jnp.where(slot == last, 0, slot)), n),
        (slot % n, 2 * n),
        (jnp.minimum(slot, last), n + 1),
        (jnp.where(slot < n, slot, behind - n), n + m),
        (jnp.where(slot < m, behind, slot - m), n + m),
        (behind, m),
        (slot, n),
        strict=True,
    )
    source, size = jnp.stack(source), jnp.stack(size)
    letters = jnp.concatenate([x, y])[jnp.clip(source, 0, 2 * x.size - 1)]
    return jnp.where(slot[None] < size[:, None], letters, EMPTY), size


class Pcfg(Sequence):
    """Expressions in, their values of at most `longest` letters out. Letters are A1 .. Z1 A2 .. Z2 and so on."""

    level = 'algorithmic'

    def __init__(
        self,
        letters: Several = 520,
        longest: Annotated[int, at_least(WIDTH), at_most(2**16)] = 64,
        *,
        causal: bool = False,
    ):
        self.letters, self.longest = letters, longest
        names = (f'{chr(ord("A") + i % 26)}{i // 26 + 1}' for i in range(letters))
        self.alphabet = (*names, *UNARY, *BINARY, ',', '>', '.')
        super().__init__(causal=causal)

    def prompt_length(self, length):
        return (2 + WIDTH) * length + WIDTH + 1

    def output_length(self, length):
        return self.longest + 1

    def sample(self, key, length, max_length):
        def step(state, i):
            stack, waiting, functions = state
            choice_key, size_key, letter_key = jax.random.split(jax.random.fold_in(key, i), 3)
            string = jax.random.randint(letter_key, (WIDTH,), 0, self.letters)
            string = jnp.where(jnp.arange(WIDTH) < jax.random.randint(size_key, (), 1, WIDTH + 1), string, EMPTY)
            values, sizes = edit(stack[waiting - 1], stack[waiting - 2])
            # All waiting strings but one need a function of two arguments each.
            spare = functions >= waiting
            unary = jnp.full(len(UNARY), spare & (waiting >= 1))
            binary = jnp.full(len(BINARY), (waiting >= 2) & (functions >= 1))
            fits = jnp.concatenate([unary, binary]) & (sizes <= self.longest)
            allowed = jnp.append(fits, spare & (waiting < DEPTH))
            choice = jax.random.categorical(choice_key, jnp.where(allowed, jnp.log(jnp.array(WEIGHTS)), -jnp.inf))

            row = jnp.full(self.longest, EMPTY).at[:WIDTH].set(string)
            value = jnp.concatenate([values, row[None]])[choice]
            place = waiting - jnp.array([1] * len(UNARY) + [2] * len(BINARY) + [0])[choice]
            after = stack.at[place].set(value), place + 1, functions - (choice != STRING)
            comma = jnp.where(waiting >= 1, self.symbol(','), EMPTY)
            written = jnp.where(
                choice == STRING,
                jnp.append(string, comma),
                jnp.full(WIDTH + 1, EMPTY).at[0].set(self.letters + choice),
            )
            going = allowed.any()
            state = jax.tree.map(lambda new, old: jnp.where(going, new, old), after, state)
            return state, jnp.where(going, written, EMPTY)

        start = jnp.full((DEPTH, self.longest), EMPTY), jnp.array(0), length
        (stack, _, _), written = jax.lax.scan(step, start, jnp.arange(2 * max_length + 1))
        return self.concat(written[::-1].ravel(), '>'), self.concat(stack[0], '.')
