"""Documents packed in a row: each as if it were alone, under every scheme and core."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import common
from mha import positions, spec
from mha.run.build import build
from mha.tasks import Batch
from mha.training.step import logits_of
from tests.model.encoder.models import VOCAB, call, make

SIZES = [[5, 3, 4], [1, 9, 2]]
"""Sizes of the documents in the two rows, which end with padding."""
LENGTH = 14
SEGMENTS = jnp.asarray([np.repeat(range(4), [*sizes, LENGTH - sum(sizes)]) for sizes in SIZES])
POS = jnp.asarray([[i for size in (*sizes, LENGTH - sum(sizes)) for i in range(size)] for sizes in SIZES])
VALID = jnp.arange(LENGTH)[None] < 12
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH)))
ALONE = [(row, sum(sizes[:i]), size) for row, sizes in enumerate(SIZES) for i, size in enumerate(sizes)]
"""Row, start and size of each document."""
WHOLE_ROW = {'longrope'}
"""Schemes that scale with the number of tokens in the row."""
FORMS = ('alibi(learned=True)', 'rope|t5', "txl(form='channels')", 'yarn', 'ssmax|rope')
SETTINGS = {
    'model.layers': 1,
    'model.dim': 32,
    'model.heads': 2,
    'model.position': 'sincos',
    'model.dropout_rate': 0.0,
    'train.steps': 100,
    'train.batch_size': 16,
    'train.lengths': '8-24:8',
    'train.buckets': 1,
    'optimizer.learning_rate': 1e-2,
    'eval.lengths': '8,32',
    'eval.examples': 32,
    'eval.buckets': 1,
}
QUICK = {'none', 'sincos', 'rope', 't5', 'cope', 'cable'}


def alone(model, **options):
    """Logits of each document alone, from one batch of padded rows."""
    longest = max(size for *_, size in ALONE)
    tokens = np.zeros((len(ALONE), longest), np.int32)
    for line, (row, start, size) in zip(tokens, ALONE, strict=True):
        line[:size] = TOKENS[row, start : start + size]
    valid = np.arange(longest) < np.array([size for *_, size in ALONE])[:, None]
    logits = call(model, tokens, valid=valid, **options)
    return [one[:size] for one, (*_, size) in zip(logits, ALONE, strict=True)]


def check(model):
    packed = call(model, TOKENS, valid=VALID, segments=SEGMENTS, pos=POS)
    for (row, start, size), expected in zip(ALONE, alone(model), strict=True):
        np.testing.assert_allclose(packed[row, start : start + size], expected, atol=2e-5)


def cases():
    for name in (*positions.names(), *FORMS):
        text = positions.example(name) if name in positions.names() else name
        kind = spec.load(positions, text.split('(')[0].split('|')[0], positions.Position, 'position scheme')
        text = f'{text}|sincos' if text == name and kind.remap is not positions.Position.remap else text
        yield pytest.param(text, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize('core', ['dense', 'blockwise'])
@pytest.mark.parametrize('position', [*cases()])
def test_a_packed_row_gives_the_logits_of_its_documents(position, core):
    model = make(position=position, core=core, causal=True, max_len=LENGTH)
    scheme = model.positions[0]
    if scheme.draws or scheme.name in WHOLE_ROW:
        pytest.skip('draws, or scales with the row')
    if core == 'blockwise' and scheme.whole_rows:
        pytest.skip('needs whole rows')
    check(model)


@pytest.mark.parametrize('options', [dict(pattern='window(2)'), dict(norm='pre', kv_heads=1)])
def test_in_both_directions(options):
    check(make(position='rope', **options))


def test_gradients_stay_in_their_document():
    graph, state = nnx.split(make(position='rope', causal=True))

    @jax.jit
    def gradient(state, row, slot):
        def output(table):
            model = nnx.merge(graph, state)
            model.embedding = lambda tokens: table
            return model(TOKENS, valid=VALID, segments=SEGMENTS, pos=POS)[row, slot].sum()

        return jnp.abs(jax.grad(output)(state['embedding']['embedding'][...][TOKENS])).sum(-1) > 0

    for row, start, size in ALONE:
        expected = np.zeros((2, LENGTH), bool)
        expected[row, start : start + size] = True
        np.testing.assert_array_equal(gradient(state, row, start + size - 1), expected)


def test_positions_that_do_not_restart_are_the_slots():
    """Positions that do not restart, which only an absolute scheme tells from those that do."""
    slots = jnp.arange(LENGTH)[None]
    for position, differs in (('rope', False), ('sincos', True)):
        model = make(position=position, causal=True)
        given = dict(valid=VALID, segments=SEGMENTS)
        through = call(model, TOKENS, **given)
        np.testing.assert_allclose(through, call(model, TOKENS, **given, pos=slots), atol=2e-5)
        restarted = call(model, TOKENS, **given, pos=POS)
        np.testing.assert_allclose(through[0, :5], restarted[0, :5], atol=2e-5)
        assert (np.abs(through - restarted)[0, 5:12].max() > 1e-3) == differs


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'settings'),
    [
        ('', {'model.causal': True}),
        pytest.param(
            ', restart_positions=False', {'model.causal': True, 'train.microbatches': 2}, marks=pytest.mark.slow
        ),
        pytest.param(", replaced='bert'", {'train.length_per': 'example', 'train.steps': 300}, marks=pytest.mark.slow),
    ],
)
def test_a_config_with_packed_documents_trains(arguments, settings, tmp_path, monkeypatch):
    """Every second byte of a file is its letter, which one part of it tells and another file does not."""
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    for index in range(20):
        (tmp_path / f'{index:02}.txt').write_text(f'{"abcde"[index % 5]} ' * 4)
    config = common.get_config()
    config.update_from_flattened_dict(SETTINGS | settings)
    config.task = f"lm({str(tmp_path / '*.txt')!r}, documents='packed'{arguments})"
    run = build(config.to_dict())
    state, _ = run.chunk()(run.init(), config.train.steps)
    rows = run.evaluate(run.layout.fetch(state.params)).rows
    assert all(row['loss'] < 1.0 for row in rows), rows


def test_logits_of_a_batch_are_those_of_its_documents():
    """With one row of `valid` for all examples, whose documents differ."""
    model = make(position='rope', causal=True)
    graph, params = nnx.split(model, nnx.Param)
    every = jnp.broadcast_to(VALID, TOKENS.shape)
    batch = Batch(TOKENS, every, TOKENS, every, every, segments=SEGMENTS, pos=POS)
    expected = call(model, TOKENS, valid=VALID, segments=SEGMENTS, pos=POS)
    for one_length in (True, False):
        run = functools.partial(logits_of, graph, train=False, position=jax.random.key(0), one_length=one_length)
        np.testing.assert_allclose(jax.jit(run)(nnx.to_pure_dict(params), batch), expected, atol=2e-5)
