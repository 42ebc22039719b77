"""Generated tasks against plain-Python oracles, and the input protocol that they share."""

import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError

# Lengths of interest: the shortest, an even and an odd one, and the longest that the compiled program serves.
LENGTHS, MAX_LENGTH, BATCH = (1, 2, 3, 4, 7, 20), 20, 64


def even_pairs(word):
    return [sum(a != b for a, b in itertools.pairwise(word)) % 2]


def parity_check(word):
    return [sum(word) % 2]


def reverse_string(word):
    return word[::-1]


def duplicate_string(word):
    return word + word


def odds_first(word):
    return word[0::2] + word[1::2]


def odds_first_released(word):
    return word[1::2] + word[0::2]


def bucket_sort(word):
    return sorted(word)


def missing_duplicate_string(word):
    """The one symbol that would double the string."""
    if len(word) == 1:
        return [1]
    half = len(word) // 2
    (hole,) = [i for i, symbol in enumerate(word[: 2 * half]) if symbol == 2]
    return [word[(hole + half) % (2 * half)]]


ORACLES = {
    'even_pairs': even_pairs,
    'parity_check': parity_check,
    'reverse_string': reverse_string,
    'duplicate_string': duplicate_string,
    'odds_first': odds_first,
    "odds_first(order='released')": odds_first_released,
    'bucket_sort': bucket_sort,
    'bucket_sort(symbols=3)': bucket_sort,
    'missing_duplicate_string': missing_duplicate_string,
}
# (input symbols, classes) and the number of answer symbols of each; a binary word in, unless said otherwise.
SIZES = {
    'even_pairs': (2, 2, lambda n: 1),
    'parity_check': (2, 2, lambda n: 1),
    'reverse_string': (2, 2, lambda n: n),
    'duplicate_string': (2, 2, lambda n: 2 * n),
    'odds_first': (2, 2, lambda n: n),
    "odds_first(order='released')": (2, 2, lambda n: n),
    'bucket_sort': (5, 5, lambda n: n),
    'bucket_sort(symbols=3)': (3, 3, lambda n: n),
    'missing_duplicate_string': (4, 2, lambda n: 1),
}
EXAMPLES = [
    ('even_pairs', '001110', '0'),
    ('even_pairs', '0101001', '1'),
    ('even_pairs', '1', '0'),
    ('parity_check', '1010100', '1'),
    ('reverse_string', '011010', '010110'),
    ('duplicate_string', '101', '101101'),
    ('odds_first', '00110101', '01000111'),
    ('odds_first', '110', '101'),
    ("odds_first(order='released')", '00110101', '01110100'),
    ("odds_first(order='released')", '110', '110'),
    ('bucket_sort', '10204112', '00111224'),
    ('missing_duplicate_string', '01100210', '1'),
    ('missing_duplicate_string', '1011213', '0'),
    ('missing_duplicate_string', '1', '1'),
]


@functools.cache
def sampler(text):
    """One compiled program per task, for every length."""
    task = tasks.make(text)
    traces = []

    def run(key, length):
        traces.append(length)
        return task.batch(key, BATCH, length, MAX_LENGTH)

    return jax.jit(run), traces


@functools.cache
def sample(text, length, seed=0):
    batch = sampler(text)[0](jax.random.key(seed), length)
    return types.SimpleNamespace(**{name: np.asarray(leaf) for name, leaf in vars(batch).items()})


def read(text, length, seed=0):
    """The words and answers of a batch, as lists."""
    batch, size = sample(text, length, seed), SIZES[text][2](length)
    return batch.tokens[:, :length].tolist(), batch.targets[:, length : length + size].tolist()


@pytest.fixture(params=ORACLES)
def text(request):
    return request.param


# --- what each task asks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('text', 'word', 'answer'), EXAMPLES)
def test_oracles_agree_with_the_worked_examples(text, word, answer):
    assert ORACLES[text]([int(symbol) for symbol in word]) == [int(symbol) for symbol in answer]


@pytest.mark.parametrize('length', LENGTHS)
def test_answers(text, length):
    for word, answer in zip(*read(text, length), strict=True):
        assert answer == ORACLES[text](word), word


@pytest.mark.parametrize(('text', 'word', 'answer'), EXAMPLES)
def test_worked_examples(text, word, answer, monkeypatch):
    """The task's own answer to a given word: its random symbols are replaced by those of the example."""
    if text == 'missing_duplicate_string':
        pytest.skip('its word is not drawn symbol by symbol')
    word = [int(symbol) for symbol in word]
    drawn = jnp.array(word + [0] * (MAX_LENGTH - len(word)))
    monkeypatch.setattr(jax.random, 'randint', lambda *args, **kwargs: drawn)
    batch = tasks.make(text).example(jax.random.key(0), len(word), MAX_LENGTH)
    answer = [int(symbol) for symbol in answer]
    assert batch.tokens[: len(word)].tolist() == word
    assert batch.targets[len(word) : len(word) + len(answer)].tolist() == answer


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


# --- chance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', [2, 3, 7])
def test_symbols_and_labels_are_balanced(text, length):
    """Within five standard errors of a uniform draw, at each place of its own."""
    inputs, classes, _ = SIZES[text]
    words, answers = zip(*(read(text, length, seed) for seed in range(16)), strict=True)
    words, answers = np.concatenate(words), np.concatenate(answers)
    count = len(words)
    if text != 'missing_duplicate_string':
        for symbol in range(inputs):
            share = (words == symbol).mean(0)
            assert np.abs(share - 1 / inputs).max() < 5 * np.sqrt(1 / inputs * (1 - 1 / inputs) / count)
    if not text.startswith('bucket_sort'):
        for label in range(classes):
            share = (answers == label).mean(0)
            assert np.abs(share - 1 / classes).max() < 5 * np.sqrt(0.25 / count)


def test_examples_of_a_batch_differ(text):
    assert len(np.unique(sample(text, 20).tokens, axis=0)) > BATCH // 2
    assert not np.array_equal(sample(text, 20).tokens, sample(text, 20, seed=1).tokens)


def test_neighbours_and_pairs_are_independent():
    words = np.concatenate([read('reverse_string', 20, seed)[0] for seed in range(16)])
    products = np.corrcoef(words.T) - np.eye(20)
    assert np.abs(products).max() < 5 / np.sqrt(len(words))


# --- the input protocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', LENGTHS)
def test_protocol(text, length):
    """The input, one placeholder per answer symbol right after it, then padding; answers count at placeholders only."""
    inputs, classes, size = SIZES[text]
    batch, slots, end = sample(text, length), MAX_LENGTH + size(MAX_LENGTH), length + size(length)
    for leaf in (batch.tokens, batch.valid, batch.targets, batch.loss_mask, batch.metric_mask):
        assert leaf.shape == (BATCH, slots)
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    assert batch.valid.dtype == batch.loss_mask.dtype == batch.metric_mask.dtype == bool
    slot = np.broadcast_to(np.arange(slots), (BATCH, slots))
    placeholder = (slot >= length) & (slot < end)
    np.testing.assert_array_equal(batch.valid, slot < end)
    np.testing.assert_array_equal(batch.tokens == inputs, placeholder)
    np.testing.assert_array_equal(batch.loss_mask, placeholder)
    np.testing.assert_array_equal(batch.metric_mask, placeholder)
    assert batch.tokens.min() >= 0
    assert batch.tokens.max() <= inputs
    assert not batch.tokens[slot >= end].any()
    assert not batch.targets[~placeholder].any()
    assert 0 <= batch.targets.min() <= batch.targets.max() < classes


def test_description(text):
    task, (inputs, classes, size) = tasks.make(text), SIZES[text]
    assert task.vocab_size == inputs + 1
    assert task.num_classes == classes
    assert task.chance == 1 / classes
    assert [task.output_length(n) for n in LENGTHS] == [size(n) for n in LENGTHS]
    assert [task.num_tokens(n) for n in LENGTHS] == [n + size(n) for n in LENGTHS]
    assert task.held_out() is task


def test_one_program_serves_every_length(text):
    for length in LENGTHS:
        sample(text, length)
    assert len(sampler(text)[1]) == 1


@pytest.mark.parametrize('length', [1, 4, 7])
def test_the_padding_does_not_change_the_example(text, length):
    """The same key gives the same example whatever `max_length`, the length traced or not."""
    task = tasks.make(text)
    tight, wide = jax.jit(lambda key: task.batch(key, BATCH, length, length))(jax.random.key(0)), sample(text, length)
    for name in ('tokens', 'valid', 'targets', 'loss_mask', 'metric_mask'):
        one, two = np.asarray(getattr(tight, name)), getattr(wide, name)
        np.testing.assert_array_equal(two[:, : one.shape[1]], one, err_msg=name)
        assert not two[:, one.shape[1] :].any(), name


def test_batches_hold_the_examples_of_their_keys(text):
    task, keys = tasks.make(text), jax.random.split(jax.random.key(0), BATCH)
    for row in (0, 5):
        one = jax.jit(lambda key: task.example(key, 4, MAX_LENGTH).tokens)(keys[row])
        np.testing.assert_array_equal(sample(text, 4).tokens[row], one)


def test_tasks_and_batches_are_pytrees(text):
    task = tasks.make(text)
    leaves, tree = jax.tree.flatten(task)
    assert not leaves
    again = jax.tree.unflatten(tree, leaves)
    assert type(again) is type(task)
    assert vars(again) == {**vars(task), 'data': ()}
    tokens = jax.jit(lambda task, key: task.batch(key, BATCH, 3, MAX_LENGTH).tokens)(again, jax.random.key(0))
    np.testing.assert_array_equal(tokens, sample(text, 3).tokens)


# --- names and arguments ---------------------------------------------------------------------------------------------


def test_every_oracle_names_a_task():
    assert {text.split('(')[0] for text in ORACLES} <= set(tasks.names())


@pytest.mark.parametrize(
    ('text', 'options', 'message'),
    [
        ('reverse_strin', {}, "unknown task 'reverse_strin' - did you mean 'reverse_string'"),
        ('reverse_string|parity_check', {}, 'tasks do not compose'),
        ('bucket_sort(symbols=1)', {}, 'symbols must be at least 2, not 1'),
        ('bucket_sort', {'symbols': 1}, 'symbols must be at least 2, not 1'),
        ('bucket_sort(symbols=2.5)', {}, 'symbols must be a whole number, not 2.5'),
        ('bucket_sort(symbols=True)', {}, 'symbols must be a whole number, not True'),
        ("odds_first(order='paper')", {}, "order must be 'documented' or 'released', not 'paper'"),
        ('parity_check(3)', {}, 'too many arguments'),
        ('parity_check', {'symbols': 3}, "unknown argument of task 'parity_check': 'symbols'"),
        ('parity_check(causal=True)', {}, "unknown argument of task 'parity_check': 'causal'"),
    ],
)
def test_errors(text, options, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text, **options)
    assert '\n' not in str(error.value)


def test_options_are_arguments_and_the_text_wins():
    assert tasks.make('bucket_sort', symbols=7).num_classes == 7
    assert tasks.make('bucket_sort(symbols=3)', symbols=7).num_classes == 3
    assert tasks.make('reverse_string', causal=True).causal
