"""Estimates of the time of a sweep, with planted times."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from configs import quickstart, sweeps
from mha.run import cost, launchers, rehearsal
from mha.run.cost import Cost
from mha.run.launchers import local
from mha.training.step import State

STEPS = {'reverse_string': 0.01, 'parity': 0.1, 'bucket_sort': 0.5}
"""Planted seconds of a training step, by task."""


def configs(*cells, **more):
    """Configs of 100 steps by name, with the given overrides."""
    found = {}
    for index, cell in enumerate(cells):
        config = quickstart.get_config()
        config.train.steps = 100
        config.update_from_flattened_dict({**cell, **more})
        found[str(index)] = config.to_dict()
    return found


@pytest.fixture
def rehearsed(monkeypatch):
    """Tasks that are rehearsed, which is to take the planted time."""
    tasks = []

    def rehearse(configs, jobs):
        tasks.extend(config['task'] for config in configs)
        return [(config, Cost(1.0, 10.0, STEPS[config['task']], 2.0)) for config in configs]

    monkeypatch.setattr(rehearsal, 'rehearse', rehearse)
    return tasks


@pytest.fixture
def grid(tmp_path):
    return launchers.Grid(tmp_path, {str(index): 100 for index in range(100)})


TASKS, SEEDS = sweeps.over('task', STEPS), sweeps.over('seed', range(2))


def test_every_task_is_rehearsed_once_and_compiled_once(rehearsed, grid):
    told = rehearsal.estimate(configs(*sweeps.product(TASKS, SEEDS)), grid, 1)
    assert rehearsed == [*STEPS]
    # 14 and 4 s, 23 and 13, 63 and 53
    assert told == '4 s to 63 s each (from a rehearsal of 3), 3 min in all with --jobs=1'
    assert '90 s in all with --jobs=2' in rehearsal.estimate(configs(*sweeps.product(TASKS, SEEDS)), grid, 2)


def test_other_numbers_of_steps_are_known_from_one(rehearsed, grid):
    cells = [{'task': 'parity', 'train.steps': steps} for steps in (100, 10_000)]
    assert '23 s to 17 min each' in rehearsal.estimate(configs(*cells), grid, 1)
    assert rehearsed == ['parity']


def test_evaluations_during_training_count(rehearsed, grid):
    told = rehearsal.estimate(configs({'task': 'parity'}, **{'eval.every_steps': 10}), grid, 1)
    assert told.startswith('about 41 s each')  # ten evaluations instead of one


def test_a_finished_cell_tells_the_time_of_its_kind(rehearsed, grid):
    cells = configs(*sweeps.product(TASKS[:2], SEEDS))
    workdir = grid.workdir('0')
    workdir.mkdir(parents=True)
    (workdir / 'config.json').write_text(json.dumps(cells['0'], default=list))
    (workdir / 'summary.json').write_text('{"status": "finished", "seconds": 33.0}')
    (workdir / 'extrapolation.csv').write_text('')
    told = rehearsal.estimate(cells, grid, 1)
    assert told.startswith('3 left, 13 s to 33 s each (as 1 finished of the same kind took; from')
    assert rehearsed == ['parity']


def test_rehearsals_are_few_and_go_to_what_differs_most(rehearsed, grid):
    sizes = sweeps.over('model.dim', (16, 32))
    seeds = sweeps.product(sweeps.over('model.position', ('none', 'rope', 'alibi', 't5')), SEEDS)
    cells = configs(*sweeps.product(TASKS, sizes, seeds))
    order = [(config['task'], config['model']['dim']) for config in rehearsal.unlike(list(cells.values()))]
    assert len({task for task, _ in order[:3]}) == 3
    assert len(set(order[:6])) == 6
    assert len(order) == 24
    told = rehearsal.estimate(cells, grid, 1)
    assert len(rehearsed) == rehearsal.MOST
    assert '(from a rehearsal of 12, the other 12 kinds as the most similar)' in told


def test_steps_are_timed_in_all_parts_of_training(monkeypatch):
    """Each takes as many seconds as thousands of steps before it, as under a curriculum of growing lengths."""
    starts, clock = [], [0.0]

    def chunk(state, stop):
        starts.append(int(state.step))
        clock[0] += sum(range(starts[-1], stop)) / 1000
        return state, {}

    monkeypatch.setattr(cost, 'time', SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(cost, 'TIMED', 200.0)
    step, _ = cost._step(chunk, State({}, {}, None, jnp.int32(0)), 1000)
    assert starts[:4] == [500, 250, 750, 125]
    assert step == pytest.approx(0.5, rel=0.1)
    starts.clear()
    cost._step(chunk, State({}, {}, None, jnp.int32(0)), 6)  # of a run this short, no more than that
    assert starts == [3, 1]


PROGRAM = """
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
config = json.loads(path.read_text())
if config['seed']:
    raise ValueError('no luck')
path.write_text(json.dumps(dict(start=1.0, compilation=0.0, step=0.5, evaluation=0.0)))
"""


def test_rehearsals_are_processes_of_which_some_may_fail(monkeypatch, tmp_path, capsys):
    (tmp_path / 'program.py').write_text(PROGRAM)
    monkeypatch.setattr(cost, '__file__', str(tmp_path / 'program.py'))
    monkeypatch.setattr(local, 'MODULES', ())
    good, bad = configs(*SEEDS).values()
    assert rehearsal.rehearse([good], 2) == [(good, Cost(1.0, 0.0, 0.5, 0.0))] * 2  # as many at once as cells
    assert rehearsal.rehearse([bad, good], 1) == [(good, Cost(1.0, 0.0, 0.5, 0.0))]
    assert 'note: a rehearsal failed: ValueError: no luck' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('seconds', 'words'), [(0.2, '1 s'), (99.0, '99 s'), (100.0, '2 min'), (3590.0, '1 h 0 min'), (7500.0, '2 h 5 min')]
)
def test_spoken_times(seconds, words):
    assert rehearsal.spoken(seconds) == words
