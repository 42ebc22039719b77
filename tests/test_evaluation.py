import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import evaluation, tasks
from mha.encoder import Encoder


class PerfectParity(nnx.Module):
    """Answers the parity task; wrong for the first example of every batch if `stumble`."""

    def __init__(self, stumble=False):
        self.stumble = stumble

    def __call__(self, tokens, *, valid, train, rngs):
        parity = jnp.where(valid & (tokens < 2), tokens, 0).sum(-1) % 2
        parity = parity.at[0].set(1 - parity[0]) if self.stumble else parity
        return 20 * jnp.broadcast_to(jax.nn.one_hot(parity, 2)[:, None], (*tokens.shape, 2))


def rows_of(model, task='parity_check', lengths=(1, 3, 8), **options):
    graphdef, params = nnx.split(model, nnx.Param)
    settings = {'examples': 32, 'batch_size': 16, 'programs': 2, 'seed': 0, **options}
    settings = {'quadratic': lambda tokens: True, **settings}
    return evaluation.evaluate(graphdef, nnx.to_pure_dict(params), tasks.make(task), lengths=lengths, **settings)


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


@pytest.mark.parametrize('position', ['rope', 'learned'])
def test_padding_and_batching_change_nothing(position):
    tight = rows_of(encoder(position), 'bucket_sort', programs=3)
    padded = rows_of(encoder(position), 'bucket_sort', programs=1, batch_size=8)
    for one, other in zip(tight, padded, strict=True):
        assert one['accuracy'] == pytest.approx(other['accuracy'], abs=0.02)
        assert one['loss'] == pytest.approx(other['loss'], abs=1e-4)
        assert one['baseline'] == other['baseline']


def test_a_dispatch_per_batch_changes_nothing(monkeypatch):
    """Long sequences are measured a few per dispatch, so that progress is seen."""
    together = rows_of(encoder('randomize(max_position=64)|rope'), 'bucket_sort')
    monkeypatch.setattr(evaluation, 'PAIRS_PER_DISPATCH', 1)
    for one, other in zip(together, rows_of(encoder('randomize(max_position=64)|rope'), 'bucket_sort'), strict=True):
        assert other == pytest.approx(one, rel=1e-6)


def test_compiles_per_bucket_not_per_length():
    before = evaluation._measure._cache_size()
    rows_of(encoder(), 'reverse_string', lengths=tuple(range(1, 20)), programs=2)
    assert evaluation._measure._cache_size() - before <= 2


def test_twice_is_the_same_and_dropout_is_off():
    position = 'randomize(max_position=64)|rope'
    assert rows_of(encoder(position), 'bucket_sort') == rows_of(encoder(position), 'bucket_sort')


def test_all_schemes_meet_the_same_examples():
    rows = [rows_of(encoder(position), 'bucket_sort') for position in ('none', 'alibi')]
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
    def __call__(self, tokens, *, valid, train, rngs):
        return jnp.zeros((*tokens.shape, 5))


def test_score_begins_right_after_the_trained_lengths():
    rows = [{'length': length, 'accuracy': 1.0 if length == 4 else 0.0} for length in range(1, 7)]
    assert evaluation.scores(rows, trained=3) == {'in_range': 0, 'score': pytest.approx(1 / 3)}
    assert evaluation.scores(rows[:3], trained=3)['score'] is None
