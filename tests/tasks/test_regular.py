"""Legal next symbols of regular languages against their definitions in words."""

import collections
import functools
import itertools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from mha.tasks import regular
from mha.tasks.regular import LANGUAGES, RELEASED

BATCH, MAX_LENGTH, LENGTHS = 64, 20, (1, 2, 3, 4, 5, 7, 11, 20)

PATTERNS = {
    'tomita1': '1*',
    'tomita2': '(10)*',
    'tomita4': '(?!.*000)[01]*',
    'tomita7': '0*1*0*1*',
    '(aa)*': '(aa)*',
    '(aaaa)*': '(aaaa)*',
    '(abab)*': '(abab)*',
    'aa*bb*cc*dd*ee*': 'aa*bb*cc*dd*ee*',
    '{a,b}*d{b,c}*': '[ab]*d[bc]*',
    '{0,1,2}*02*': '[012]*02*',
}


def belongs(language, word):
    """Whether a word is one of the language."""
    if language in PATTERNS:
        return re.fullmatch(PATTERNS[language], word) is not None
    if language == 'tomita3':
        runs = [(symbol, len([*run])) for symbol, run in itertools.groupby(word)]
        pairs = itertools.pairwise(runs)
        return not any(a[0] == '1' and a[1] % 2 and b[1] % 2 for a, b in pairs)
    if language == 'tomita5':
        return word.count('0') % 2 == word.count('1') % 2 == 0
    if language == 'tomita6':
        return (word.count('0') - word.count('1')) % 3 == 0
    depths = [word[:end].count('a') - word[:end].count('b') for end in range(len(word) + 1)]
    return min(depths) >= 0 and max(depths) <= int(language[1:]) and depths[-1] == 0


@functools.cache
def alphabet(language):
    return [symbol for symbol in '012abcde' if any(f'{symbol}:' in state for state in LANGUAGES[language])]


@functools.cache
def goes_on(language, word):
    """Whether some word of the language begins with `word`."""
    if len(word) > 1 and not goes_on(language, word[:-1]):
        return False
    more = 5 if language[0] != 'd' else 0
    ends = (''.join(end) for size in range(more) for end in itertools.product(alphabet(language), repeat=size))
    open_brackets = word.count('a') - word.count('b') if language[0] == 'd' else 0
    return any(belongs(language, word + end) for end in (*ends, 'b' * open_brackets))


@functools.cache
def legal(language, word):
    """The set of symbols that may follow, and the end."""
    symbols = [symbol for symbol in alphabet(language) if goes_on(language, word + symbol)]
    return ''.join([*symbols, *['.'] * belongs(language, word)])


def released(language, word):
    """The labels of the release where they differ, by its own rules."""
    if language == 'tomita3':  # a symbol is legal if a word ends behind it
        return ''.join(symbol for symbol in '01' if belongs(language, word + symbol))
    if language == '(abab)*':
        return 'end' if belongs(language, word) else 'no'
    return '012.' if re.fullmatch('[012]*022*', word) else '012'


@functools.cache
def make(text):
    return tasks.make(text, causal=True)


@functools.cache
def sampler(text, max_length, batch):
    """One compiled program per task, for every length."""
    return jax.jit(lambda key, length: make(text).batch(key, batch, length, max_length))


@functools.cache
def sample(text, length, seed=0, max_length=MAX_LENGTH, batch=BATCH):
    return jax.device_get(sampler(text, max_length, batch)(jax.random.key(seed), length))


def read(text, length, seeds=1, max_length=MAX_LENGTH, batch=BATCH):
    """Words and the names of their sets."""
    task, found = make(text), []
    for seed in range(seeds):
        drawn = sample(text, length, seed, max_length, batch)
        whole = np.concatenate(jax.tree.leaves(drawn), axis=1)
        _, first, which = np.unique(whole, axis=0, return_index=True, return_inverse=True)
        different = []  # equal rows are read once
        for i in first:
            row = jax.tree.map(lambda leaf, i=i: leaf[i], drawn)
            word, _ = task.readable(row)
            assert word[0] == '$'
            different.append((word[1:], [task.classes[label] for label in row.targets[row.metric_mask]]))
        found += [different[i] for i in which.ravel()]
    return found


def spec(language, **more):
    return f'regular({", ".join(f"{name}={value!r}" for name, value in (dict(language=language) | more).items())})'


@pytest.mark.parametrize('language', LANGUAGES)
def test_automata_are_the_languages(language):
    """All words up to a length, all prefixes, and the labels of all states."""
    task, symbols = make(spec(language)), alphabet(language)
    other = make(spec(language, labels='released'))
    for length in range(1, {2: 9, 1: 13}.get(len(symbols), 6)):
        for word in map(''.join, itertools.product(symbols, repeat=length)):
            state = 0
            for symbol in word:
                moves = dict(move.split(':') for move in LANGUAGES[language][state].split() if move != '.')
                state = int(moves.get(symbol, -1))
                if state < 0:
                    break
            assert goes_on(language, word) == (state >= 0), word
            if goes_on(language, word):
                assert task.classes[task.label[state]] == legal(language, word), word
                if language in RELEASED:
                    assert other.classes[other.label[state]] == released(language, word), word


@pytest.mark.parametrize(
    ('language', 'word', 'sets'), [('tomita4', '01001', '01. 01. 01. 1. 01.'), ('d2', 'aabb', 'ab b ab a.')]
)
def test_worked_examples(language, word, sets):
    assert [legal(language, word[:end]) for end in range(1, len(word) + 1)] == sets.split()
    assert f'$ {" ".join(word)}    {sets}' in re.sub(' {5,}', '    ', regular.__doc__)


def nearest(language, length):
    """The length of words, by the definitions alone: the next shorter one, or else the shortest."""
    period, least = {'(aaaa)*': (4, 4), '(abab)*': (4, 4), 'aa*bb*cc*dd*ee*': (1, 5), 'tomita6': (1, 2)}.get(
        language, (2, 2) if language[0] == 'd' or language in ('tomita2', 'tomita5', '(aa)*') else (1, 1)
    )
    return max(length // period * period, least)


def check(text, language, length, label=legal, **more):
    for word, *answer in {(word, *answer) for word, answer in read(text, length, **more)}:
        assert len(word) == nearest(language, length)
        assert belongs(language, word)
        assert answer == [label(language, word[: end + 1]) for end in range(len(word))]


@pytest.mark.parametrize('language', LANGUAGES)
def test_answers(language):
    for length in LENGTHS:
        check(spec(language), language, length)


@pytest.mark.parametrize('language', RELEASED)
def test_released_answers(language):
    for length in LENGTHS:
        check(spec(language, labels='released'), language, length, released)


def test_lengths_of_words():
    """No language has words of a length that is not asked for."""
    for language in LANGUAGES:
        symbols = alphabet(language)
        for length in range(1, {1: 10, 2: 10}.get(len(symbols), 6)):
            has = any(belongs(language, ''.join(word)) for word in itertools.product(symbols, repeat=length))
            assert has == (make(spec(language)).word_length(length) == length), (language, length)


@pytest.mark.slow
@pytest.mark.parametrize('draw', ['strings', 'moves'])
@pytest.mark.parametrize('language', LANGUAGES)
def test_long_words(language, draw):
    for word, answer in read(spec(language, draw=draw), 150, max_length=150, batch=256):
        assert len(word) == nearest(language, 150)
        assert belongs(language, word)
        assert len(answer) == len(word)


# --- what is random --------------------------------------------------------------------------------------------------


def close(count, number, share):
    """Whether `count` of `number` draws are within five standard errors of their expected `share`."""
    return abs(count / number - share) <= 5 * np.sqrt(share * (1 - share) / number)


def chances(language, length, draw):
    """The probability of each word."""
    found = {}

    def ways(word):
        left = itertools.product(alphabet(language), repeat=length - len(word))
        return sum(belongs(language, word + ''.join(end)) for end in left)

    def walk(word, share):
        if len(word) == length:
            found[word] = share
            return
        counts = {symbol: ways(word + symbol) for symbol in alphabet(language)}
        weights = {symbol: count if draw == 'strings' else int(count > 0) for symbol, count in counts.items()}
        for symbol, weight in weights.items():
            if weight:
                walk(word + symbol, share * weight / sum(weights.values()))

    walk('', 1.0)
    return found


@pytest.mark.parametrize('draw', ['strings', 'moves'])
@pytest.mark.parametrize(
    ('language', 'length'), [('tomita3', 5), ('tomita6', 5), ('tomita7', 6), ('d3', 8), ('{a,b}*d{b,c}*', 3)]
)
def test_words_have_their_shares(language, length, draw):
    expected = chances(language, length, draw)
    found = collections.Counter(word for word, _ in read(spec(language, draw=draw), length, batch=4096))
    assert {*found} == {*expected}
    assert all(close(found[word], found.total(), share) for word, share in expected.items())
    if draw == 'strings':
        assert max(expected.values()) == pytest.approx(1 / len(expected))


# --- the input protocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('language', ['tomita4', '(aaaa)*', 'aa*bb*cc*dd*ee*'])
def test_protocol(language):
    """`$`, the word, then padding; an answer at every symbol of the word."""
    text = spec(language)
    task = make(text)
    for length in LENGTHS:
        batch, size = sample(text, length), nearest(language, length)
        slot = np.arange(task.num_tokens(MAX_LENGTH))
        assert task.num_tokens(length) == size + 1
        for leaf in jax.tree.leaves(batch):
            assert leaf.shape == (BATCH, slot.size)
        assert batch.tokens.dtype == batch.targets.dtype == np.int32
        assert (batch.valid == (slot <= size)).all()
        assert (batch.metric_mask == ((slot > 0) & (slot <= size))).all()
        assert (batch.loss_mask == batch.metric_mask).all()
        assert not batch.tokens[~batch.valid].any()
        assert not batch.targets[~batch.metric_mask].any()
        assert (batch.tokens[:, 0] == task.inputs - 1).all()
        assert (batch.tokens[:, 1:] < task.inputs - 1).all()
        assert 0 <= batch.targets.min() <= batch.targets.max() < task.num_classes
    keys = jax.random.split(jax.random.key(0), BATCH)
    narrow, wide = jax.jit(lambda keys: task.examples(keys, 7, 7))(keys), sample(text, 7)
    for leaf, other in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(other[:, : leaf.shape[1]], leaf)
        assert not other[:, leaf.shape[1] :].any()


def test_description():
    task = make('regular')
    assert (task.language, task.vocab_size, task.num_classes, task.chance) == ('tomita4', 3, 2, 0.5)
    assert task.classes == ['01.', '1.']
    assert make(spec('d12')).classes == ['a.', 'ab', 'b']
    leaves, tree = jax.tree.flatten(task)
    assert not leaves
    assert vars(jax.tree.unflatten(tree, leaves)) == {**vars(task), 'data': ()}


@pytest.mark.parametrize(
    ('text', 'causal', 'message'),
    [
        ("regular('tomita8')", True, "unknown language 'tomita8' - did you mean 'tomita7'"),
        ("regular(draw='words')", True, "draw must be 'strings' or 'moves', not 'words'"),
        ("regular(labels='old')", True, "labels must be 'defined' or 'released', not 'old'"),
        ('regular', False, r'set model\.causal=True'),
    ],
)
def test_errors(text, causal, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text, causal=causal)
    assert '\n' not in str(error.value)
