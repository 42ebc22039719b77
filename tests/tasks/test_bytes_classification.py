import functools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError


@pytest.fixture
def corpus(write):
    """Two classes of ten files of 1 to 10 bytes; every tenth, the last of each class, is test data."""
    sized = [(name, size) for name in ('neg', 'pos') for size in range(1, 11)]
    files = {f'{name}/part/{size:02}.txt': f'{name}{size:02}ABCDE'[:size].encode() for name, size in sized}
    return write('reviews [1]', {'readme.txt': b'no class'} | files)


def make(directory):
    return tasks.make(f'bytes_classification({str(directory)!r})')


@functools.partial(jax.jit, static_argnums=2)
def draw(task, length, max_length):
    return task.batch(jax.random.key(0), 500, length, max_length)


def sample(task, length, max_length=12):
    return jax.tree.map(np.asarray, draw(task, length, max_length))


def read(task, length):
    """How often each (text, class) was drawn, blanks as dots."""
    batch, found = sample(task, length), {}
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        text = ''.join('.' if symbol == 256 else chr(symbol) for symbol in tokens[:length])
        label = task.answers[targets[length]]
        found[text, label] = found.get((text, label), 0) + 1
    return found


def content(name, size, length):
    return f'{name}{size:02}ABCDE'[:size][:length].ljust(length, '.')


@pytest.mark.parametrize('length', [5, 12])
def test_files_and_their_classes(corpus, length):
    """All files of a split and no others, equally often: their first bytes, then blanks."""
    task = make(corpus)
    assert (task.answers, task.num_classes, task.vocab_size, task.chance) == (('neg', 'pos'), 2, 258, 0.5)
    train = {(content(name, size, length), name) for name in ('neg', 'pos') for size in range(1, 10)}
    found = read(task, length)
    assert {*found} == train
    if length == 12:
        assert max(abs(count / 500 - 1 / 18) for count in found.values()) < 5 * np.sqrt(1 / 18 / 500)
    test = {(content(name, 10, length), name) for name in ('neg', 'pos')}
    assert {*read(task.held_out(), length)} == test
    assert {*read(task, length)} == train


def test_protocol_and_padding(corpus):
    task = make(corpus)
    tight, wide = sample(task, 7, 7), sample(task, 7)
    slot = np.broadcast_to(np.arange(13), wide.tokens.shape)
    np.testing.assert_array_equal(wide.valid, slot <= 7)
    np.testing.assert_array_equal(wide.metric_mask, slot == 7)
    np.testing.assert_array_equal(wide.tokens == 257, slot == 7)
    assert wide.tokens.dtype == wide.targets.dtype == np.int32
    np.testing.assert_array_equal(wide.tokens[:, :8], tight.tokens)
    np.testing.assert_array_equal(wide.targets[:, :8], tight.targets)


def test_the_data_is_named(corpus):
    one, two = make(corpus), make(f'{corpus}/')
    assert one.sha256 == two.sha256
    assert len(one.sha256) == 64
    assert jax.tree.leaves(one)


def test_a_single_class(corpus):
    for path in (corpus / 'neg').rglob('*.txt'):
        path.unlink()
    with pytest.raises(UserError, match='must have at least two sub-folders with files') as error:
        make(corpus)
    assert '\n' not in str(error.value)


def test_no_such_directory(corpus):
    with pytest.raises(UserError, match=re.escape('nowhere/*/**')):
        make('nowhere')
