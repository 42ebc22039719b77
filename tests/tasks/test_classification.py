import functools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError

ROWS = [(f'text number {i:02}'[: 3 + i % 12], 'ab'[i % 2]) for i in range(60)]


@pytest.fixture
def corpus(write):
    """Two labels; texts of 3 to 14 bytes, some of which are equal."""
    train = ''.join(f'{text},{label}\n' for text, label in ROWS)
    test = ''.join(f'held out {i},{"ab"[i % 2]}\n' for i in range(8))
    files = {'train.csv': f'text,label\n{train}', 'test.csv': f'text,label\n{test}'}
    return write('corpus', {name: content.encode() for name, content in files.items()})


def make(corpus, causal=False, **options):
    options = ''.join(f', {key}={value!r}' for key, value in options.items())
    return tasks.make(f'classification({str(corpus)!r}{options})', causal=causal)


@functools.partial(jax.jit, static_argnums=(2, 3))
def draw(task, length, max_length, seed=0):
    return task.batch(jax.random.key(seed), 500, length, max_length)


def sample(task, length, max_length=16, seed=0):
    return jax.tree.map(np.asarray, draw(task, length, max_length, seed))


def read(task, batch):
    """Text and label of each example."""
    rows = zip(batch.tokens, batch.valid, batch.targets, strict=True)
    return [(task.decode(tokens[valid].tolist()), task.classes[targets[0]]) for tokens, valid, targets in rows]


@pytest.mark.parametrize('tokens', ['bytes', 'bpe(270)'])
def test_texts_and_their_labels(corpus, tokens):
    """All texts of the train split and no others, equally often."""
    task = make(corpus, tokens=tokens)
    found = read(task, sample(task, 16))
    assert {*found} == {*ROWS}
    counts = np.array([found.count(row) / ROWS.count(row) for row in {*ROWS}])
    assert abs(counts / 500 - 1 / 60).max() < 5 * np.sqrt(1 / 60 / 500)
    assert (task.num_classes, task.classes, task.chance) == (2, ['a', 'b'], 0.5)
    assert task.inputs == task.vocab_size == len(task.alphabet) == (256 if tokens == 'bytes' else 270)
    assert (task.metric, task.level, task.ragged) == ('accuracy', 'language', True)
    assert task.facts['data_train_examples'] == 60


def test_protocol(corpus):
    """Tokens up to the end of the text or the length, and one answer, at the first."""
    task = make(corpus)
    batch = sample(task, 5)
    slot = np.broadcast_to(np.arange(16), batch.tokens.shape)
    sizes = batch.valid.sum(1)
    assert {*sizes} == {3, 4, 5}
    np.testing.assert_array_equal(batch.valid, slot < sizes[:, None])
    for mask in (batch.loss_mask, batch.metric_mask):
        np.testing.assert_array_equal(mask, slot == 0)
    assert not batch.tokens[~batch.valid].any()
    assert not batch.targets[slot > 0].any()
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    assert {text for text, _ in read(task, batch)} == {text[:5] for text, _ in ROWS}
    assert [task.num_tokens(length) for length in (1, 16)] == [1, 16]


def test_padding_changes_nothing(corpus):
    task = make(corpus)
    tight, wide = sample(task, 7, 7), sample(task, 7)
    for name in ('tokens', 'valid', 'targets'):
        np.testing.assert_array_equal(getattr(wide, name)[:, :7], getattr(tight, name), err_msg=name)
        assert not getattr(wide, name)[:, 7:].any()
        np.testing.assert_array_equal(getattr(task.cut(wide, 7), name), getattr(tight, name))


def test_lengths_of_their_own(corpus):
    task = make(corpus)
    lengths = np.arange(500) % 16 + 1
    for each in (task, task.held_out()):
        one_by_one, together = sample(each, 16), sample(each, lengths)
        cut = one_by_one.valid & (np.arange(16) < lengths[:, None])
        np.testing.assert_array_equal(together.valid, cut)
        np.testing.assert_array_equal(together.tokens, one_by_one.tokens * cut)


def test_held_out_texts_are_read_once(corpus):
    """Each text of the test split once before any comes again, in an order that depends on the key, not the length."""
    held_out = make(corpus).held_out()
    found = read(held_out, sample(held_out, 16))
    texts = {(f'held out {i}', 'ab'[i % 2]) for i in range(8)}
    assert {*found[:8]} == {*found[8:16]} == texts
    assert found[:8] == found[8:16] != sorted(texts)
    assert read(held_out, sample(held_out, 16, seed=1)) != found
    assert read(held_out, sample(held_out, 9)) == [(text[:9], label) for text, label in found]
    assert read(held_out.held_out(), sample(held_out.held_out(), 16)) == found


def test_what_is_printed(corpus):
    task = make(corpus, tokens='bpe(270)')
    example = jax.tree.map(lambda x: x[0], sample(task.held_out(), 16))
    text, label = task.readable(example)
    assert re.fullmatch('held out [0-7]', text)
    assert label in 'ab'
    assert task.decode(task.subwords.encode('Grüße'.encode())) == 'Grüße'


def test_mistakes(corpus, write):
    with pytest.raises(
        UserError, match=r"test.csv has no column 'body'; it has text, label - name two of them by text="
    ):
        make(corpus, text='body')
    one = write('one', {'a.csv': b'text,label\n' + b'x,a\n' * 9})
    with pytest.raises(UserError, match='classification needs at least two labels, not 1'):
        make(one)
    with pytest.raises(UserError, match='the data has no test example'):
        make(write('two', {'a.csv': b'text,label\na,x\nc,y\n'})).held_out()
    bad = write('bad', {'a.csv': b'text,label\na,x\nc,y\nc\n'})
    make(bad)
    with pytest.raises(UserError, match=r'1 malformed rows: a.csv:4: 1 columns, not 2'):
        make(bad, strict=True)


def test_equal_tasks_share_a_program(corpus):
    one, two = make(corpus, tokens='bpe(270)'), make(corpus, tokens='bpe(270)')
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert hash(jax.tree.structure(one)) == hash(jax.tree.structure(two))
