"""The fifteen tasks of Delétang et al. (2023) against plain-Python oracles, and the frequencies of their draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha import tasks
from mha.tasks import _binary
from tests.tasks.chomsky import (
    BATCH,
    DRAWN,
    EXAMPLES,
    LENGTHS,
    MAX_LENGTH,
    ORACLES,
    SLOW_BATCH,
    SLOW_LENGTHS,
    assert_uniform,
    many,
    number,
    read,
    sampler,
    split,
    symbols,
    written,
)


@pytest.fixture(params=ORACLES)
def text(request):
    return request.param


@pytest.mark.parametrize(('text', 'word', 'answer'), EXAMPLES)
def test_oracles_agree_with_the_worked_examples(text, word, answer):
    inputs, classes = symbols(text)
    found = ORACLES[text](written(word, inputs))
    if '.' in classes:
        assert not any(found[found.index(2) + 1 :])
        found = found[: found.index(2) + 1]
    assert found == [classes.index(name) for name in answer.replace(' ', '')]


@pytest.mark.parametrize('length', LENGTHS)
def test_answers(text, length):
    for word, answer in zip(*read(text, length), strict=True):
        assert answer == ORACLES[text](word), word


@pytest.mark.slow
@pytest.mark.parametrize('length', [*LENGTHS, *SLOW_LENGTHS])
def test_a_thousand_answers(text, length):
    words, answers = read(text, length, 0, SLOW_BATCH, SLOW_LENGTHS[-1])
    assert len(words) == SLOW_BATCH
    for word, answer in zip(words, answers, strict=True):
        assert answer == ORACLES[text](word), word


@pytest.mark.parametrize(('text', 'word', 'answer'), [example for example in EXAMPLES if example[0] in DRAWN])
def test_worked_examples(text, word, answer, monkeypatch):
    """The task's own answer to a given word: its random symbols are replaced by those of the example."""
    inputs, classes = symbols(text)
    word, answer = written(word, inputs), written(answer, classes)
    drawn = jnp.array(word + [0] * (MAX_LENGTH - len(word)))
    monkeypatch.setattr(jax.random, 'randint', lambda *args, **kwargs: drawn)
    batch = tasks.make(text).example(jax.random.key(0), len(word), MAX_LENGTH)
    assert batch.tokens[: len(word)].tolist() == word
    assert batch.targets[len(word) : len(word) + len(answer)].tolist() == answer


@pytest.mark.parametrize('length', [1, 7])
def test_a_person_reads_the_notation_of_the_worked_examples(text, length):
    task, (inputs, classes) = tasks.make(text), symbols(text)
    batch = jax.device_get(sampler(text, BATCH, MAX_LENGTH)(jax.random.key(0), length))
    gaps = [' ' if isinstance(names, list) else '' for names in (inputs, classes)]
    for row, word, answer in zip(range(5), *read(text, length), strict=False):
        ends = answer.index(2) + 1 if '.' in classes else len(answer)
        shown = [inputs[symbol] for symbol in word], [classes[label] for label in answer[:ends]]
        found = task.readable(jax.tree.map(lambda leaf, row=row: leaf[row], batch))
        assert found == (gaps[0].join(shown[0]), gaps[1].join(shown[1]))


def test_many_symbols_are_read_apart():
    """More than ten symbols have names of two digits."""
    task = tasks.make('bucket_sort(symbols=12)')
    read, answer = task.readable(task.example(jax.random.key(0), 9, 9))
    assert sorted(map(int, read.split())) == list(map(int, answer.split()))


# --- what is drawn how often -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', [2, 3, 7])
@pytest.mark.parametrize('text', sorted(DRAWN))
def test_symbols_are_balanced(text, length):
    """At each place of its own."""
    assert_uniform(many(text, length)[0], range(tasks.make(text).inputs))


@pytest.mark.parametrize(
    ('text', 'length'),
    [
        *itertools.product(sorted(DRAWN - {'cycle_navigation', 'bucket_sort', 'bucket_sort(symbols=3)'}), [2, 3, 7]),
        *itertools.product(['missing_duplicate_string'], [2, 3, 7]),
        *itertools.product(['solve_equation'], [3, 4, 7, 20]),
        *itertools.product(['modular_arithmetic', 'modular_arithmetic_brackets'], [1, 2]),
        ('cycle_navigation', 20),
    ],
)
def test_labels_are_balanced(text, length):
    """Where the definition makes them uniform."""
    task = tasks.make(text)
    assert task.chance == 1 / task.num_classes
    assert_uniform(many(text, length)[1], range(task.num_classes))


def test_neighbours_and_pairs_are_independent():
    words = many('reverse_string', 20)[0]
    products = np.corrcoef(words.T) - np.eye(20)
    assert np.abs(products).max() < 5 / np.sqrt(len(words))


@pytest.mark.parametrize('length', [2, 3, 7, 20])
def test_missing_duplicate_words(length):
    """A doubled word with one hole; an odd length ends in 3; every place may be the hole."""
    half, holes = length // 2, set()
    for seed in range(3):
        for word in read('missing_duplicate_string', length, seed)[0]:
            assert word[2 * half :] == [3] * (length % 2)
            assert word[: 2 * half].count(2) == 1
            pairs = zip(word[:half], word[half : 2 * half], strict=True)
            assert all(a == b or 2 in (a, b) for a, b in pairs)
            assert {*word[: 2 * half]} <= {0, 1, 2}
            holes.add(word.index(2))
    assert holes == set(range(2 * half))
    assert read('missing_duplicate_string', 1)[0] == [[1]] * BATCH


@pytest.mark.parametrize(
    ('text', 'lengths'),
    [('modular_arithmetic', (1, 1, 3, 3, 7, 19)), ("modular_arithmetic(even='add')", (1, 3, 3, 5, 7, 21))],
)
def test_modular_arithmetic_has_odd_words(text, lengths):
    task = tasks.make(text)
    assert tuple(len(read(text, length)[0][0]) for length in LENGTHS) == lengths
    assert tuple(task.input_length(length) for length in LENGTHS) == lengths


def test_modular_arithmetic_symbols_are_balanced():
    words = many('modular_arithmetic', 7)[0]
    assert_uniform(words[:, 0::2], range(5))
    assert_uniform(words[:, 1::2], [5, 6, 7])


def test_stacks_and_actions_are_balanced():
    words = many('stack_manipulation', 7)[0]
    sizes = (words < 2).sum(1)
    assert_uniform(sizes, range(1, 7))
    assert_uniform(words[:, 0], [0, 1])
    assert_uniform(words[:, 6], [2, 3, 4])
    assert_uniform(many('stack_manipulation', 1)[0], [0, 1])


@pytest.mark.parametrize(
    ('text', 'length', 'operators'), [('modular_arithmetic_brackets', 12, '+-*'), ('solve_equation', 14, '+-')]
)
def test_expressions_are_balanced(text, length, operators):
    """The splits of 12 characters, the operators there, and the digits."""
    words = [''.join(symbols(text)[0][symbol] for symbol in word) for word in many(text, length)[0]]
    lefts, found, rights = zip(*(split(word.split('=')[0]) for word in words), strict=True)
    assert_uniform([len(left) for left in lefts], range(1, 9))
    assert_uniform(found, operators)
    # One level down, in parts of six characters.
    inner = [split(right) for right in rights if len(right) == 6]
    assert_uniform([len(a) for a, _, _ in inner], [1, 2])
    assert_uniform([symbol for _, symbol, _ in inner], operators)
    assert_uniform([left[0] for left in lefts if left in set('01234')], '01234')


def test_any_digit_may_be_hidden():
    """The next one from a uniform place on: of the places 0 .. 4 of (d+d)=v, 4, 0 and 1 lead to the digit at 1."""
    words = many('solve_equation', 7)[0]
    first, second = words[:, 1] == 9, words[:, 3] == 9
    assert (first != second).all()
    assert abs(first.mean() - 3 / 5) < 5 * np.sqrt(3 / 5 * 2 / 5 / len(words))


@pytest.mark.parametrize('text', ['binary_addition', 'binary_multiplication'])
def test_operands_are_balanced(text):
    words = many(text, 5)[0]
    places = (words == 2).argmax(1)
    assert_uniform(places, [1, 2, 3])
    assert_uniform([number(word[:2]) for word in words[places == 2]], [1, 2, 3])
    assert_uniform([number(word[3:]) for word in words[places == 2]], [1, 2, 3])
    assert_uniform([number(word[2:]) for word in words[places == 1]], range(1, 8))
    assert_uniform([number(word) for word in many(text, 2)[0]], [0, 1, 2])
    assert not many(text, 1)[0].any()


def test_roots_are_taken_of_uniform_numbers():
    assert_uniform([number(word[::-1]) for word in many('compute_sqrt', 4)[0]], range(1, 16))


def test_bits_of_large_numbers_are_independent():
    """On both sides of the 30 bits that are drawn as one number."""
    keys = jax.random.split(jax.random.key(0), 2000)
    bits = np.asarray(jax.jit(jax.vmap(lambda key: _binary.positive(key, 64, 70)))(keys))
    assert not bits[:, 64:].any()
    assert_uniform(bits[:, :64], [0, 1])
    assert np.abs(np.corrcoef(bits[:, :64].T) - np.eye(64)).max() < 5 / np.sqrt(len(keys))
