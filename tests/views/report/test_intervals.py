"""Intervals over seeds: t by default, or bootstrap."""

import csv
import dataclasses
import math

import numpy as np
import pytest

from mha.views.report import comparison, embedded, page, pivot, plots, statistics, table

SCORES = (0.2, 0.4, 0.5, 0.9)


@pytest.fixture
def compared(make):
    """Two schemes with the same scores, by bootstrap."""
    folders = [
        make(f'{scheme}{seed}', score, seed=seed, model__position=scheme, train__steps=steps)
        for scheme, steps in (('rope', 100), ('t5', 200))
        for seed, score in enumerate(SCORES)
    ]
    return dataclasses.replace(comparison.compare(folders), interval='bootstrap')


@pytest.mark.parametrize('kind', ['t', 'bootstrap'])
def test_intervals_of_arrays(kind):
    """Those of each column."""
    values = np.random.default_rng(0).normal(size=(5, 2, 3))
    low, high = statistics.interval(values, kind)
    assert low.shape == high.shape == (2, 3)
    for place in np.ndindex(2, 3):
        one = values[:, *place]
        half = float(statistics.half_width(one))
        expected = statistics.bootstrap(one) if kind == 'bootstrap' else (one.mean() - half, one.mean() + half)
        assert (low[place], high[place]) == pytest.approx(expected)
    assert np.isnan(statistics.interval(values[:1], kind)).all()


def test_bootstrap_of_values_without_spread_or_meaning():
    assert statistics.bootstrap(np.full(3, 0.5)) == (0.5, 0.5)
    for values in ((0.5,), (0.5, math.nan, 0.1)):
        assert all(map(math.isnan, statistics.bootstrap(np.array(values))))


def test_every_table_shows_the_asked_interval(compared, tmp_path):
    """The page, too. Columns of table.csv keep their meaning."""
    page.write(compared, tmp_path)
    shown = '0.500 [{:.3f}, {:.3f}]'.format(*statistics.bootstrap(np.array(SCORES)))
    tables = [table.text(compared), *((tmp_path / name).read_text() for name in ('table.md', 'table.tex'))]
    for text in (*tables, (tmp_path / 'report.html').read_text()):
        assert shown in text.replace(' <small class="spread">', ' ')
        assert 'mean and 95 % bootstrap interval over seeds 0,1,2,3, and maximum' in text
        assert 'bootstrap intervals over fewer than about 10 seeds are too narrow' in text
        assert '± 0' not in text
    crossed = pivot.grid(pivot.pivot(compared, ['position'], ['steps']))[1]
    assert {cell for line in crossed[:2] for cell in line[1:]} == {shown, ''}
    by_t = dataclasses.replace(compared, interval='t')
    (tmp_path / 't').mkdir()
    page.write(by_t, tmp_path / 't')
    (asked, *_), (plain, *_) = (
        list(csv.DictReader((folder / 'table.csv').open())) for folder in (tmp_path, tmp_path / 't')
    )
    assert plain.items() <= asked.items()
    assert float(asked['30-40_bootstrap_low']) == pytest.approx(statistics.bootstrap(np.array(SCORES))[0], abs=1e-6)
    assert '--interval=bootstrap' in (tmp_path / 'report.html').read_text()
    assert '--interval' not in (tmp_path / 't' / 'report.html').read_text()


def test_figures_show_the_asked_interval(compared):
    ends = statistics.bootstrap(np.array(SCORES))
    (axes,) = plots.figure(compared).axes
    (band, _) = axes.collections
    last = band.get_paths()[0].vertices
    assert {*last[last[:, 0] == 120, 1].round(6)} == {*np.round(ends, 6)}
    row, _ = embedded.page_data(compared)['rows']
    assert (row['low'][-1], row['high'][-1]) == pytest.approx(ends, rel=1e-4)
