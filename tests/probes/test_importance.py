"""Importance of heads: what a mask removes is what a model lacks that has a head's projection set to zero."""

import copy
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mha
from mha import probes
from mha.model.heads import Head, parse
from mha.probes import importance
from mha.run.build import build
from mha.run.finished import Finished
from mha.spec import UserError
from mha.training.step import losses

STORED = Path(__file__).parents[1] / 'runs' / 'alibi'
USELESS = Head('encoder', 1, 2)


def of(**model):
    """Run with new weights, of two layers of four heads."""
    config = mha.load(STORED).config
    config = {**config, 'model': {**config['model'], 'layers': 2, 'heads': 4, 'init': 'gpt2', **model}}
    experiment = build(config, eval_lengths='3,4')
    return Finished(STORED, experiment, experiment, jax.device_get(experiment.init().params), 0)


def zeroed(run, head):
    """Run in which the output projection of a head is zero."""
    params = copy.deepcopy(run.params)
    kernel = params['blocks'][head.layer]['attention']['out']['kernel']
    params['blocks'][head.layer]['attention']['out']['kernel'] = kernel.copy()
    params['blocks'][head.layer]['attention']['out']['kernel'][:, head.number] = 0
    return dataclasses.replace(run, params=params)


@pytest.fixture(scope='module')
def run():
    return zeroed(of(), USELESS)


@pytest.fixture(scope='module')
def rows(run):
    return probes.ablations(run, alone=True)


def results(rows, **place):
    """Results of the rows with these columns."""
    chosen = [row for row in rows if all(row[name] == value for name, value in place.items())]
    return [{name: row[name] for name in ('length', 'accuracy', 'exact_match', 'loss')} for row in chosen]


def test_ablations(run, rows):
    """Those of the whole model are its evaluation; without a head, that of the model without it."""
    assert len(rows) == 2 * (1 + 2 * 8)
    assert list(rows[0])[:6] == ['removed', 'stack', 'layer', 'head', 'length', 'accuracy']
    assert results(rows, removed='none') == [pytest.approx(row, rel=1e-5) for row in results(run.evaluate())]
    for head in (Head('encoder', 0, 1), Head('encoder', 1, 3)):
        found = results(rows, removed='head', layer=head.layer, head=head.number)
        other = zeroed(run, head)
        assert found == [pytest.approx(row, rel=1e-5) for row in results(other.evaluate())]
        assert found[0]['loss'] != rows[0]['loss']
    alone = run.pruned('0:0,2,3').evaluate()
    assert results(rows, removed='others', layer=0, head=1) == [pytest.approx(row, rel=1e-5) for row in results(alone)]


def test_a_useless_head(run, rows):
    """It comes last in every order, and its removal changes nothing."""
    assert results(rows, removed='head', layer=1, head=2) == results(rows, removed='none')
    found = probes.gradient_importance(run, normalize=False)
    assert [row['length'] for row in found] == [3] * 8 + [4] * 8
    for row in found:
        useless = Head(row['stack'], row['layer'], row['head']) == USELESS
        assert (row['importance'] == 0) == useless, row
    curve = probes.pruning_curve(run, step=4)
    assert [row['heads'] for row in curve[::2]] == [8, 4, 0]
    assert curve[0]['pruned'] == ''
    assert USELESS in parse(curve[2]['pruned'])
    assert curve[-1]['pruned'] == '0:0,1,2,3;1:0,1,2,3'
    nothing = run.pruned(curve[-1]['pruned'])
    assert results(curve[-2:]) == [pytest.approx(row, rel=1e-5) for row in results(nothing.evaluate())]


def test_orders(run):
    for name, order in importance.ORDERS.items():
        places = order(run, 0)
        assert sorted(places) == sorted(importance.of_run(run))
        if name == 'importance':
            assert places[0] == USELESS
    first = probes.pruning_curve(run, order=[USELESS, *(h for h in importance.of_run(run) if h != USELESS)], step=7)
    assert results(first[:1]) == results(probes.pruning_curve(run, order='random', step=8)[:1])
    with pytest.raises(UserError, match="unknown order of heads 'randm' - did you mean 'random'"):
        probes.pruning_curve(run, order='randm')
    for wrong in ([USELESS], [*importance.of_run(run), USELESS]):
        with pytest.raises(UserError, match='names each of the 8 heads once'):
            probes.pruning_curve(run, order=wrong)
    with pytest.raises(UserError, match='seed must be from 0'):
        probes.pruning_curve(run, order='random', seed=-1)


def test_a_run_without_heads():
    none = of().pruned('0:0,1,2,3;1:0,1,2,3')
    assert probes.gradient_importance(none) == []
    assert {row['heads'] for row in probes.pruning_curve(none)} == {0}


@pytest.mark.parametrize('model', [{}, dict(position='randomize(max_position=32)|rope', kv_heads=2)], ids=str)
def test_gradients_are_finite_differences(model):
    run, length, examples, step = of(**model), 4, 3, 1e-2
    rows = probes.gradient_importance(run, lengths=[length], examples=examples, normalize=False)
    key = jax.random.fold_in(jax.random.key(0), length)
    batch_key, position_key = jax.random.split(key)
    batch = run.experiment.task.batch(batch_key, examples, length, length)
    if model:
        assert all(row['importance'] > 0 for row in rows)
        return

    @jax.jit
    def mean_losses(mask):
        seen = probes.record(run.model, batch.tokens, head_mask=mask, valid=batch.valid, position_key=position_key)
        return jnp.mean(losses(seen.logits, batch), axis=1, where=batch.loss_mask)

    for row in rows:
        one = jnp.zeros((2, 4)).at[row['layer'], row['head']].set(step)
        change = (mean_losses(1 + one) - mean_losses(1 - one)) / (2 * step)
        assert row['importance'] == pytest.approx(float(jnp.abs(change).mean()), rel=2e-2, abs=2e-5)


def test_heads_that_can_go():
    accuracies = {3: (0.9, 0.895, 0.85, 0.9), 5: (0.5, 0.2, 0.2, 0.2)}
    curve = [
        {'heads': 3 - index, 'length': length, 'accuracy': accuracies[length][index]}
        for index in range(4)
        for length in accuracies
    ]
    found = probes.removable(curve)
    assert [(row['length'], row['removable']) for row in found] == [(3, 1), (5, 0)]
    assert found[0] == {'length': 3, 'removable': 1, 'heads': 3, 'accuracy': 0.9}
    assert probes.removable(curve, tolerance=0.06)[0]['removable'] == 3


def test_normalised_importance(run):
    found = probes.gradient_importance(run, lengths='2,3', examples=4)
    for layer in (0, 1):
        for length in (2, 3):
            part = [row['importance'] for row in found if (row['layer'], row['length']) == (layer, length)]
            assert np.linalg.norm(part) == pytest.approx(1)


def test_a_run_with_few_heads_left():
    """Heads keep their numbers, and a layer without any has no rows."""
    run = of().pruned('0:0,1,2,3;1:0,2')
    assert importance.of_run(run) == [Head('encoder', 1, 1), Head('encoder', 1, 3)]
    rows = probes.ablations(run, lengths='3', examples=2)
    assert [(row['layer'], row['head']) for row in rows] == [(None, None), (1, 1), (1, 3)]
    assert probes.pruning_curve(run, lengths='3', examples=2)[-1]['heads'] == 0
