"""The input protocol that generated tasks share, their names and arguments."""

import collections
import functools

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError

# Lengths of interest: the shortest, an even and an odd one, and the longest that the compiled program serves.
LENGTHS, MAX_LENGTH, BATCH = (1, 2, 3, 4, 7, 20), 20, 16


def one(length):
    return 1


def same(length):
    return length


def longer(length):
    return length + 1


# Input symbols, classes, level, and the number of answer symbols.
TASKS = {
    'even_pairs': (2, 2, 'regular', one),
    'modular_arithmetic': (9, 5, 'regular', one),
    "modular_arithmetic(even='add')": (9, 5, 'regular', one),
    'parity_check': (2, 2, 'regular', one),
    'cycle_navigation': (3, 5, 'regular', one),
    'stack_manipulation': (5, 3, 'context-free', longer),
    'stack_manipulation(mask_loss=True)': (5, 3, 'context-free', longer),
    'reverse_string': (2, 2, 'context-free', same),
    'modular_arithmetic_brackets': (11, 5, 'context-free', one),
    'solve_equation': (11, 5, 'context-free', one),
    'duplicate_string': (2, 2, 'context-sensitive', lambda length: 2 * length),
    'missing_duplicate_string': (4, 2, 'context-sensitive', one),
    'odds_first': (2, 2, 'context-sensitive', same),
    'binary_addition': (3, 3, 'context-sensitive', longer),
    'binary_multiplication': (3, 3, 'context-sensitive', same),
    'compute_sqrt': (2, 2, 'context-sensitive', lambda length: -(-length // 2)),
    'bucket_sort': (5, 5, 'context-sensitive', same),
}
TERMINATED = {'stack_manipulation', 'binary_addition', 'binary_multiplication'}
TERMINATOR = 2
TRACES = collections.Counter()


def read_length(text, length):
    """Expressions without brackets have odd lengths."""
    if text.startswith('modular_arithmetic') and 'brackets' not in text and length % 2 == 0:
        return length + (1 if 'add' in text else -1)
    return length


@functools.cache
def sampler(text):
    """One compiled program per task, for every length."""
    task = tasks.make(text)

    def run(key, length):
        TRACES[text] += 1
        return task.batch(key, BATCH, length, MAX_LENGTH)

    return jax.jit(run)


@functools.partial(jax.jit, static_argnames='max_length')
def examples(task, keys, length, max_length):
    return task.examples(keys, length, max_length)


@functools.cache
def sample(text, length, seed=0):
    return jax.device_get(sampler(text)(jax.random.key(seed), length))


@pytest.fixture(params=TASKS)
def text(request):
    return request.param


# --- the input protocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', LENGTHS)
def test_protocol(text, length):
    """The input, one placeholder per answer symbol right after it, then padding; answers count at placeholders only,
    and in accuracy up to the terminator."""
    inputs, classes, _, size = TASKS[text]
    batch, start = sample(text, length), read_length(text, length)
    slots, end = read_length(text, MAX_LENGTH) + size(MAX_LENGTH), start + size(length)
    for leaf in (batch.tokens, batch.valid, batch.targets, batch.loss_mask, batch.metric_mask):
        assert leaf.shape == (BATCH, slots)
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    assert batch.valid.dtype == batch.loss_mask.dtype == batch.metric_mask.dtype == bool
    slot = np.broadcast_to(np.arange(slots), (BATCH, slots))
    placeholder = counts = (slot >= start) & (slot < end)
    if text.split('(')[0] in TERMINATED:
        ends = [row[start:].index(TERMINATOR) + start for row in batch.targets.tolist()]
        counts = placeholder & (slot <= np.array(ends)[:, None])
    np.testing.assert_array_equal(batch.valid, slot < end)
    np.testing.assert_array_equal(batch.tokens == inputs, placeholder)
    np.testing.assert_array_equal(batch.loss_mask, counts if 'mask_loss' in text else placeholder)
    np.testing.assert_array_equal(batch.metric_mask, counts)
    assert batch.tokens.min() >= 0
    assert batch.tokens.max() <= inputs
    assert not batch.tokens[slot >= end].any()
    assert not batch.targets[~placeholder].any()
    assert 0 <= batch.targets.min() <= batch.targets.max() < classes


def test_what_ends_early(text):
    """Masks of tasks that end early differ from those of the others, or the table above would not tell."""
    batch, early = sample(text, 20), text.split('(')[0] in TERMINATED
    assert tasks.make(text).terminator == (TERMINATOR if early else None)
    assert (batch.metric_mask != batch.loss_mask).any() == (early and 'mask_loss' not in text)


@pytest.mark.parametrize('text', sorted(TERMINATED))
def test_all_that_end_early_may_mask_the_loss(text):
    assert [tasks.make(f'{text}(mask_loss={mask})').mask_loss for mask in (False, True)] == [False, True]


def test_description(text):
    task, (inputs, classes, level, size) = tasks.make(text), TASKS[text]
    assert task.vocab_size == inputs + 1
    assert task.num_classes == classes
    assert task.chance == 1 / classes
    assert task.level == level
    assert task.metric == 'accuracy'
    assert len(task.alphabet) >= inputs
    assert len(task.answers or task.alphabet) >= classes
    assert [task.output_length(n) for n in LENGTHS] == [size(n) for n in LENGTHS]
    assert [task.num_tokens(n) for n in LENGTHS] == [read_length(text, n) + size(n) for n in LENGTHS]
    assert task.held_out() is task


def test_one_program_serves_every_length(text):
    for length in LENGTHS:
        sample(text, length)
    assert TRACES[text] == 1


def test_examples_of_a_batch_differ(text):
    assert len(np.unique(sample(text, 20).tokens, axis=0)) > BATCH // 2
    assert not np.array_equal(sample(text, 20).tokens, sample(text, 20, seed=1).tokens)


@pytest.mark.parametrize('length', [1, 2, 4, 7])
def test_neither_padding_nor_batch_change_an_example(text, length):
    """The same key gives the same example whatever `max_length` and the other examples. The task goes into jit as a
    pytree."""
    leaves, tree = jax.tree.flatten(tasks.make(text))
    assert not leaves
    task, keys = jax.tree.unflatten(tree, leaves), jax.random.split(jax.random.key(0), BATCH)
    tight, wide = jax.device_get(examples(task, keys[3:7], length, 7)), sample(text, length)
    for name in ('tokens', 'valid', 'targets', 'loss_mask', 'metric_mask'):
        one, two = getattr(tight, name), getattr(wide, name)
        np.testing.assert_array_equal(two[3:7, : one.shape[1]], one, err_msg=name)
        assert not two[:, one.shape[1] :].any(), name
        np.testing.assert_array_equal(getattr(task.cut(wide, 7), name)[3:7], one, err_msg=name)


def test_tasks_are_pytrees(text):
    task = tasks.make(text)
    again = jax.tree.unflatten(jax.tree.structure(task), jax.tree.leaves(task))
    assert type(again) is type(task)
    assert vars(again) == {**vars(task), 'data': ()}


# --- names and arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('reverse_strin', "unknown task 'reverse_strin' - did you mean 'reverse_string'"),
        ('reverse_string|parity_check', 'tasks do not compose'),
        ('bucket_sort(symbols=1)', 'symbols must be at least 2, not 1'),
        ('bucket_sort(symbols=2.5)', 'symbols must be a whole number, not 2.5'),
        ('bucket_sort(symbols=True)', 'symbols must be a whole number, not True'),
        ("odds_first(order='paper')", "order must be 'documented' or 'released', not 'paper'"),
        ("modular_arithmetic(even='skip')", "even must be 'drop' or 'add', not 'skip'"),
        ('binary_addition(mask_loss=1)', 'mask_loss must be True or False, not 1'),
        ('parity_check(3)', 'too many arguments'),
        ('parity_check(symbols=3)', "unknown argument of task 'parity_check': 'symbols'"),
        ('parity_check(causal=True)', "unknown argument of task 'parity_check': 'causal'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text)
    assert '\n' not in str(error.value)


def test_arguments_are_in_the_spec():
    assert tasks.make('bucket_sort(symbols=7)').num_classes == 7
    assert tasks.make('reverse_string', causal=True).causal
