"""SCAN (Lake & Baroni, 2018, arXiv:1711.00350): commands of a small grammar, carried out.

    turn left twice after jump opposite right >    RTURN RTURN JUMP LTURN LTURN .

    command   sentence and sentence | sentence after sentence | sentence
    sentence  phrase twice | phrase thrice | phrase
    phrase    verb | verb side | verb opposite side | verb around side, where all but the first may also `turn`
    verb      walk | look | run | jump
    side      left | right

A verb with a side turns there first; `opposite` turns twice; `around` does all of it four times. Length is the number
of actions, 1 to 48. If no command has a given length, commands of the nearest smaller length are drawn. All commands of
one length are equally likely; there are 20,910 in all. A model sees the same commands of its trained lengths again and
again, and never those of other lengths. Published by Kazemnejad et al. (2023, arXiv:2305.19466): trained on lengths up
to 25, tested on 26 to 48.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mha.spec import UserError
from mha.tasks.base import EMPTY, Sequence

VERBS, SIDES = ('walk', 'look', 'run', 'jump'), ('left', 'right')
ACTIONS = {'walk': ['WALK'], 'look': ['LOOK'], 'run': ['RUN'], 'jump': ['JUMP'], 'turn': []}
TURNS = {'left': ['LTURN'], 'right': ['RTURN']}
MOST_WORDS, MOST_ACTIONS = 9, 48


def commands() -> list[tuple[list[str], list[str]]]:
    """All commands of the grammar, each with its actions."""
    phrases = [([verb], ACTIONS[verb]) for verb in VERBS]
    for verb, side in itertools.product(ACTIONS, SIDES):
        do, turn = ACTIONS[verb], TURNS[side]
        phrases += [
            ([verb, side], turn + do),
            ([verb, 'opposite', side], turn * 2 + do),
            ([verb, 'around', side], (turn + do) * 4),
        ]
    times = ([], 1), (['twice'], 2), (['thrice'], 3)
    sentences = [(words + how, do * often) for words, do in phrases for how, often in times]
    pairs = list(itertools.product(sentences, repeat=2))
    first = [([*a, 'and', *b], do_a + do_b) for (a, do_a), (b, do_b) in pairs]
    last = [([*a, 'after', *b], do_b + do_a) for (a, do_a), (b, do_b) in pairs]
    return sentences + first + last


class Scan(Sequence):
    """Commands in, actions out. `data` is a table of all commands and actions, sorted by length, and the first and last
    row of each length."""

    level = 'algorithmic'
    alphabet = (*ACTIONS, *SIDES, 'opposite', 'around', 'twice', 'thrice', 'and', 'after')
    alphabet += ('WALK', 'LOOK', 'RUN', 'JUMP', 'LTURN', 'RTURN', '>', '.')

    def __init__(self, *, causal: bool = False):
        super().__init__(causal=causal)
        by_length = sorted(commands(), key=lambda command: len(command[1]))
        number = {name: i for i, name in enumerate(self.alphabet)}
        table = np.full((len(by_length), MOST_WORDS + MOST_ACTIONS), EMPTY, np.int8)
        for row, (words, do) in zip(table, by_length, strict=True):
            row[: len(words)] = [number[word] for word in words]
            row[MOST_WORDS : MOST_WORDS + len(do)] = [number[action] for action in do]
        sizes = np.array([len(do) for _, do in by_length])
        longest = np.array([sizes[sizes <= max(length, 1)].max() for length in range(MOST_ACTIONS + 1)])
        starts, ends = np.searchsorted(sizes, longest), np.searchsorted(sizes, longest, side='right')
        self.data = jnp.asarray(table), jnp.asarray(starts, jnp.int32), jnp.asarray(ends, jnp.int32)

    def prompt_length(self, length):
        return MOST_WORDS + 1

    def output_length(self, length):
        return length + 1

    def sample(self, key, length, max_length):
        if max_length > MOST_ACTIONS:
            raise UserError(f'scan has at most {MOST_ACTIONS} actions, not {max_length}')
        table, starts, ends = self.data
        row = table[jax.random.randint(key, (), starts[length], ends[length])].astype(jnp.int32)
        return self.concat(row[:MOST_WORDS], '>'), self.concat(row[MOST_WORDS:], '.')
