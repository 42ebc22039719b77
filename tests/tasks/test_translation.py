"""Translation: both layouts against the text of the pairs; which pairs are drawn; the models that read it."""

import collections
import functools

import jax
import numpy as np
import pytest

from configs import common
from mha import tasks
from mha.run import translation
from mha.run.build import build
from mha.spec import UserError

PAIRS = [(f'{"ab" * (i % 4)}{i}', f'{i}!{"ü" * (i % 3)}') for i in range(100)]
END, BEGIN = 256, 257


@pytest.fixture
def make(write):
    text = ''.join(f'{source}\t{target}\n' for source, target in PAIRS)
    file = write('texts', {'pairs.tsv': text.encode()}) / 'pairs.tsv'

    def call(causal=False, tokens='bytes'):
        return tasks.make(f'translation({str(file)!r}, tokens={tokens!r})', causal=causal)

    return call


def test_data_without_a_test_pair(write):
    file = write('few', {'pairs.tsv': b'a\tb\nc\td\n'}) / 'pairs.tsv'
    task = tasks.make(f'translation({str(file)!r})')
    with pytest.raises(UserError, match='the data has no test example'):
        task.held_out()


@functools.partial(jax.jit, static_argnums=(1, 3))
def draw(task, number, length, max_length):
    return task.batch(jax.random.key(0), number, length, max_length)


def sample(task, length, max_length=12, number=200):
    batch = jax.tree.map(np.asarray, draw(task, number, length, max_length))
    return batch, [task.readable(jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(number)]


def size(pair):
    return max(len(text.encode()) for text in pair)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('tokens', ['bytes', 'bpe(270)'])
def test_layout(make, causal, tokens):
    task = make(causal, tokens)
    batch, pairs = sample(task, 5)
    begin, end = task.vocab_size - 1, task.vocab_size - 2
    for row, (source, target) in enumerate(pairs):
        assert (source, target) in PAIRS
        x, y = (task.subwords.encode(text.encode()) for text in (source, target))
        if causal:
            read, valid = [*x, begin, *y], np.arange(25) < 11
            answers = [(len(x) + i, token) for i, token in enumerate([*y, end])]
            expected = read + [0] * (25 - len(read))
            np.testing.assert_array_equal(batch.prefix[row], np.arange(25) <= len(x))
        else:
            expected = [*x, end, *[0] * (12 - len(x)), begin, *y, *[0] * (12 - len(y))]
            valid = np.arange(26) % 13 <= np.repeat([len(x), len(y)], 13)
            answers = [(13 + i, token) for i, token in enumerate([*y, end])]
            assert batch.prefix is None
        np.testing.assert_array_equal(batch.tokens[row], expected)
        np.testing.assert_array_equal(batch.valid[row], valid)
        assert [(i, batch.targets[row, i]) for i in np.flatnonzero(batch.metric_mask[row])] == answers
        np.testing.assert_array_equal(batch.loss_mask[row], batch.metric_mask[row])


def test_pairs_of_at_most_the_length_are_drawn_uniformly(make):
    task = make()
    train = task.sentence_pairs('train')
    for length in (4, 12):
        fitting = {pair for pair in train if size(pair) <= length}
        count = collections.Counter(sample(task, length, number=2000)[1])
        assert set(count) <= fitting
        assert len(count) > 0.9 * len(fitting)
    assert task.sentence_pairs('test', 4) == [pair for pair in task.sentence_pairs('test') if size(pair) <= 4]
    with pytest.raises(UserError, match='length 1 has no pair: the shortest one has a sentence of 2 tokens'):
        task.num_tokens(1)


def test_an_evaluation_takes_each_test_pair_once(make):
    task = make().held_out()
    test = task.sentence_pairs('test')
    assert not {*test} & {*task.sentence_pairs('train')}
    assert sorted(sample(task, 12, number=len(test))[1]) == sorted(test)
    count = collections.Counter(sample(task, 12, number=2 * len(test) + 1)[1])
    assert sorted(count.values()) == [2] * (len(test) - 1) + [3]


def test_cut_examples_are_those_of_a_shorter_batch(make):
    for causal in (False, True):
        task = make(causal)
        cut = task.cut(sample(task, 5)[0], 8)
        jax.tree.map(np.testing.assert_array_equal, cut, sample(task, 5, 8)[0])


def test_texts(make):
    task = make()
    assert task.encode('aü') == [97, 195, 188, END]
    assert make(causal=True).encode('a') == [97, BEGIN]
    assert task.decode([195, 188, END]) == 'ü'
    assert task.stop == (END,)
    assert task.begin == BEGIN
    assert task.classes == task.vocabulary[:-1]


def config(task, **model):
    made = common.get_config()
    made.task = task
    made.model.update({'layers': 1, 'dim': 16, 'heads': 2, 'position': 'rope'} | model)
    made.train.lengths, made.eval.lengths = '6', '6,12'
    return made.to_dict()


def test_models(make, tmp_path):
    text = f'translation({str(tmp_path / "texts" / "pairs.tsv")!r})'
    make()
    build(config(text, decoder_layers=1))
    build(config(text, causal=True))
    build(config(text, causal=True, prefix_lm=True, position='t5'))
    for model, words in (
        ({}, 'has a source and a target - set model.decoder_layers, or model.causal=True'),
        (dict(decoder_layers=1, causal=True), 'model.causal is for models without a decoder'),
        (dict(causal=True, cross_position='rope'), "model.cross_position='rope' is for a decoder"),
        (dict(causal=True, decoder_position='rope'), "model.decoder_position='rope' is for a decoder"),
        (dict(decoder_layers=-1), 'model.decoder_layers must be at least 0, not -1'),
        (dict(decoder_layers=1, cross_position='sincos'), "model.cross_position: .*'sincos' is for a single sequence"),
        (dict(decoder_layers=1, decoder_position='ropee'), "model.decoder_position: .*did you mean 'rope'"),
    ):
        with pytest.raises(UserError, match=words):
            build(config(text, **model))
    with pytest.raises(UserError, match="task 'parity_check' has no source and target for a decoder"):
        build(config('parity_check', decoder_layers=1))
    with pytest.raises(UserError, match=r'model\.prefix_lm needs a task with a question'):
        build(config('text', causal=True, prefix_lm=True))


def test_baselines():
    train = [('open the file', 'Datei öffnen'), ('close the window', 'Fenster schließen'), ('x', 'y')]
    found = translation.baselines([('open the files', ''), ('closed windows', '')], train)
    assert found['most similar source'] == ['Datei öffnen', 'Fenster schließen']
    assert found['source itself'] == ['open the files', 'closed windows']
    perfect = translation.Score.of(['ein Satz mit vier Wörtern'], ['ein Satz mit vier Wörtern'])
    assert (perfect.bleu, perfect.chrf) == pytest.approx((100, 100))
    assert 'tok:13a' in perfect.signatures[0]
