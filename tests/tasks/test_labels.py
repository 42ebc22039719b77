"""Local count and n-back, which label every symbol, against their definitions."""

import itertools
from collections import Counter

import pytest

from mha import tasks
from mha.spec import UserError
from tests.tasks.drawn import LENGTHS, check_padding, check_protocol, close, make, read

CASES = [('local_count(4, 3)', True), ('local_count', False), ('n_back', True), ('n_back(5, 3)', False)]


def local_count(task, word):
    runs = [len([*run]) for _, run in itertools.groupby(word)]
    assert all(2 <= run <= task.num_classes for run in runs[:-1])
    return [index for run in runs for index in range(run)]


def n_back(task, word):
    return [task.inputs if place < task.n else word[place - task.n] for place in range(len(word))]


ORACLES = {'local_count': local_count, 'n_back': n_back}


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_answers(text, causal, length):
    for word, answer, places in read(text, length, causal):
        assert answer == ORACLES[text.partition('(')[0]](make(text, causal), word)
        assert places == [*range(length)]


@pytest.mark.parametrize(
    ('text', 'word', 'answer'),
    [('local_count', '1 1 1 0 0 2 2 2 2', '0 1 2 0 1 0 1 2 3'), ('n_back', '3 1 4 1 5', '- - 3 1 4')],
)
def test_worked_examples(text, word, answer):
    task = make(text, True)
    labels = ORACLES[text](task, [int(symbol) for symbol in word.split()])
    assert [task.classes[label] for label in labels] == answer.split()


def test_runs():
    """Sizes, symbols, and the change from one run to the next are uniform."""
    sizes, symbols, steps = Counter(), Counter(), Counter()
    for word, _, _ in read('local_count(4, 3)', 20, True, seeds=16):
        runs = [(symbol, len([*run])) for symbol, run in itertools.groupby(word)]
        sizes[runs[0][1]] += 1
        symbols[runs[0][0]] += 1
        steps[(runs[1][0] - runs[0][0]) % 3] += 1
    for counts, choices in ((sizes, {2, 3, 4}), (symbols, {0, 1, 2}), (steps, {1, 2})):
        assert {*counts} == choices
        assert all(close(count, counts.total(), 1 / len(choices)) for count in counts.values())


def test_no_count_is_new_in_longer_strings():
    labels = {
        label
        for length in (20, 200)
        for _, answer, _ in read('local_count(4, 3)', length, True, max_length=200)
        for label in answer
    }
    assert labels == {0, 1, 2, 3}


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_protocol(text, causal, length):
    check_protocol(text, causal, length)


@pytest.mark.parametrize(('text', 'causal'), CASES[::2])
def test_the_padding_does_not_change_the_example(text, causal):
    check_padding(text, causal, 7)


@pytest.mark.parametrize(
    ('text', 'message'),
    [('local_count(1)', 'longest must be at least 2, not 1'), ('n_back(0)', 'n must be at least 1, not 0')],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text)
    assert '\n' not in str(error.value)
