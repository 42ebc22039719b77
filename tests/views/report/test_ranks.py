"""Ranks of rows, and their diagram."""

import pytest

from mha.spec import UserError
from mha.views.report import comparison, plots, ranks


@pytest.fixture
def compared(make):
    """Three schemes on two tasks; the third has no result on the second task, a fourth has."""
    scores = {'rope': (0.9, 0.8), 'alibi': (0.5, 0.6), 't5': (0.4,), 'none': (0.2, 0.1)}
    return comparison.compare(
        [
            make(f'{scheme}{task}', value, task=task, model__position=scheme)
            for scheme, values in scores.items()
            for task, value in zip(('reverse_string', 'bucket_sort'), values, strict=False)
        ]
    )


def test_mean_ranks_over_tasks(compared):
    found = ranks.ranks(compared)
    assert (found.names, found.mean_ranks, found.blocks, found.kind) == (
        ('rope', 'alibi', 'none'),
        (1, 2, 3),
        2,
        'tasks',
    )
    svg = plots.as_svg(ranks.diagram(compared))
    assert svg.startswith('<?xml')
    assert '1.00  rope' in svg
    assert 'mean rank over 2 tasks' in svg


def test_one_task_is_ranked_by_seeds(make):
    folders = [
        make(f'{scheme}{seed}', value - 0.1 * seed, seed=seed, model__position=scheme)
        for scheme, value in {'rope': 0.9, '<b>': 0.5, 'a_b %': 0.4}.items()
        for seed in range(3)
    ]
    found = ranks.ranks(comparison.compare(folders))
    assert (found.names[0], found.blocks, found.kind) == ('rope', 3, 'seeds')
    assert '&lt;b&gt;' in plots.as_svg(ranks.diagram(comparison.compare(folders)))


def test_too_few_rows(make):
    with pytest.raises(UserError, match='ranks need three rows'):
        ranks.ranks(comparison.compare([make('a'), make('b', model__position='alibi')]))
