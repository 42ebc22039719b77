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
    assert [metric.name for metric in metrics.one_per_column(bits)] == ['accuracy', 'exact_match', 'bits_per_byte']
    assert [metric.name for metric in metrics.one_per_column(metrics.METRICS['accuracy'])][-1] == 'loss'


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
