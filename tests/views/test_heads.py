"""Table and figure of a study: means over seeds, a line per series and length, a row of panels per task."""

import math

from mha.probes.study import MEASURES
from mha.views import heads

SETTINGS = ['task', 'model.heads', 'model.head_dim']


def row(task, number, head_dim, seed, length, accuracy):
    values = {**dict.fromkeys(MEASURES, 0.25), 'accuracy': accuracy, 'concentration': math.nan}
    settings = {'task': task, 'model.heads': number, 'model.head_dim': head_dim, 'seed': seed}
    return {'run': 'a', **settings, 'length': length, 'heads': 2 * number, **values}


ROWS = [
    row(task, number, head_dim, seed, length, 0.5 + 0.1 * seed)
    for task in ('parity', 'copying')
    for number in (4, 1)
    for head_dim in (None, 8)
    for length in (8, 16)
    for seed in (0, 1, 2)
]


def test_table():
    header, _, *lines = heads.markdown(ROWS, SETTINGS).split('\n\n')[0].splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in (header, *lines)]
    assert cells[0][:6] == ['task', 'series', 'heads', 'length', 'seeds', 'accuracy']
    assert len(cells) == 1 + 2 * 2 * 2 * 2
    assert cells[1] == [
        'copying',
        'head_dim=8',
        '2',
        '8',
        '3',
        '0.600 ± 0.248',
        *['0.250 ± 0.000'] * 3,
        '-',
        '0.250 ± 0.000',
    ]
    assert {line[1] for line in cells[1:]} == {'head_dim=8', 'head_dim=width / heads'}


def test_figure():
    figure = heads._figure(ROWS, SETTINGS)
    assert len(figure.axes) == 2 * len(heads.DRAWN)
    first = figure.axes[0]
    named = [line for line in first.lines if not line.get_label().startswith('_')]
    assert [line.get_label() for line in named][:2] == ['head_dim=8, length 8', 'head_dim=8, length 16']
    assert list(named[0].get_xdata()) == [2, 8]
    assert list(named[0].get_ydata()) == [0.6, 0.6]
    assert first.get_title(loc='left') == 'copying'
    drawn = heads.svg(ROWS, SETTINGS)
    assert all(f'>{label}<' in drawn for label in heads.DRAWN.values())


def test_runs_that_differ_in_nothing():
    assert '| parity |        |' in heads.markdown([row('parity', 1, None, 0, 8, 0.5)], [])
