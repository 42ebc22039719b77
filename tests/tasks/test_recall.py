"""Variants of multi-query recall against oracles that read the context as a person does."""

import itertools

import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from tests.tasks.drawn import BATCH, check_padding, check_protocol, close, make, read, sample

CASES = [
    ('mqar(12, 2, passes=3)', True),
    ('mqar(12, 2, passes=2, noise=3)', False),
    ('mqar_update(14, 5, 3)', True),
    ('mqar_update(14, 5, 3, random_filler=False, noise=0)', False),
    ('mqar_pair(14)', True),
    ('mqar_pair(29, 3, noise=0)', False),
]
LENGTHS, MAX_LENGTH = (1, 7, 8, 25, 54, 60), 60


def context(task, name, length):
    """Number of keys, of entries before the queries, and of symbols of a key, and the length of an example."""
    if name == 'mqar':
        least = 2 * (task.passes + 1)
        pairs = min(max(length // least, 1), task.pairs)
        return pairs, pairs * task.passes, 1, max(length, least)
    if name == 'mqar_update':
        return task.pairs, task.pairs + task.updates, 1, max(length, 4 * task.pairs + 2 * task.updates)
    return task.grid**2, task.grid**2, 2, max(length, 6 * task.grid**2)


def oracle(task, name, word, length):
    """Last value of each key, and for every slot after the context the key that it asks for, if any."""
    pairs, entries, width, size = context(task, name, length)
    value, first = {}, []
    for i in range(entries):
        *key, answer = word[i * (width + 1) : (i + 1) * (width + 1)]
        first.append((tuple(key), answer))
        if name == 'mqar_update' and i >= pairs:
            assert answer != value[tuple(key)]
        value[tuple(key)] = answer
    assert len(value) == len({*value.values()} if name != 'mqar_update' else value) == pairs
    assert len({key for key, _ in first[:pairs]}) == pairs
    if name == 'mqar':
        assert first == first[:pairs] * task.passes
    starts = range(entries * (width + 1), size - width, width + 1)
    slots = {start: tuple(word[start : start + width]) for start in starts}
    return value, slots


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_answers(text, causal, length):
    task, name = make(text, causal), text.partition('(')[0]
    for word, answer, places in read(text, length, causal, max_length=MAX_LENGTH):
        _, entries, width, size = context(task, name, length)
        value, slots = oracle(task, name, word, length)
        assert all(symbol < task.num_classes for symbol in word[: entries * (width + 1)])
        if not causal:
            assert len(word) == size + width
            assert answer == [value[tuple(word[-width:])]]
            continue
        asked = [slots[place - width + 1] for place in places]
        assert sorted(asked) == sorted(value)
        assert answer == [value[key] for key in asked]
        if task.noise:  # filler says nothing about keys
            queries = {place - i for place in places for i in range(width)}
            rest = [symbol for i, symbol in enumerate(word[:size]) if i >= entries * (width + 1) and i not in queries]
            assert all(symbol >= task.num_classes for symbol in rest)


def test_ranges_of_symbols():
    """A third each for the two symbols of a key and the values; halves for others."""
    for word, _, _ in read('mqar_pair(14)', 24, True, max_length=MAX_LENGTH):
        assert all(
            1 <= a < 4 <= b < 8 <= value < 14 for a, b, value in zip(*(word[i:12:3] for i in range(3)), strict=True)
        )
        assert {*itertools.product({*word[:12:3]}, {*word[1:12:3]})} == {*zip(word[:12:3], word[1:12:3], strict=True)}
    for word, _, _ in read('mqar_update(14, 5, 3)', 26, True, max_length=MAX_LENGTH):
        assert all(1 <= key < 7 <= value < 14 for key, value in zip(word[:16:2], word[1:16:2], strict=True))


def test_neither_symbol_of_a_key_tells_its_value():
    """Every first symbol occurs with as many values as there are second ones, in random order."""
    orders = set()
    for word, _, _ in read('mqar_pair(29, 3, noise=0)', 54, False, max_length=MAX_LENGTH):
        first, second, values = (word[i:27:3] for i in range(3))
        assert (
            sorted(np.unique(first, return_counts=True)[1])
            == sorted(np.unique(second, return_counts=True)[1])
            == [3] * 3
        )
        assert len({*values}) == 9
        orders.add(tuple(np.unique(first, return_inverse=True)[1]))
    assert len(orders) > BATCH // 2


def test_updated_keys_are_any():
    """Neither the place of a key in the context nor that of its query tells whether it is updated."""
    places, order, number = np.zeros(5), np.zeros(5), 16 * BATCH
    for word, _, at in read('mqar_update(14, 5, 3)', 26, True, seeds=16, max_length=MAX_LENGTH):
        updated = {*word[10:16:2]}
        places += [key in updated for key in word[:10:2]]
        order += [word[place] in updated for place in at]
    assert all(close(count, number, 3 / 5) for count in (*places, *order))


def test_new_values_are_uniform_among_the_others():
    changes = np.zeros(7)
    for word, _, _ in read('mqar_update(14, 5, 3)', 26, True, seeds=16, max_length=MAX_LENGTH):
        value = dict(zip(word[:10:2], word[1:10:2], strict=True))
        for key, new in zip(word[10:16:2], word[11:16:2], strict=True):
            changes[(new - value[key]) % 7] += 1
    assert changes[0] == 0
    assert all(close(count, changes.sum(), 1 / 6) for count in changes[1:])


def test_noise_of_mqar_replaces_filler_alone():
    """Same keys, values and places of queries as without noise."""
    one, two = (sample(f'mqar(12, 2{more})', True, 20) for more in ('', ', noise=3'))
    np.testing.assert_array_equal(one.targets, two.targets)
    asked = one.metric_mask | (np.arange(20) < 4)
    np.testing.assert_array_equal(one.tokens[asked], two.tokens[asked])
    assert (two.tokens[~asked] >= 12).all()


def test_worked_examples():
    update = [2, 8, 4, 7, 3, 9, 4, 6, 17, 12, 2, 15, 4, 13, 3, 19]
    value, slots = oracle(make('mqar_update(12, 3, 1)', True), 'mqar_update', update, 16)
    assert value == {(2,): 8, (4,): 6, (3,): 9}
    assert [slots[place] for place in (10, 12, 14)] == [(2,), (4,), (3,)]
    pair = [2, 7, 12, 4, 7, 11, 4, 8, 14, 2, 8, 13, 20, 16, 16, 4, 8, 18, 2, 7, 16, 2, 8, 20]
    value, slots = oracle(make('mqar_pair(15)', True), 'mqar_pair', pair, 24)
    assert [value[slots[place]] for place in (15, 18, 21)] == [14, 12, 13]


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_protocol(text, causal, length):
    check_protocol(text, causal, length, MAX_LENGTH)


@pytest.mark.parametrize(('text', 'causal'), CASES[::2])
def test_the_padding_does_not_change_the_example(text, causal):
    check_padding(text, causal, 54, MAX_LENGTH)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('mqar(passes=0)', 'passes must be from 1 to 100, not 0|passes must be at least 1, not 0'),
        ('mqar_update(9, 4)', r'vocabulary must be at least 2 \* pairs \+ 2 = 10, not 9'),
        ('mqar_update(pairs=3)', 'updates must be at most pairs = 3, not 4'),
        ('mqar_update(noise=-1)', 'noise must be at least 0, not -1'),
        ('mqar_pair(26, 3)', r'vocabulary must be at least 3 \* grid\^2 = 27, not 26'),
        ('mqar_pair(grid=1)', 'grid must be at least 2, not 1'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text)
    assert '\n' not in str(error.value)
