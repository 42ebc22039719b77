"""Recall in context and selective copying (MAD) against oracles that read the stream as a person does."""

import itertools
from collections import Counter

import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from tests.tasks.drawn import BATCH, check_padding, check_protocol, close, make, read, sample

CASES = [
    ('selective_copying(3, 5)', False),
    ("selective_copying(3, 5, places='released')", True),
    ('noisy_recall(0.5, keys=4)', True),
    ("noisy_recall(0.9, keys=4, values=3, noise_symbols=2, loss='all')", True),
    ('noisy_recall', False),
    ('fuzzy_recall', True),
    ("fuzzy_recall(2, 3, 4, sizes='longest', loss='all')", True),
    ('fuzzy_recall(1, 3, 4)', True),
]
LENGTHS, MAX_LENGTH = (1, 7, 8, 11, 20, 40), 40


def selective_copying(task, word, length):
    shown = [task.alphabet[symbol] for symbol in word]
    assert len(shown) == max(length, 2 * task.copies + 1) - task.copies
    assert shown[-1] == '>'
    tokens = [symbol for symbol in shown[:-1] if symbol != '.']
    assert len(tokens) == task.copies
    if task.places == 'released':
        assert shown[-2] != '.'
    return [int(token) for token in tokens]


def noisy_recall(task, word, length):
    """Values that repeated keys ask for, by place."""
    assert len(word) == max(length // 2, 2) * 2 - 1
    value, asked = {}, {}
    for place, (key, symbol) in enumerate(itertools.zip_longest(word[::2], word[1::2])):
        if key >= task.keys + task.values:
            assert symbol >= task.keys + task.values
            continue
        assert symbol is None or task.keys <= symbol < task.keys + task.values
        if key in value:
            assert symbol in (value[key], None)
            asked[2 * place] = value[key]
        value.setdefault(key, symbol)
    assert max(asked) == len(word) - 1
    return asked


def fuzzy_recall(task, word, length):
    """The same, for motifs; `word` has the answer that follows its last symbol."""
    shortest = 4 * task.motif - 1
    assert len(word) == max(length, shortest) + 1
    shown = [task.alphabet[symbol][0] for symbol in word]
    padding = ''.join(shown).count('.')
    assert '.' not in shown[padding:]
    assert padding <= 4 * task.motif - 3
    bounds = [i for i in range(padding + 1, len(word)) if (shown[i - 1], shown[i]) == ('v', 'k')]
    value, asked = {}, {}
    for begin, end in itertools.pairwise([padding, *bounds, len(word)]):
        middle = begin + shown[begin:end].index('v')
        key, answer = tuple(word[begin:middle]), tuple(word[middle:end])
        assert len({*key}) == len(key) <= task.motif
        assert len({*answer}) == len(answer) <= task.motif
        assert task.sizes == 'any' or len(key) == task.motif
        if key in value:
            assert value[key] == answer
            asked |= {middle - 1 + i: symbol for i, symbol in enumerate(answer)}
        value[key] = answer
    assert len(word) - 2 in asked  # the last key was shown
    return asked


ORACLES = {'selective_copying': selective_copying, 'noisy_recall': noisy_recall, 'fuzzy_recall': fuzzy_recall}


def solve(text, causal, word, answer, length):
    """Answers and their places."""
    task, name = make(text, causal), text.partition('(')[0]
    if name == 'selective_copying':
        return selective_copying(task, word, length), [*range(len(word), len(word) + task.copies)]
    found = ORACLES[name](task, word + answer[-1:] * (name == 'fuzzy_recall'), length)
    if not causal:
        return [found[max(found)]], [len(word)]
    return [*found.values()], [*found]


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_answers(text, causal, length):
    for word, answer, places in read(text, length, causal, max_length=MAX_LENGTH):
        assert (answer, places) == solve(text, causal, word, answer, length)


@pytest.mark.parametrize(
    ('text', 'word', 'length', 'places', 'answer'),
    [
        ('selective_copying(3)', '3 . . 1 . 4 . >', 11, [8, 9, 10], '3 1 4'),
        ('noisy_recall', 'k3 v0 n7 n2 k1 v5 k3 v0 n1 n1 k1', 12, [6, 10], 'v0 v5'),
        ('fuzzy_recall', '. k2 k0 v4 k5 v1 v0 k2 k0 v4 k1 v2 k5 v1', 14, [8, 12, 13], 'v4 v1 v0'),
    ],
)
def test_oracles_agree_with_the_worked_examples(text, word, length, places, answer):
    task = make(text, True)
    labels = [task.classes.index(symbol) for symbol in answer.split()]
    assert solve(text, True, [*map(task.alphabet.index, word.split())], labels, length) == (labels, places)


@pytest.mark.parametrize('text', [text for text, _ in CASES if "'all'" in text])
def test_all_tokens_are_in_the_loss(text):
    batch, short = (
        sample(name, True, 20, max_length=MAX_LENGTH) for name in (text, text.replace("'all'", "'answers'"))
    )
    np.testing.assert_array_equal(batch.tokens, short.tokens)
    np.testing.assert_array_equal(batch.loss_mask, batch.valid)
    np.testing.assert_array_equal(short.loss_mask, short.metric_mask)
    np.testing.assert_array_equal(batch.metric_mask, short.metric_mask)
    end = batch.valid.sum(1)[0]
    np.testing.assert_array_equal(batch.targets[:, : end - 1], batch.tokens[:, 1:end])
    np.testing.assert_array_equal(batch.targets[batch.metric_mask], short.targets[batch.metric_mask])


def test_places_of_tokens():
    """All are equally likely, the last one included; as released, that is always taken, and numbers of blanks before
    tokens are multinomial."""
    text, more = 'selective_copying(3, 5)', "selective_copying(3, 5, places='released')"
    taken = np.array(
        [[symbol < 5 for symbol in word] for word, _, _ in read(text, 20, False, 16, max_length=MAX_LENGTH)]
    )
    assert all(close(count, len(taken), 3 / 16) for count in taken[:, :16].sum(0))
    first = [word for word, _, _ in read(more, 20, True, 16, max_length=MAX_LENGTH)]
    gaps = np.array([np.diff([-1, *np.flatnonzero(np.array(word[:-1]) < 5)]) - 1 for word in first])
    assert (gaps.sum(1) == 13).all()
    assert all(abs(gap - 13 / 3) < 5 * np.sqrt(13 * 2 / 9 / len(gaps)) for gap in gaps.mean(0))
    assert all(abs(gap / (13 * 2 / 9) - 1) < 0.25 for gap in gaps.var(0))


@pytest.mark.parametrize(('text', 'noise'), [('noisy_recall(0.5, keys=4)', 0.5), ('noisy_recall(keys=4)', 0.2)])
def test_share_of_noise(text, noise):
    """19 pairs may be noise, of which one chosen at random is not."""
    number = np.zeros(19)
    for word, _, _ in read(text, 40, True, 8, max_length=MAX_LENGTH):
        number += [key >= 12 for key in word[:-1:2]]
    assert all(close(count, 8 * BATCH, noise * 18 / 19) for count in number)


def test_values_are_uniform():
    found = [answer for _, answer, _ in read('noisy_recall', 20, False, 16, max_length=MAX_LENGTH)]
    values = Counter(itertools.chain(*found))
    assert {*values} == {*range(8, 16)}
    assert all(close(count, values.total(), 1 / 8) for count in values.values())


def test_sizes_of_motifs_are_uniform():
    """Sizes of the first key after the padding and its value."""
    sizes = Counter()
    for word, _, _ in read('fuzzy_recall', 40, True, 16, max_length=MAX_LENGTH):
        shown = ''.join('kv.'[(symbol >= 7) + (symbol >= 15)] for symbol in word).lstrip('.')
        key = len(shown) - len(shown.lstrip('k'))
        sizes[key, len(shown[key:]) - len(shown[key:].lstrip('v'))] += 1
    assert {*sizes} == {*itertools.product((1, 2, 3), repeat=2)}
    assert all(close(count, sizes.total(), 1 / 9) for count in sizes.values())


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_protocol(text, causal, length):
    check_protocol(text, causal, length, MAX_LENGTH)


@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_the_padding_does_not_change_the_example(text, causal):
    check_padding(text, causal, 20, MAX_LENGTH)


@pytest.mark.parametrize(
    ('text', 'causal', 'message'),
    [
        ('selective_copying(0)', False, 'copies must be at least 1, not 0'),
        ("selective_copying(places='even')", False, "places must be 'uniform' or 'released', not 'even'"),
        ('noisy_recall(1)', False, 'noise must be at least 0 and below 1, not 1'),
        ("noisy_recall(loss='all')", False, "loss='all' is for causal models, which see no later tokens"),
        ('fuzzy_recall', False, r'set model\.causal=True'),
        ('fuzzy_recall(8)', True, 'motif must be at most keys = 7 and values = 8, not 8'),
    ],
)
def test_errors(text, causal, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text, causal=causal)
    assert '\n' not in str(error.value)
