"""Launchers: what runs where, what is tried again, and what a killed launcher leaves behind."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mha.run import launchers
from mha.run.launchers import base, local
from mha.spec import UserError

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, pathlib, sys, time
config, workdir = (pathlib.Path(argument.partition('=')[2]) for argument in sys.argv[1:])
workdir.mkdir(parents=True, exist_ok=True)
act = json.loads(config.read_text())
with open(workdir / 'starts', 'a') as file:
    file.write('x')
starts = len((workdir / 'starts').read_text())
print('start', starts, sorted(os.sched_getaffinity(0)), flush=True)
if starts <= act.get('crashes', 0):
    os.kill(os.getpid(), 9) if act.get('killed') else sys.exit('no luck')
if 'refuse' in act:
    sys.exit(2)
(workdir / 'config.json').write_text(json.dumps({'train': {'steps': 1}}))
(workdir / 'extrapolation.csv').write_text('')
(workdir / 'summary.json').write_text(json.dumps({'status': 'finished', **act.get('scores', {'score': 0.5})}))
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Cells that do as they are told instead of training."""
    program = tmp_path / 'program.py'
    program.write_text(PROGRAM)
    monkeypatch.setattr(base, 'TRAIN', program)
    monkeypatch.setattr(base.workdir, 'load_config', lambda path: json.loads((path / 'config.json').read_text()))
    monkeypatch.setattr(local, 'EVERY', 0.02)
    monkeypatch.setattr(local, 'MODULES', ())

    def make(**cells):
        for folder in 'configs', 'logs', 'cells':
            (tmp_path / 'grid' / folder).mkdir(parents=True, exist_ok=True)
        for name, act in cells.items():
            (tmp_path / 'grid' / 'configs' / f'{name}.json').write_text(json.dumps(act))
        return launchers.Grid(tmp_path / 'grid', dict.fromkeys(cells, 1))

    return make


def pid_runs(pid):
    """Whether a process runs; one that has ended may stay known until its parent asks."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def starts(grid, name):
    return len((grid.workdir(name) / 'starts').read_text())


def test_what_fails_is_tried_once_more_and_the_others_go_on(grid):
    cells = grid(
        good={}, unlucky={'crashes': 1}, killed={'crashes': 1, 'killed': True}, bad={'crashes': 9}, no={'refuse': 1}
    )
    assert sorted(launchers.make('local', 2).run(cells)) == ['bad', 'no']
    assert {name: starts(cells, name) for name in cells.steps} == dict(good=1, unlucky=2, killed=2, bad=2, no=1)
    marked = [json.loads(line) for line in (cells.directory / 'failures.jsonl').read_text().splitlines()]
    assert {each['cell']: (each['exit_code'], each['tries']) for each in marked} == {'bad': (1, 2), 'no': (2, 1)}
    assert {each['cell']: each['error'][-1] for each in marked}['bad'] == 'no luck'
    assert sorted(launchers.make('local', 1).run(cells)) == ['bad', 'no']
    assert starts(cells, 'good') == 1  # what is finished is left alone


def test_results_of_finished_cells(grid, capsys):
    within = {'scores': {'score': None, 'in_range': 2}}
    launchers.make('local', 1).run(grid(a={}, b=within, c={'scores': {}}))
    said = capsys.readouterr()
    for line in 'a: score 0.500, ', 'b: 2.000 at trained lengths, ', 'c: no result, ':
        assert line in said.out + said.err


@pytest.mark.parametrize('late', [False, True])
def test_cells_that_a_killed_launcher_left_are_waited_for(late, grid, monkeypatch):
    """Also one that had not yet locked its directory, so that it was started again: it is in the way of its double."""
    cells = grid(orphan={'refuse': 1}, other={})
    cells.workdir('orphan').mkdir()
    code = f"""
import json, pathlib, sys
from mha.run import workdir
here = pathlib.Path({str(cells.workdir('orphan'))!r})
workdir.hold(here)
print('holds', flush=True)
sys.stdin.readline()
(here / 'config.json').write_text(json.dumps({{'train': {{'steps': 1}}}}))
(here / 'extrapolation.csv').write_text('')
(here / 'summary.json').write_text(json.dumps({{'status': 'finished'}}))
"""
    pipe = subprocess.PIPE
    orphan = subprocess.Popen([sys.executable, '-c', code], stdin=pipe, stdout=pipe, text=True)
    assert orphan.stdout.readline() == 'holds\n'
    unlocked, held = [cells.workdir('orphan')] * late, local.workdir.held
    monkeypatch.setattr(local.workdir, 'held', lambda path: held(path) and not (path in unlocked and unlocked.pop()))
    threading.Timer(3, orphan.communicate, ['\n']).start()
    assert launchers.make('local', 2).run(cells) == []
    assert starts(cells, 'other') == 1
    assert (cells.workdir('orphan') / 'starts').exists() == late


def test_a_launcher_that_ends_ends_its_cells(grid, monkeypatch):
    """If the warm process dies, its cells are started again."""
    cells = grid(slow={'crashes': 0})
    launcher = launchers.make('local', 1)

    def interrupt(self, running):
        if 'slow' in self.pids:
            raise KeyboardInterrupt
        look(self, running)

    look = local.Warm.look
    monkeypatch.setattr(local.Warm, 'look', interrupt)
    base.TRAIN.write_text('import time\ntime.sleep(60)')
    with pytest.raises(KeyboardInterrupt):
        launcher.run(cells)
    monkeypatch.setattr(local.Warm, 'look', look)

    def die(self, running):
        if 'slow' in self.pids and not died:
            died.append(self.pids['slow'])
            base.TRAIN.write_text(PROGRAM)
            self.process.kill()
        look(self, running)

    died = []
    monkeypatch.setattr(local.Warm, 'look', die)
    assert launcher.run(cells) == []
    assert not pid_runs(died[0])


def test_shares_of_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3, 4})
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,7')
    shares = local.Shares(4)
    environs, cores = zip(*map(shares.of, range(4)), strict=True)
    assert [environ['CUDA_VISIBLE_DEVICES'] for environ in environs] == ['4', '7', '4', '7']
    assert {environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] for environ in environs} == {'0.450'}
    assert cores == ([0, 4], [1], [2], [3])
    assert local.Shares(1).of(0) == ({'JAX_NUM_PROCESSES': '1'}, [])
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert 'CUDA_VISIBLE_DEVICES' not in local.Shares(6).of(5)[0]
    assert local.Shares(6).of(5)[1] == []


def test_commands_of_what_is_left(grid, capsys):
    cells = grid(one={}, two={})
    assert launchers.make('local', 1).run(cells) == []
    (cells.workdir('two') / 'summary.json').unlink()
    capsys.readouterr()
    assert launchers.make('commands', 1).run(cells) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert shlex.split(line) == cells.command('two')


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('locl', "unknown cluster 'locl' - did you mean 'local'"),
        ('local(cpus=3)', "unknown argument of cluster 'local'"),
        ('local|slurm', 'one launcher runs a sweep, not 2'),
        ('slurm(timeout=0)', 'timeout must be at least 1, not 0'),
        ('slurm(timeout=1)', 'grace=90 seconds must be less than timeout=1 minutes'),
    ],
)
def test_mistakes_in_a_cluster(text, told):
    with pytest.raises(UserError, match=told):
        launchers.make(text, 1)


@pytest.mark.slow
def test_kills_at_ten_random_moments_change_nothing(small_sweep, curves, steps, tmp_path):
    """Half of them end the launcher, half a process that it has started: no step is logged twice, none is missing, and
    the results are those of an undisturbed sweep."""
    count, rng = 3000, random.Random(0)
    environ = {**os.environ, 'MHA_CACHE': str(tmp_path / 'cache'), 'JAX_PLATFORMS': 'cpu'}

    def launch(workdir):
        command = [sys.executable, 'sweep.py', f'--config={small_sweep(count)}', f'--workdir={workdir}', '--jobs=2']
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    whole, torn = tmp_path / 'whole', tmp_path / 'torn'
    assert launch(whole).wait() == 0
    launcher, kills = launch(torn), 0
    while kills < 10:
        time.sleep(rng.uniform(0.5, 6))
        if launcher.poll() is not None:
            launcher = launch(torn)
            continue
        pids = [int(path.read_text().partition(' ')[0] or 0) for path in torn.glob('cells/*/lock')]
        victims = [launcher.pid] if kills % 2 else [pid for pid in pids if pid and pid_runs(pid)]
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
            kills += 1
    launcher.wait()
    assert launch(torn).wait() == 0
    assert curves(torn) == curves(whole)
    for seed in range(3):
        assert steps(torn, f'seed={seed}') == list(range(50, count + 1, 50))
