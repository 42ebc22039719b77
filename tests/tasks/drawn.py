"""Batches of generated tasks, and the properties that all of them have."""

import functools

import jax
import numpy as np

from mha import tasks

LENGTHS, MAX_LENGTH, BATCH = (1, 2, 3, 4, 7, 20), 20, 64


@functools.cache
def make(text, causal):
    return tasks.make(text, causal=causal)


@functools.cache
def sampler(text, causal, batch, max_length):
    """One compiled program per task, for every length."""
    return jax.jit(lambda key, length: make(text, causal).batch(key, batch, length, max_length))


@functools.cache
def sample(text, causal, length, seed=0, batch=BATCH, max_length=MAX_LENGTH):
    found = sampler(text, causal, batch, max_length)(jax.random.key(seed), length)
    return jax.tree.map(np.asarray, found)


def words(task, batch, length):
    """Input symbols, answers and the slots where those stand, as lists."""
    for tokens, targets, counts in zip(batch.tokens, batch.targets, batch.metric_mask, strict=True):
        word = tokens[: task.input_length(length)].tolist()
        yield word, targets[counts].tolist(), np.flatnonzero(counts).tolist()


def read(text, length, causal=False, seeds=1, **more):
    """`words` of `seeds` batches."""
    return [
        word
        for seed in range(seeds)
        for word in words(make(text, causal), sample(text, causal, length, seed, **more), length)
    ]


def close(count, number, share):
    """Whether `count` of `number` draws are within five standard errors of their expected `share`."""
    return abs(count / number - share) <= 5 * np.sqrt(share * (1 - share) / number)


def check_protocol(text, causal, length, max_length=MAX_LENGTH):
    """Shapes, types, padding and placeholders of a batch; answers of a causal model stand within its input, and those
    of tasks with placeholders at these."""
    task, batch = make(text, causal), sample(text, causal, length, max_length=max_length)
    slots, start, end = task.num_tokens(max_length), task.input_length(length), task.num_tokens(length)
    for leaf in (batch.tokens, batch.valid, batch.targets, batch.loss_mask, batch.metric_mask):
        assert leaf.shape == (BATCH, slots)
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    slot = np.broadcast_to(np.arange(slots), batch.tokens.shape)
    np.testing.assert_array_equal(batch.valid, slot < end)
    assert not batch.tokens[~batch.valid].any()
    assert not batch.targets[~batch.loss_mask].any()
    assert (batch.metric_mask <= batch.loss_mask).all()
    assert (batch.loss_mask <= batch.valid).all()
    assert batch.metric_mask.any(-1).all()
    assert 0 <= batch.targets.min() <= batch.targets.max() < task.num_classes
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < task.vocab_size
    if start < end:
        placeholder = (slot >= start) & (slot < end)
        np.testing.assert_array_equal(batch.tokens == task.inputs, placeholder)
        np.testing.assert_array_equal(batch.metric_mask, placeholder)
    else:
        assert batch.tokens.max() < task.inputs
    shown, answer = task.readable(jax.tree.map(lambda leaf: leaf[0], batch))
    assert len(shown.split() if task.gap else shown) == start
    assert len(answer.split() if max(map(len, task.classes)) > 1 else answer) == batch.metric_mask[0].sum()
    assert len({*task.alphabet}) == task.inputs


def check_padding(text, causal, length, max_length=MAX_LENGTH):
    """The padding does not change an example."""
    keys = jax.random.split(jax.random.key(0), BATCH)
    narrow = jax.jit(lambda keys: make(text, causal).examples(keys, length, length))(keys)
    wide = sample(text, causal, length, max_length=max_length)
    for name in ('tokens', 'valid', 'targets', 'loss_mask', 'metric_mask'):
        one, two = np.asarray(getattr(narrow, name)), getattr(wide, name)
        np.testing.assert_array_equal(two[:, : one.shape[1]], one, err_msg=name)
        assert not two[:, one.shape[1] :].any(), name
