"""Metrics: definitions by hand, and that everything reads the one list."""

import math

import numpy as np
import pytest

from mha import spec, tasks
from mha.training import metrics

SUMS = {
    'examples': np.array(4),
    'correct': np.array([3, 1]),
    'symbols': np.array([4, 2]),
    'exact': np.array(1),
    'loss': np.array(3.0),
    'scored': np.array(6),
    'classes': np.array([[3, 1], [1, 1]]),
}


def test_columns_of_result_files():
    """Scripts of others read them in this order."""
    assert metrics.COLUMNS == ('length', 'accuracy', 'exact_match', 'loss', 'baseline', 'examples')


def test_row():
    row = metrics.row(7, SUMS)
    assert row == dict(length=7, accuracy=4 / 6, exact_match=0.25, loss=0.5, baseline=4 / 6, examples=4)
    assert tuple(row) == metrics.COLUMNS
    bits = metrics.METRICS['bits_per_byte']
    assert bits.of(row) == pytest.approx(0.5 / math.log(2))
    assert metrics.METRICS['perplexity'].of(row) == pytest.approx(math.exp(0.5))


def test_subwords_have_several_bytes_each():
    row = metrics.row(7, SUMS | {'bytes': np.array(24)})
    assert row['bytes_per_symbol'] == 4
    assert metrics.METRICS['bits_per_byte'].of(row) == pytest.approx(0.5 / math.log(2) / 4)
    assert list(row)[-3:] == ['bytes_per_symbol', 'baseline', 'examples']
    older = {'loss': np.array([0.5, 0.5]), 'bytes_per_symbol': np.array([4, np.nan])}  # a file without the column
    assert metrics.METRICS['bits_per_byte'].of(older) == pytest.approx(np.array([1, 4]) * 0.5 / math.log(2) / 4)


def test_macro_f1_by_hand():
    """Class 0: precision 3/4, recall 3/5, so 2/3; class 1: 2/4 and 2/3, so 4/7. Class 2 never occurs."""
    confusion = np.array([[3, 2, 0], [1, 2, 0], [0, 0, 0]])
    assert metrics.macro_f1(confusion) == pytest.approx((2 / 3 + 4 / 7) / 2)
    assert metrics.row(7, SUMS | {'confusion': confusion})['macro_f1'] == metrics.macro_f1(confusion)


def test_accuracy_of_one_class_is_not_per_symbol():
    accuracy, row = metrics.METRICS['accuracy'], metrics.row(7, SUMS)
    titles = [metrics.titled(accuracy, rows).title for rows in ({}, row, row | {'macro_f1': 0.5})]
    assert titles == ['accuracy per symbol', 'accuracy per symbol', 'accuracy']
    assert metrics.titled(accuracy, row | {'macro_f1': 0.5}) == accuracy


def test_what_the_table_of_a_run_shows():
    def names(name, **columns):
        found = metrics.row(7, SUMS) | columns
        return [metric.name for metric in metrics.table_of(metrics.METRICS[name], found)]

    assert names('accuracy') == ['accuracy', 'exact_match', 'loss']
    assert names('accuracy', macro_f1=0.5) == ['accuracy', 'macro_f1', 'loss']
    assert names('bits_per_byte') == ['accuracy', 'loss', 'perplexity', 'bits_per_byte']


def test_positions_have_intervals():
    """Losses 1, 2, 2, 3 at the first index; their standard error is sqrt(0.5 / 3)."""
    sums = SUMS | {'losses': np.array([8.0, 2.0]), 'squared_losses': np.array([18.0, 2.0])}
    first, second = metrics.position_rows(7, sums)
    assert first | {'loss_low': 0, 'loss_high': 0} == dict(
        length=7,
        position=1,
        accuracy=0.75,
        count=4,
        low=first['low'],
        high=first['high'],
        loss=2,
        loss_low=0,
        loss_high=0,
    )
    assert first['loss_high'] - 2 == 2 - first['loss_low'] == pytest.approx(1.96 * (0.5 / 3) ** 0.5, abs=1e-4)
    assert (second['loss'], second['loss_low']) == (1, 1)


def test_what_a_task_is_measured_by_is_a_metric():
    measured = {spec.load(tasks, name, tasks.Task, 'task').metric for name in tasks.names()}
    assert measured == {'accuracy', 'exact_match', 'bits_per_byte'} <= metrics.METRICS.keys()


@pytest.mark.parametrize(
    ('name', 'value', 'shown'),
    [
        ('accuracy', 0.25, '0.250'),
        ('exact_match', 0.25, '0.250 [0.183, 0.332]'),  # 32 of 128
        ('exact_match', math.nan, 'nan'),
        ('bits_per_byte', 2.0, '2.000'),
    ],
)
def test_how_a_value_is_shown(name, value, shown):
    assert metrics.METRICS[name].show(value, 128) == shown


@pytest.mark.parametrize(
    ('successes', 'count', 'interval'),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1.0)), (81, 263, (0.2553, 0.3662))],
)
def test_wilson_intervals_as_published(successes, count, interval):
    """The last is the example of Newcombe (1998), table I; the others are those of any table for ten trials."""
    assert metrics.wilson(successes, count) == pytest.approx(interval, abs=5e-5)
