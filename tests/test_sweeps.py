"""Combinators of sweeps."""

import pytest

from configs import sweeps

HEADS, SEEDS = sweeps.over('model.heads', (1, 2)), sweeps.over('seed', range(2))


def test_combinators():
    assert HEADS == [{'model.heads': 1}, {'model.heads': 2}]
    assert sweeps.product(HEADS, SEEDS) == [{'model.heads': h, 'seed': s} for h in (1, 2) for s in (0, 1)]
    assert sweeps.zip(HEADS, SEEDS) == [{'model.heads': 1, 'seed': 0}, {'model.heads': 2, 'seed': 1}]
    assert sweeps.chain(HEADS, SEEDS, HEADS[:1]) == [*HEADS, *SEEDS]
    assert sweeps.product(HEADS, iter(SEEDS)) == sweeps.product(HEADS, SEEDS)


def test_mistakes_in_combinations():
    with pytest.raises(ValueError, match='shorter'):
        sweeps.zip(HEADS, SEEDS[:1])
    with pytest.raises(ValueError, match=r'model\.heads set by two sweeps'):
        sweeps.product(HEADS, HEADS)
