"""Ids of position coupling against the rules of the released code, and the draws of the tasks that have them."""

import itertools

import numpy as np
import pytest

from tests.tasks.sequences import make, rows, sample
from tests.tasks.test_sequence_draws import draws, uniform


def addition_ids(text):
    """Cho et al. (2025): every number counts its digits from 2, with 1 for the sign behind an operand or before a
    sum."""
    prompt, answer = text.split('=')
    operands = [[*range(len(number) + 1, 1, -1), 1] for number in prompt.split('+')]
    operands[-1].pop()  # = is before the first sum
    sums = [[1, *range(2, len(number) + 2)] for number in answer.split('>')]
    return [*itertools.chain(*operands, *sums)]


def multiplication_ids(text):
    """Cho et al. (2024): from 1 at the highest place of the product, for all numbers; here in reverse."""
    numbers, product = text.split('=')
    a, b = numbers.split('*')
    end = 1 + len(a) + len(b)
    forwards = [*range(end - len(a), end + 1), *range(end - len(b), end + 1), *reversed(range(1, end))]
    released = forwards[: len(text)]
    assert len(product) <= end
    return [end + 1 - place for place in released]


@pytest.mark.parametrize('begins', ['', ', bos=True'])
@pytest.mark.parametrize(
    ('text', 'oracle'),
    [
        ('padded_addition(operands=3, fewest=2, scratchpad=True, coupled=True', addition_ids),
        ('multiplication(digits=2, coupled=True', multiplication_ids),
    ],
)
def test_ids(text, oracle, begins):
    task = make(f'{text}{begins})')
    for length in (1, 4):
        batch = sample(f'{text}{begins})', length, max_length=5)
        for row in rows(batch):
            end = np.flatnonzero(row.metric_mask)[-1] + 1
            read = ''.join(task.alphabet[symbol] for symbol in row.tokens[:end]).lstrip('$')
            assert row.pos[:end].tolist() == [0] * task.bos + oracle(read)
            assert not row.pos[end:].any()
    plain = sample(f'{text}{begins})'.replace(', coupled=True', ''), 4, max_length=5)
    assert plain.pos is None
    np.testing.assert_array_equal(plain.tokens, batch.tokens)


def test_digit_counts_are_uniform():
    """Lengths of two and three operands: all tuples with that maximum, and a share with equal lengths."""
    text = 'padded_addition(operands=3, fewest=2, scratchpad=True)'
    sizes = [tuple(len(str(int(n))) for n in prompt[:-1].split('+')) for prompt, _ in draws(text, 3, 16)]
    uniform([len(each) for each in sizes], [2, 3])
    for count in (2, 3):
        tuples = itertools.product((1, 2, 3), repeat=count)
        uniform([each for each in sizes if len(each) == count], [each for each in tuples if max(each) == 3])
    equal = [prompt[:-1].split('+') for prompt, _ in draws('padded_addition(equal=1.0)', 3, 2)]
    assert all(number[0] == '0' != number[1] for pair in equal for number in pair)


def test_hints_begin_anywhere():
    uniform([prompt[0] for prompt, _ in draws('padded_addition(hints=26)', 20)], 'abcdef')


def test_factors_are_uniform():
    factors = [prompt[:-1].split('*') for prompt, _ in draws('multiplication(digits=2)', 1, 16)]
    uniform([a for a, _ in factors], [*'0123456789'])
    for place in (0, 1):
        uniform([b[place] for _, b in factors], [*'0123456789'])
