"""Sinks: what they get, what happens when one fails, and that real ones show a run. Weights & Biases and MLflow are
tested offline where they are installed."""

import json
import math
import os
import subprocess
import sys

import pytest

from mha.run import sinks
from mha.run.launchers import Grid
from mha.run.log import Metrics
from mha.spec import UserError

CONFIG = {'seed': 3, 'model': {'position': 'rope', 'head_dim': None, 'causal': False}}
ROW = {'seed': 0, 'length': 40, 'accuracy': 0.5, 'exact_match': 0.25, 'loss': 1.0, 'baseline': 0.2, 'examples': 8}
SCORES = {'score': 0.5, 'in_range': None}


class Recording(sinks.Sink):
    """Sink that notes its calls, and fails at one of them if asked."""

    def __init__(self, fails=None):
        self.fails, self.calls = fails, []

    def note(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name == self.fails:
            raise RuntimeError('the service\nis down')

    def start(self, workdir, config, step):
        self.note('start', workdir, config, step)

    def write(self, step, values):
        self.note('write', step, values)

    def evaluated(self, curves, scores):
        self.note('evaluated', curves, scores)

    def close(self, finished):
        self.note('close', finished)


def run(workdir, *shown, member=None, finished=True):
    metrics = Metrics(workdir, 2, shown)
    metrics.start(CONFIG)
    metrics.write(4, {'loss': 1.5, 'accuracy': math.nan}, member)
    metrics.evaluated([ROW], SCORES)
    metrics.close(finished)


def test_a_sink_gets_finite_values_under_the_name_of_the_member(tmp_path):
    sink = Recording()
    run(tmp_path, sink, member={'seed': 7}, finished=False)
    curve = {'accuracy': 0.5, 'exact_match': 0.25, 'loss': 1.0, 'baseline': 0.2}
    assert sink.calls == [
        ('start', tmp_path, CONFIG, 2),
        ('write', 4, {'loss/seed=7': 1.5}),
        ('evaluated', [(40, {f'extrapolation/{name}/seed=0': value for name, value in curve.items()})], {'score': 0.5}),
        ('close', False),
    ]


@pytest.mark.parametrize('fails', ['write', 'evaluated', 'close'])
def test_a_run_continues_without_a_sink_that_fails(fails, tmp_path, capsys):
    failing, other = Recording(fails), Recording()
    run(tmp_path, failing, other)
    assert [name for name, *_ in other.calls] == ['start', 'write', 'evaluated', 'close']
    assert failing.calls[-1][0] == fails
    assert json.loads((tmp_path / 'metrics.jsonl').read_text())['loss'] == 1.5
    assert capsys.readouterr().err.endswith('the service is down\n')


def test_what_is_shown_only_is_not_recorded(tmp_path):
    sink = Recording()
    metrics = Metrics(tmp_path, 0, [sink])
    metrics.show(3, {'learning_rate': 0.5})
    metrics.close()
    assert sink.calls[0] == ('write', 3, {'learning_rate': 0.5})
    assert (tmp_path / 'metrics.jsonl').read_text() == ''


def test_a_sink_that_does_not_start_is_a_mistake(tmp_path):
    begun = Recording()
    metrics = Metrics(tmp_path, 0, [begun, Recording('start')])
    with pytest.raises(UserError, match=r'cannot log to \w+: the service is down'):
        metrics.start(CONFIG)
    assert [name for name, *_ in begun.calls] == ['start', 'close']
    assert begun.calls[-1] == ('close', False)


def test_every_run_has_tensorboard_and_each_sink_once():
    assert sinks.names() == ('mlflow', 'tensorboard', 'wandb')
    for given in ([], ['tensorboard']):
        assert [type(sink).__name__ for sink in sinks.make(given)] == ['TensorBoard']


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('wandbx', r"unknown sink 'wandbx' - did you mean 'wandb'\? \(choices: mlflow, tensorboard, wandb\)"),
        ('tensorboard()', 'repeat the flag for other sinks, each once'),
        ('tensorboard|wandb', 'repeat the flag for other sinks, each once'),
        ('wandb(project=3)', 'project must be .*, not 3'),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(UserError, match=message):
        sinks.make([given])


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UserError, match=r'--log_to=wandb: .* pip install "\.\[sinks\]"'):
        sinks.make(['wandb'])


def test_all_cells_of_a_sweep_get_the_flag(tmp_path):
    command = Grid(tmp_path, {'a': 1}, ['--log_to=wandb']).command('a')
    assert command[-1] == '--log_to=wandb'
    assert Grid(tmp_path, {'a': 1}).command('a') == command[:-1]


def test_tensorboard_shows_settings_and_results(tmp_path):
    run(tmp_path, *sinks.make([]))
    (events,) = (tmp_path / 'tensorboard').iterdir()
    written = events.read_bytes()
    for words in (b'model.position', b'rope', b'loss', b'extrapolation/exact_match/seed_0'):
        assert words in written


def test_resumed_runs_leave_two_event_files_with_all_complete_events(tmp_path):
    folder = tmp_path / 'tensorboard'
    for step in range(5):
        metrics = Metrics(tmp_path, step, sinks.make([]))
        metrics.start(CONFIG)
        metrics.write(step + 1, {f'value{step}': 1.0})
        metrics.close(finished=False)
        assert len(list(folder.iterdir())) == min(step + 1, 2)
        newest = max(folder.iterdir())
        newest.write_bytes(newest.read_bytes() + (10**6).to_bytes(8, 'little') + b'cut short')
        (folder / f'{newest.name}.tmp').write_bytes(b'of a process that was killed')
    sinks.make([])[0].start(tmp_path, CONFIG, 5)
    before, _ = sorted(folder.iterdir())
    data = before.read_bytes()
    assert b'cut short' not in data
    assert [data.find(b'value%d' % step) for step in range(5)] == sorted(
        data.find(b'value%d' % step) for step in range(5)
    )
    assert [data.count(b'value%d' % step) for step in range(5)] == [1] * 5


# ------------------------------------------------------------------------------------------------------- real, offline
SCRIPT = """
import sys
from pathlib import Path
from mha.run import sinks
from mha.run.log import Metrics
from tests.run.test_sinks import CONFIG, ROW, SCORES
for step in 0, 4:  # the second continues the first
    metrics = Metrics(Path(sys.argv[1]), step, sinks.make([sys.argv[2]]))
    metrics.start(CONFIG)
    for at in range(step, step + 6, 2):
        metrics.write(at + 2, {'loss': 1 / (at + 2)}, {'seed': 7} if sys.argv[2] == 'mlflow' else None)
    metrics.evaluated([ROW], SCORES)
    metrics.close()
"""


def shown(sink, workdir, **variables):
    """Runs the script in a process, because services keep threads and settings."""
    pytest.importorskip(sink)
    workdir.mkdir(parents=True)
    path = os.pathsep.join(sys.path)
    environ = {**os.environ, 'PYTHONPATH': path, **variables}
    command = [sys.executable, '-c', SCRIPT, str(workdir), sink]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert 'continues without' not in done.stderr
    return (workdir / f'{sink}.id').read_text().strip()


@pytest.mark.slow
def test_weights_and_biases(tmp_path):
    workdir = tmp_path / 'study' / 'cells' / 'a'
    identity = shown('wandb', workdir, WANDB_MODE='offline')
    records = b''.join(file.read_bytes() for file in sorted(workdir.glob(f'wandb/offline-run-*/run-{identity}.wandb')))
    for words in (b'loss', b'0.16666666666666666', b'extrapolation/exact_match', b'model.position', b'study'):
        assert words in records


@pytest.mark.slow
def test_mlflow(tmp_path):
    store = tmp_path / 'store'
    variables = {'MLFLOW_TRACKING_URI': store.as_uri(), 'MLFLOW_ALLOW_FILE_STORE': 'true'}
    identity = shown('mlflow', tmp_path / 'study' / 'cells' / 'a', **variables)
    (path,) = store.glob(f'*/{identity}')
    text = (path / 'metrics' / 'loss' / 'seed_7').read_text()
    assert [float(line.split()[1]) for line in text.splitlines()] == [1 / 2, 1 / 4, 1 / 6, 1 / 6, 1 / 8, 1 / 10]
    text = (path / 'metrics' / 'extrapolation' / 'accuracy' / 'seed_0').read_text()
    assert [line.split()[1:] for line in text.splitlines()] == [['0.5', '40']] * 2
    assert (path / 'params' / 'model.position').read_text() == 'rope'
    assert (path / 'tags' / 'sweep').read_text() == 'study'
    assert 'status: 3\n' in (path / 'meta.yaml').read_text()  # finished
