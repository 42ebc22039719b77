"""Cells of a sweep: names, manifest, populations."""

import pytest

from configs import sweeps
from mha.run import cells, manifest
from mha.spec import UserError


def names(*overrides, known=None):
    return list(cells.named(overrides, known or {}))


def test_names_are_short_where_they_can_be_and_unlike_where_cells_are():
    norm = {'model.norm': 'pre', 'seed': 1}
    assert names(norm) == ['norm=pre,seed=1']
    assert names({'eval.seed': 1}, norm) == ['eval.seed=1', 'norm=pre,seed=1']
    specs = [{'model.position': f'randomize(max_position={n}), {"rope(theta=10.0), " * 9}'} for n in (300, 301)]
    texts = [{'task': "text('configs/q*.py')"}, {'task': "text('configs/q?*.py')"}]
    many = names(*specs, {'population.seed': tuple(range(100))}, *texts)
    assert len(set(many)) == 5
    assert all(len(name) < 200 for name in many)
    assert many[2] == 'seed=0-99'
    with pytest.raises(UserError, match="two cells called 'seed=1'"):
        names({'seed': 1}, {'seed': 1})


def test_names_of_populations_say_their_members():
    seeds, rates = {'population.seed': (0, 1, 2)}, {'population.learning_rate': (1e-3, 3e-4)}
    assert names({'model.position': 'rope', **seeds, **rates}) == [
        'position=rope,seed=0,1,2,learning_rate=0.001,0.0003'
    ]
    assert names(seeds, {'population.seed': (2, 0)}, {'population.seed': tuple(range(10))}) == [
        'seed=0,1,2',
        'seed=2,0',
        'seed=0-9',
    ]
    old = {'seed=_0,_1,_2': {'population.seed': [0, 1, 2]}}  # as an earlier version called it
    assert names(seeds, known=old) == [*old]


def test_a_sweep_keeps_the_names_of_its_manifest(tmp_path):
    norm = {'model.norm': 'pre', 'seed': 1}
    (tmp_path / 'manifest.jsonl').write_text(
        '{"cell": "old", "overrides": {"model.norm": "pre", "seed": 1}}\n{"cell": "ha'
    )
    known = manifest.read(tmp_path)
    assert names({'eval.seed': 1}, norm, known=known) == ['eval.seed=1', 'old']
    manifest.add(tmp_path, {'old': norm, 'eval.seed=1': {'eval.seed': 1}}, 'mine.py')
    assert manifest.read(tmp_path) == {'old': norm, 'eval.seed=1': {'eval.seed': 1}}


SCHEMES, SEEDS = sweeps.over('model.position', ('rope', 'alibi')), sweeps.over('seed', range(3))
RATES = sweeps.over('optimizer.learning_rate', (1e-3, 1e-4))


@pytest.mark.parametrize(
    ('sweep', 'together'),
    [
        (SCHEMES, SCHEMES),
        (SEEDS, [{'population.seed': (0, 1, 2)}]),
        (SEEDS[:1], SEEDS[:1]),
        (
            sweeps.product(SEEDS, SCHEMES, RATES),
            [
                {'model.position': name, 'population.seed': (0, 1, 2), 'population.learning_rate': (1e-3, 1e-4)}
                for name in ('rope', 'alibi')
            ],
        ),
        (sweeps.product(SEEDS, RATES)[:-1], sweeps.product(SEEDS, RATES)[:-1]),  # not every combination
        ([*SEEDS, {'seed': 0, 'model.heads': 2}], [{'population.seed': (0, 1, 2)}, {'seed': 0, 'model.heads': 2}]),
    ],
)
def test_populations(sweep, together):
    assert cells.populations(sweep) == together
    members = [member for cell in cells.populations(sweep) for member in cells.members(cell)]
    assert all(member in sweep for member in members)
    assert all(cell in members for cell in sweep)
    assert len(members) == len(sweep)


def test_no_cell_trains_twice_alone_and_as_a_member():
    alone, together = {'seed=1': {'seed': 1}}, {'seed=0,1': {'population.seed': (0, 1)}}
    with pytest.raises(UserError, match=r'cell seed=1 .* trains what seed=0,1 would - go on without --population'):
        cells.check_begun_alike(together, alone)
    with pytest.raises(UserError, match=r'go on with --population=auto'):
        cells.check_begun_alike(alone, together)
    cells.check_begun_alike(alone, {**alone, 'seed=2': {'seed': 2}})
