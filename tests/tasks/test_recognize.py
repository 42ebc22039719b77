"""Recognition of answers: true ones are those of the task, others have one other symbol."""

import functools

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from tests.tasks.test_sequence_draws import uniform

MAX_LENGTH, BATCH = 12, 512


TRUE = {
    'reverse_string': lambda question: question[::-1],
    'bucket_sort': lambda question: ''.join(sorted(question)),
    'binary_addition': lambda question: f'{sum(int(n[::-1], 2) for n in question.split("+")):b}'[::-1] + '.',
    'needle(digits=2, values=2)': lambda question: ''.join(part[:2] for part in question.split('#')[1:]),
}


@functools.cache
def make(text, causal=False):
    return tasks.make(f'recognize({text!r})', causal=causal)


@functools.cache
def sample(text, length, max_length=MAX_LENGTH):
    keys = jax.random.split(jax.random.key(0), BATCH)
    return jax.device_get(jax.jit(lambda keys: make(text).examples(keys, length, max_length))(keys))


def read(text, length):
    """Questions, answers and labels."""
    task, batch = make(text), sample(text, length)
    for i in range(BATCH):
        shown, label = task.readable(jax.tree.map(lambda leaf, i=i: leaf[i], batch))
        *question, answer = shown.replace(' ', '').split(task.alphabet[-1])
        yield task.alphabet[-1].join(question), answer, label


@pytest.mark.parametrize('text', TRUE)
def test_answers(text):
    """Labels are balanced, and wrong answers differ from the true one in one symbol, anywhere."""
    labels, places = [], []
    for length in (6, MAX_LENGTH):
        for question, answer, label in read(text, length):
            true = TRUE[text](question)
            wrong = [i for i, (a, b) in enumerate(zip(answer, true, strict=False)) if a != b]
            assert len(wrong) == (label == '0')
            assert not answer[len(true) :].strip('0')
            labels.append(label)
            places += wrong if length == MAX_LENGTH and '.' not in true else []
            assert len(answer) == make(text).task.output_length(length)
    uniform(labels, '01')
    if places:
        uniform(places, range(make(text).task.output_length(MAX_LENGTH)))


def test_other_symbols_are_uniform():
    pairs = [
        (int(a) - int(b)) % 5
        for question, answer, label in read('bucket_sort', MAX_LENGTH)
        for a, b in zip(answer, TRUE['bucket_sort'](question), strict=True)
        if a != b
    ]
    uniform(pairs, range(1, 5))


@pytest.mark.parametrize('text', TRUE)
def test_protocol(text):
    task = make(text)
    inner = tasks.make(text)
    for length in (1, 6):
        batch, end = sample(text, length), inner.num_tokens(length) + 2
        slot = np.arange(task.num_tokens(MAX_LENGTH))
        assert task.num_tokens(length) == end
        assert batch.tokens.shape == (BATCH, slot.size)
        assert (batch.valid == (slot < end)).all()
        assert (batch.metric_mask == (slot == end - 1)).all()
        assert (batch.tokens[:, end - 1] == task.inputs).all()
        assert (batch.tokens[:, inner.input_length(length)] == task.inputs - 1).all()
    for leaf, other in zip(jax.tree.leaves(sample(text, 6, 6)), jax.tree.leaves(batch), strict=True):
        np.testing.assert_array_equal(leaf, other[:, : leaf.shape[1]])


def test_description():
    task = make('stack_manipulation')
    assert task.level == 'context-free'
    assert (task.num_classes, task.chance, task.alphabet[-1]) == (2, 0.5, '#')
    assert make('needle').alphabet[-1] == '|'
    assert make('reverse_string').vocab_size == 4
    assert make('local_count').num_tokens(7) == 7 + 1 + 7 + 1  # whose own answers stand at the symbols
    assert make('reverse_string', causal=True).causal


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('copying', 'recognize: copying is for causal models only - choose a task for both directions'),
        ('regular', 'recognize: regular is for causal models only'),
        ('lm', 'recognize: lm reads files - choose a task that is generated'),
        ('bucket_sort(symbols=1)', 'symbols must be at least 2, not 1'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)
