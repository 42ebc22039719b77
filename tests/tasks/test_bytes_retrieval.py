import collections
import functools

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError

GROUPS = {'a': 20, 'b': 20, 'c': 40, 'd': 1}
"""Files of each sub-folder; of every ten in path order the last is for the test, so 2, 2 and 4; d is for training."""


@pytest.fixture
def corpus(write):
    """Files that say where they are from, the first of each sub-folder in four bytes, the others in five."""
    files = {}
    for name, count in GROUPS.items():
        files |= {f'{name}/{i:02}.txt': f'{name}{i:02}{"." * min(i + 1, 2)}'.encode() for i in range(count)}
    return write('papers', files)


def make(directory):
    return tasks.make(f'bytes_retrieval({str(directory)!r})')


@functools.partial(jax.jit, static_argnums=2)
def draw(task, length, max_length):
    return task.batch(jax.random.key(0), 2000, length, max_length)


def sample(task, length, max_length=8):
    return jax.tree.map(np.asarray, draw(task, length, max_length))


def read(task, length):
    """Both documents, blanks as dashes, and the label of each example."""
    batch = sample(task, length)
    for tokens, target in zip(batch.tokens, batch.targets, strict=True):
        one, other = (''.join('-' if x == 256 else chr(x) for x in half[:length]) for half in np.split(tokens, 2))
        yield one, other, target[0]


def shares(found):
    return {name: count / 2000 for name, count in collections.Counter(found).items()}


@pytest.mark.parametrize('split', ['train', 'test'])
def test_related_documents_are_two_of_a_folder(corpus, split):
    task = make(corpus)
    pairs = [*read(task.held_out() if split == 'test' else task, 3)]
    for one, other, related in pairs:
        assert related == (one[0] == other[0])
        assert one != other
        assert all((int(document[1:]) % 10 == 9) == (split == 'test') for document in (one, other))
    seen = {one for one, *_ in pairs}
    assert seen == {other for _, other, _ in pairs}
    assert len(seen) == (8 if split == 'test' else 72)  # all but that of d, which has no other


def test_neither_document_alone_says_anything(corpus):
    """Sub-folders of all sizes are equally frequent, in both places, under either label."""
    pairs = [(one[0], other[0], int(related)) for one, other, related in read(make(corpus), 3)]
    error = 5 * np.sqrt(1 / 6 * 5 / 6 / 2000)
    for found in ([(one, related) for one, _, related in pairs], [(other, related) for _, other, related in pairs]):
        assert {*found} == {(name, label) for name in 'abc' for label in (0, 1)}
        assert max(abs(share - 1 / 6) for share in shares(found).values()) < error
    unrelated = shares((one, other) for one, other, related in pairs if not related)
    assert len(unrelated) == 6
    assert max(abs(share - 1 / 12) for share in unrelated.values()) < error


def test_protocol_and_padding(corpus):
    """Each half has its own padding; short documents end in blanks."""
    task = make(corpus)
    tight, wide = sample(task, 5, 5), sample(task, 5)
    slot = np.broadcast_to(np.arange(16), wide.tokens.shape)
    jax.tree.map(np.testing.assert_array_equal, task.cut(wide, 5), tight)
    np.testing.assert_array_equal(wide.valid, slot % 8 < 5)
    np.testing.assert_array_equal(wide.metric_mask, slot == 0)
    np.testing.assert_array_equal(wide.loss_mask, slot == 0)
    np.testing.assert_array_equal(wide.tokens[wide.valid], tight.tokens.reshape(-1))
    assert not wide.tokens[~wide.valid].any()
    assert tight.valid.all()
    np.testing.assert_array_equal(wide.targets[:, 0], tight.targets[:, 0])
    assert wide.tokens.dtype == wide.targets.dtype == np.int32
    assert (wide.tokens[:, 4] == 256).any()
    assert task.readable(jax.tree.map(lambda leaf: leaf[0], wide)) == task.readable(
        jax.tree.map(lambda leaf: leaf[0], tight)
    )
    assert (task.vocab_size, task.chance, task.num_tokens(5)) == (257, 0.5, 10)


@pytest.mark.parametrize(('gone', 'split'), [(['[bc]/*'], 'train'), (['c/*', 'd/*', '[ab]/1*'], 'test')])
def test_too_few_files(corpus, gone, split):
    """What is left is one sub-folder with more than one file, or ten files in each of two."""
    for path in [path for pattern in gone for path in corpus.glob(pattern)]:
        path.unlink()
    with pytest.raises(UserError, match=f'two sub-folders with two {split} files or more') as error:
        make(corpus).held_out()
    assert '\n' not in str(error.value)
