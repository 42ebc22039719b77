"""Lookups whose prompt and answer are one sequence, against oracles that read the prompt as a person does."""

import collections
import itertools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from tests.tasks.drawn import close
from tests.tasks.sequences import make, read, rows, sample

LENGTHS, SEEDS = (1, 2, 7, 8, 20), 16
CASES = [
    'mqmtar(letters=6, queries=2)',
    'mqmtar(letters=9, keys=3, values=1, density=0.5, bos=True)',
    'ngram_lookup(n=2)',
    "ngram_lookup('prefix', n=1, answer=2, bos=True)",
    'ngram_lookup(n=2, letters=2)',
    'find_block',
    "find_block(3, 2, 5, answer='last', bos=True)",
    "find_block(2, 1, 4, answer='first')",
]


def mqmtar(task, prompt, length):
    size = task.keys + task.values + 2
    shortest = -(-size // float(task.density))
    *words, end = prompt.split() if ' ' in prompt else prompt
    words, queries = words[: -task.queries * (task.keys + 1)], words[-task.queries * (task.keys + 1) :]
    assert end == '>'
    assert len(words) == max(length, shortest)
    pairs = int(len(words) * float(task.density) // size)
    segment, value = len(words) // pairs, {}
    for start in range(0, segment * pairs, segment):
        key, answer = ' '.join(words[start : start + segment]).strip('_ ').split(' : ')
        assert words[start + segment - 1] == '_'
        assert len(key.split()) == task.keys
        assert len(answer.split()) == task.values
        value[key] = answer
    assert {*words[segment * pairs :]} <= {'_'}
    assert len(value) == len({*value.values()}) == pairs
    asked = ' '.join(queries).removeprefix('? ').split(' ? ')
    assert len(asked) == task.queries
    answer = ' '.join(f'? {value[key]}' for key in asked) + ' .'
    return answer if ' ' in prompt else answer.replace(' ', '')


def ngram_lookup(task, prompt, length):
    if task.form == 'prefix':
        ngram, string, end = prompt.split('|')
        assert not end
    else:
        string, ngram = prompt.split('|')
    assert len(ngram) == task.n
    assert len(string) == max(length, task.n + max(task.answer, 1))
    ngrams = collections.Counter(string[i : i + task.n] for i in range(len(string) - task.n + 1))
    possible = {string[i : i + task.n] for i in range(len(string) - task.n - max(task.answer, 1) + 1)}
    assert ngram in possible
    assert ngrams[ngram] == 1 or min(ngrams[other] for other in possible) > 1
    rest = string[string.index(ngram) + task.n :]
    return (rest[: task.answer] if task.answer else rest) + '.'


def find_block(task, prompt, length):
    blocks, query = prompt.split('#')
    blocks = blocks.split('.')
    assert len(blocks) == length
    assert all(len(block) == len({*block}) == task.block for block in blocks)
    assert len(query) == len({*query}) == task.query
    (block,) = [block for block in blocks if {*query} <= {*block}]
    return {'block': block, 'first': block[0], 'last': block[-1]}[task.answer] + '.'


ORACLES = {'mqmtar': mqmtar, 'ngram_lookup': ngram_lookup, 'find_block': find_block}


def solve(text, prompt, length):
    assert prompt.startswith('$') == ('bos=True' in text)
    return ORACLES[text.partition('(')[0]](make(text), prompt.removeprefix('$').strip(), length)


@pytest.mark.parametrize('text', CASES)
def test_answers(text):
    task = make(text)
    for length in LENGTHS:
        for prompt, answer in read(text, length):
            assert answer == solve(text, prompt, length), prompt
        batch, width = sample(text, length), task.num_tokens(length)
        np.testing.assert_array_equal(
            batch.valid, np.broadcast_to(np.arange(batch.valid.shape[1]) < width, batch.valid.shape)
        )
        for row in rows(batch):
            at = np.flatnonzero(row.metric_mask)
            assert at[0] + 1 == task.bos + task.prompt_length(length)
            assert len(at) <= task.output_length(length)
            assert task.alphabet[row.targets[at[-1]]] == '.'


@pytest.mark.parametrize('text', CASES[::2])
def test_the_padding_does_not_change_the_example(text):
    for tight, wide in zip(*(jax.tree.leaves(sample(text, 7, 0, most)) for most in (7, 20)), strict=True):
        np.testing.assert_array_equal(wide[:, : tight.shape[1]], tight)
        assert not wide[:, tight.shape[1] :].any()


@pytest.mark.parametrize(
    ('text', 'prompt', 'length', 'answer'),
    [
        ('mqmtar(letters=10, queries=2)', '_73:94__53:11___?53?73>', 16, '?11?94.'),
        ('ngram_lookup(n=2)', 'cabdcbe|bd', 7, 'cbe.'),
        ("ngram_lookup('prefix', n=2)", 'bd|cabdcbe|', 7, 'cbe.'),
        ('find_block', 'dklsr.gpamc.rmzxa#pa', 3, 'gpamc.'),
    ],
)
def test_oracles_agree_with_the_worked_examples(text, prompt, length, answer):
    assert solve(text, prompt, length) == answer


def draws(text, length, seeds=SEEDS):
    return [pair for seed in range(seeds) for pair in read(text, length, seed)]


def test_places_of_pairs_are_uniform_in_their_segments():
    starts = collections.Counter(prompt.index(':') for prompt, _ in draws('mqmtar(letters=6, queries=2)', 8))
    assert {*starts} == {2, 3, 4}  # the blank behind a pair is its own
    assert all(close(count, starts.total(), 1 / 3) for count in starts.values())


def test_words_are_uniform_and_may_be_asked_for_twice():
    found = [prompt for prompt, _ in draws('mqmtar(letters=6, queries=2)', 20)]
    words = collections.Counter(words[i - 2 : i] for words in found for i, word in enumerate(words) if word == ':')
    assert len(words) == 36
    assert all(close(count, words.total(), 1 / 36) for count in words.values())
    assert close(sum(words[-7:-4] == words[-4:-1] for words in found), len(found), 1 / 2)


def test_ngrams_are_uniform():
    starts = collections.Counter()
    for prompt, answer in draws('ngram_lookup(n=2)', 8):
        starts[8 - len(answer) - 1] += len({*itertools.pairwise(prompt[:8])}) == 7  # all n-grams occur once
    assert {*starts} == {*range(6)}
    assert all(close(count, starts.total(), 1 / 6) for count in starts.values())


def test_other_blocks_are_uniform_among_those_that_may_occur():
    """Of 10 sets of three letters of five, 3 contain both letters of the query, and 1 of the rest neither."""
    text, shared, places = "find_block(3, 2, 5, answer='last', bos=True)", collections.Counter(), collections.Counter()
    for prompt, _ in draws(text, 7):
        blocks, query = prompt[1:].split('#')
        for place, block in enumerate(blocks.split('.')):
            shared[''.join(sorted({*block} & {*query}, key=query.index))] += 1
            places[place] += {*query} <= {*block}
    assert close(shared.total() / 7, shared.total(), 1 / 7)
    others = sum(number for letters, number in shared.items() if len(letters) < 2)
    assert close(next(number for letters, number in shared.items() if not letters), others, 1 / 7)
    assert all(close(count, places.total(), 1 / 7) for count in places.values())


def test_letters_and_orders_are_uniform():
    text = "find_block(3, 2, 5, answer='last', bos=True)"
    blocks = collections.Counter(prompt[1:4] for prompt, _ in draws(text, 7))
    assert len(blocks) == 60
    assert all(close(count, blocks.total(), 1 / 60) for count in blocks.values())


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('mqmtar(density=0)', 'density must be above 0 and at most 1, not 0'),
        ('mqmtar(letters=1)', 'letters must be at least 2, not 1'),
        ("ngram_lookup('infix')", "form must be 'suffix' or 'prefix', not 'infix'"),
        ('ngram_lookup(letters=27)', 'letters must be from 2 to 26, not 27'),
        ('find_block(5, 6)', 'block must be at least query = 6 and below letters = 26, not 5'),
        ('find_block(5, 2, 5)', 'block must be at least query = 2 and below letters = 5, not 5'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        tasks.make(text, causal=True)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ORACLES)
def test_lookups_are_for_causal_models(name):
    with pytest.raises(UserError, match=r'set model\.causal=True'):
        tasks.make(name)


def test_too_few_words_for_the_length():
    task = make('mqmtar(letters=6, queries=2)')
    with pytest.raises(UserError, match='10 pairs need 40 words, not 36 - set more letters'):
        task.example(jax.random.key(0), 75, 75)
