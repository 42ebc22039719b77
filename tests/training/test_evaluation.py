import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import tasks
from mha.machine import memory, parallel
from mha.model.attention import in_tiles
from mha.model.encoder import Encoder
from mha.spec import UserError
from mha.training import evaluation


class PerfectParity(nnx.Module):
    """Answers the parity task; wrong for the first example of every batch if `stumble`."""

    def __init__(self, stumble=False):
        self.stumble = stumble

    def __call__(self, tokens, *, valid, train, rngs, position_key):
        parity = jnp.where(valid & (tokens < 2), tokens, 0).sum(-1) % 2
        parity = parity.at[0].set(1 - parity[0]) if self.stumble else parity
        return 20 * jnp.broadcast_to(jax.nn.one_hot(parity, 2)[:, None], (*tokens.shape, 2))


def rows_of(*arguments, **options):
    return measured(*arguments, **options).rows


def measured(model, *arguments, **options):
    return make(model, *arguments, **options)(nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def make(model, task='parity_check', lengths=(1, 3, 8), **options):
    graphdef, params = nnx.split(model, nnx.Param)
    settings = {'examples': 32, 'batch_size': 16, 'programs': 2, 'seed': 0, **options}
    settings = {'quadratic': lambda tokens: True, **settings}
    task = tasks.make(task) if isinstance(task, str) else task
    return evaluation.Evaluator(graphdef, nnx.to_pure_dict(params), task, lengths=lengths, **settings)


@functools.cache
def encoder(position='none', task='bucket_sort', max_len=64):
    task = tasks.make(task)
    sizes = dict(vocab_size=task.vocab_size, num_classes=task.num_classes, max_len=max_len)
    return Encoder(**sizes, layers=1, dim=16, heads=2, position=position, rngs=nnx.Rngs(0))


def test_perfect_model_scores_one():
    for row in rows_of(PerfectParity()):
        assert (row['accuracy'], row['exact_match'], row['examples']) == (1, 1, 32)
        assert row['loss'] < 1e-6
        assert 0.5 <= row['baseline'] < 1 or row['length'] == 1


def test_one_mistake_per_batch_is_counted():
    for row in rows_of(PerfectParity(stumble=True)):
        assert row['accuracy'] == row['exact_match'] == 1 - 2 / 32


RANDOM = 'randomize(max_position=64)|rope'


@functools.cache
def sorting(position):
    """Rows of an evaluation with the default settings: a function that repeats it with the same programs."""
    model = encoder(position)
    evaluator = make(model, 'bucket_sort')
    return lambda: evaluator(nnx.to_pure_dict(nnx.state(model, nnx.Param))).rows


@pytest.mark.parametrize('position', ['rope', pytest.param('learned', marks=pytest.mark.slow)])
def test_padding_and_batching_change_nothing(position):
    tight = sorting(position)()
    padded = rows_of(encoder(position), 'bucket_sort', programs=1, batch_size=8)
    for one, other in zip(tight, padded, strict=True):
        assert one['accuracy'] == pytest.approx(other['accuracy'], abs=0.02)
        assert one['loss'] == pytest.approx(other['loss'], abs=1e-4)
        assert one['baseline'] == other['baseline']


def test_a_dispatch_per_batch_changes_nothing(monkeypatch):
    """Long sequences are measured a few per dispatch, so that progress is seen."""
    together = sorting(RANDOM)()
    monkeypatch.setattr(evaluation, 'PAIRS_PER_DISPATCH', 1)
    for one, other in zip(together, rows_of(encoder(RANDOM), 'bucket_sort'), strict=True):
        assert other == pytest.approx(one, rel=1e-6)


def test_compiles_per_bucket_not_per_length(monkeypatch):
    """And what draws examples once for all."""
    model, compiled, compile_ = encoder(), [], evaluation._compiled

    def noted(function, *given):
        compiled.append(function.func)
        return compile_(function, *given)

    monkeypatch.setattr(evaluation, '_compiled', noted)
    evaluator = make(model, 'reverse_string', lengths=tuple(range(1, 20)), programs=2)
    for _ in range(2):  # members
        evaluator(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert compiled == [evaluation._draw, evaluation._measure, evaluation._measure]


def test_twice_is_the_same_and_dropout_is_off():
    assert sorting(RANDOM)() == sorting(RANDOM)()


def test_all_schemes_meet_the_same_examples():
    rows = [sorting(position)() for position in ('rope', RANDOM)]
    assert [row['baseline'] for row in rows[0]] == [row['baseline'] for row in rows[1]]


def test_baseline_of_bucket_sort():
    """The most frequent class per output position, by an independent count over plain samples."""
    rows = rows_of(PerfectSort(), 'bucket_sort', lengths=(10, 40), examples=512)
    rng = np.random.default_rng(0)
    for row in rows:
        answers = np.sort(rng.integers(0, 5, (4096, row['length'])), axis=1)
        expected = np.mean([np.bincount(column).max() / 4096 for column in answers.T])
        assert row['baseline'] == pytest.approx(expected, abs=0.02)


class PerfectSort(nnx.Module):
    def __call__(self, tokens, *, valid, train, rngs, position_key):
        return jnp.zeros((*tokens.shape, 5))


class Counting(tasks.Task):
    """Answers of all lengths: the symbol x is answered 0, 1, .., x, where the last ends it."""

    inputs = num_classes = 4

    def output_length(self, length):
        return 4

    def example(self, key, length, max_length):
        batch = super().example(key, length, max_length)
        slot = jnp.arange(batch.tokens.size) - length
        counts = (slot >= 0) & (slot <= batch.tokens[0])
        return dataclasses.replace(batch, metric_mask=counts)

    def sample(self, key, length, max_length):
        return jax.random.randint(key, (max_length,), 0, 4), jnp.arange(4)


class Second(nnx.Module):
    """Answers 1 everywhere: the second symbol of `Counting`."""

    def __call__(self, tokens, *, valid, train, rngs, position_key):
        return jnp.broadcast_to(jax.nn.one_hot(1, 4), (*tokens.shape, 4))


def test_accuracy_per_position_of_answers_that_end_early():
    results = measured(Second(), Counting(), lengths=(1, 3), examples=64)
    positions = results.positions
    for row in results.rows:
        found = {at['position']: at for at in positions if at['length'] == row['length']}
        assert list(found) == [1, 2, 3, 4]
        counts = [at['count'] for at in found.values()]
        assert counts[0] == 64
        assert 64 > counts[1] > counts[2] > counts[3] > 0
        assert [at['accuracy'] for at in found.values()] == [0, 1, 0, 0]
        assert row['accuracy'] == counts[1] / sum(counts)
        for at in found.values():
            assert at['low'] <= at['accuracy'] <= at['high']


def test_positions_sum_to_the_accuracy():
    results = measured(Second(), 'odds_first', lengths=(3, 8))
    positions = results.positions
    for row in results.rows:
        here = [at for at in positions if at['length'] == row['length']]
        assert [at['position'] for at in here] == list(range(1, row['length'] + 1))
        assert all(at['count'] == row['examples'] for at in here)
        assert sum(at['accuracy'] for at in here) / row['length'] == pytest.approx(row['accuracy'], abs=1e-12)
        assert len({at['accuracy'] for at in here}) > 1


def test_the_bar_moves_within_a_long_example(monkeypatch):
    """Row of tiles by row of tiles, and to the end exactly, however many layers there are."""
    moves = []

    class Bar(parallel.Progress):
        def update(self, n=1):
            moves.append(n)
            return super().update(n)

    monkeypatch.setattr(parallel, 'Progress', Bar)
    monkeypatch.setattr(evaluation, 'PAIRS_PER_DISPATCH', 1)
    options = dict(lengths=(400,), examples=1, quadratic=lambda tokens: False)
    expected = rows_of(encoder('rope', max_len=800), 'bucket_sort', **options, layers=1)
    assert sum(moves) == pytest.approx(800)
    assert len([move for move in moves if move > 0]) >= 2
    assert max(moves) < 800
    monkeypatch.setattr(evaluation, 'PAIRS_PER_DISPATCH', 2**29)
    assert rows_of(encoder('rope', max_len=800), 'bucket_sort', **options) == expected


DRAWING = (
    'randomize(max_position=200)|rope',
    'randomize_offsets(max_position=200)|alibi',
    'rfs(max_position=200)|sincos',
)


@pytest.mark.parametrize('position', DRAWING)
def test_random_positions_belong_to_the_example_and_the_run(position):
    """Whatever the batch, the other lengths and the devices; another run draws others."""
    model = encoder(position)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    run = {'task': 'bucket_sort', 'lengths': (4, 9), 'examples': 8, 'programs': 1}
    evaluator = make(model, **run)
    expected = evaluator(params).rows
    layout = parallel.Layout(parallel.make_mesh())
    for other in ({'batch_size': 2, 'lengths': (4, 9, 30)}, {'batch_size': 8, 'layout': layout}):
        rows = make(model, **{**run, **other})(params).rows[:2]
        for one, row in zip(rows, expected, strict=True):
            assert one == pytest.approx(row, abs=1e-6)
    assert evaluator(params, run_seed=1).rows[1]['loss'] != pytest.approx(expected[1]['loss'], abs=1e-5)


def test_intervals_over_examples_hold_what_they_say():
    """Of 200 evaluations of a guess that is right where two random positions are far apart, 95 % hold the true rate."""

    class Guess(nnx.Module):
        def __call__(self, tokens, *, valid, train, rngs, position_key):
            far = jax.vmap(lambda key: jax.random.uniform(key))(position_key) < 0.7
            parity = jnp.where(valid & (tokens < 2), tokens, 0).sum(-1) % 2
            answer = jnp.where(far, parity, 1 - parity)
            return jnp.broadcast_to(jax.nn.one_hot(answer, 2)[:, None], (*tokens.shape, 2))

    evaluator = make(Guess(), lengths=(3,), examples=64, batch_size=32)
    held = 0
    for run_seed in range(200):
        results = evaluator({}, run_seed=run_seed)
        (row,), (position,) = results.rows, results.positions
        assert row['exact_match'] == pytest.approx(position['accuracy'])
        held += position['low'] <= 0.7 <= position['high']
    assert 0.9 <= held / 200 <= 0.99


@functools.cache
def long_sorting(normalizer):
    """Evaluator of a model that holds all logits, at 4 and 600 tokens, with the model's parameters."""
    task = tasks.make('bucket_sort')
    sizes = dict(vocab_size=task.vocab_size, num_classes=task.num_classes, max_len=600)
    options = dict(core='dense', position='rope', normalizer=normalizer)
    model = Encoder(**sizes, layers=1, dim=16, heads=2, **options, rngs=nnx.Rngs(0))
    evaluator = make(model, task, (2, 300), examples=8, batch_size=8, tiled=in_tiles(model))
    return evaluator, nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.mark.parametrize(
    ('normalizer', 'free', 'size', 'tiled'),
    [
        ('softmax', 1e12, 8, False),
        ('softmax', 12e6, 2, False),
        ('softmax', 4e6, 2, True),
        ('softmax', 1e5, None, None),
        ('entmax', 20e6, 1, False),
        ('entmax', 4e6, None, None),  # works on whole rows
    ],
)
def test_a_length_that_does_not_fit_falls_back(normalizer, free, size, tiled, monkeypatch, capsys):
    """To smaller batches, then to tiles, with the same results; and at last it is left out."""
    evaluator, params = long_sorting(normalizer)
    evaluator.told.clear()
    expected = evaluator(params).rows
    monkeypatch.setattr(memory, 'free', lambda: free)
    results = evaluator(params, None)
    bucket, needed = evaluator._fitting(300)
    for row, other in zip(results.rows, expected, strict=bucket is not None):
        assert row == pytest.approx(other, rel=1e-5)
    told = capsys.readouterr().err
    if bucket is None:
        assert results.too_large == {300: needed}
        assert len(results.rows) == 1
        assert f'note: length 300 is not evaluated: one example takes {needed / 1e6:.1f} MB of memory' in told
    else:
        assert (bucket.size, bucket.tiled) == (size, tiled)
        assert needed <= free
        assert ('length 300 is evaluated with core=blockwise' in told) == tiled


def test_an_evaluation_without_any_length_is_refused(monkeypatch):
    evaluator, params = long_sorting('softmax')
    monkeypatch.setattr(memory, 'free', lambda: 100)
    with pytest.raises(UserError, match='no length can be evaluated: one example of length 300 takes'):
        evaluator(params)
