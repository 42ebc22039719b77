"""Statistics against scipy's, worked examples of papers, and simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from mha.views.report import statistics


def test_intervals_and_paired_tests_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for count in (2, 3, 10):
        values, others = rng.normal(size=(2, count))
        low, high = stats.t.interval(0.95, count - 1, values.mean(), values.std(ddof=1) / math.sqrt(count))
        assert statistics.half_width(values) == pytest.approx((high - low) / 2)
        assert statistics.paired_p(values - others) == pytest.approx(stats.ttest_rel(values, others).pvalue)
    assert math.isnan(statistics.paired_p(np.ones(1)))
    assert statistics.paired_p(np.zeros(3)) == 1
    assert statistics.bootstrap(np.full(3, 0.25)) == (0.25, 0.25)


def test_holm():
    """Worked example: 4 tests, the smallest times 4, the next times 3, and so on, never falling."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, math.nan, 0.6])[0] == 1.0
    assert math.isnan(statistics.holm([0.5, math.nan])[1])


def test_pairs_use_the_seeds_that_both_rows_have():
    scores = {'a': {0: 0.9, 1: 0.8, 2: 0.7}, 'b': {1: 0.5, 2: 0.4, 3: 0.0}}
    (pair,) = statistics.corrected(statistics.pairs(scores))
    assert (pair.first, pair.second, pair.seeds) == ('a', 'b', 2)
    assert pair.difference == pytest.approx(0.3)
    assert pair.differs


def test_ranks():
    scores = np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.2]])
    assert statistics.ranks(scores).tolist() == [[1, 1.5], [2, 1.5], [3, 3]]
    assert statistics.ranks(scores, 'min').tolist() == [[3, 2.5], [2, 2.5], [1, 1]]
    assert statistics.mean_reciprocal_rank(scores) == pytest.approx([1, 0.75, 1 / 3])


def test_critical_difference():
    """Demsar (2006), table 5(a): q(0.05) of 4 classifiers is 2.569; its example has 14 data sets and CD 1.25."""
    assert statistics.critical_difference(4, 14) == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    assert statistics.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert statistics.groups([1.0, 1.5, 2.4, 4.0], 1.2) == [(0, 1), (1, 2)]
    assert statistics.groups([1.0, 1.5, 2.0], 1.2) == [(0, 2)]


@pytest.mark.slow
def test_errors_are_as_frequent_as_the_level_says():
    """Planted rows without a difference, and one with: false differences in at most 5 % of studies, t-intervals that
    hold the true mean in 95 %, and large differences that are found."""
    rng, studies = np.random.default_rng(0), 2000
    false, held, found, boot = 0, 0, 0, 0
    for _ in range(studies):
        seeds = rng.normal(size=5)  # shared by the rows, as runs of one seed are alike
        rows = {name: dict(enumerate(seeds + rng.normal(size=5))) for name in 'abcd'}
        rows['high'] = dict(enumerate(7 + seeds + rng.normal(size=5)))
        pairs = statistics.corrected(statistics.pairs(rows))
        false += any(pair.differs for pair in pairs if 'high' not in (pair.first, pair.second))
        found += all(pair.differs for pair in pairs if 'high' in (pair.first, pair.second))
        one = np.array(list(rows['a'].values()))
        held += abs(one.mean()) <= statistics.half_width(one)
    assert 0.03 < false / studies < 0.06
    assert held / studies == pytest.approx(0.95, abs=0.015)
    assert found / studies > 0.9
    for _ in range(200):
        values = rng.normal(size=30)
        low, high = statistics.bootstrap(values)
        boot += low <= 0 <= high
    assert boot / 200 > 0.9
