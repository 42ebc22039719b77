"""Processes that end at random moments, by SIGKILL, SIGTERM or SIGINT. The same command, run again, comes to the
results of an undisturbed one, bit for bit.

    MHA_KILLS=60 pytest -m slow -s tests/faults/test_kills.py    # a fifth of the default number, and time"""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import time

import pytest

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get('MHA_KILLS', 300))
SHARES = {'train': 0.25, 'eval': 0.2, 'compare': 0.2, 'sweep': 0.1, 'prepare': 0.25}
"""Shares of the scripts, and of the preparation of a corpus, in the kills."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CONFIG = """
from configs import common

def get_config():
    config = common.get_config()
    config.model.update(dict(layers=2, dim=16, heads=2))
    config.train.update(dict(steps=2000, batch_size=8, lengths='1-4', buckets=1))
    config.train.update(dict(log_every_steps=50, checkpoint_every_steps=250))
    config.eval.update(dict(lengths='2,4,8', examples=8, buckets=1, every_steps=500))
    return config

def sweep():
    yield {'seed': 0}
    yield {'seed': 1}
"""
PREPARE = """
import os, sys
from mha import cli, datasets
os.environ['MHA_CACHE'] = os.path.join(sys.argv.pop(), 'cache')
cli.run(lambda: datasets.labelled('{data}'))
"""
ROWS = 20_000


def results(run):
    """What a run has to show, without times."""
    lines = map(json.loads, (run / 'metrics.jsonl').read_text().splitlines())
    return {
        'metrics': [{name: value for name, value in line.items() if name != 'steps_per_second'} for line in lines],
        'checksums': (run / 'checkpoints' / '2000' / 'checksums' / 'metadata').read_text(),
        **{name: (run / name).read_text() for name in ('extrapolation.csv', 'evaluations.csv')},
    }


def outcome(path):
    """Results of whatever a command has made in a directory."""
    return {
        str(file.relative_to(path)): results(file.parent) if file.name == 'config.json' else file.read_text()
        for name in ('config.json', 'evaluation_*.csv', 'table.csv')
        for file in sorted(path.rglob(name))
    } | {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (path / 'cache').rglob('*')
        if file.is_file()
    }


def done(path, expected):
    """Whether a command has made in a directory what is expected."""
    try:
        return outcome(path) == expected
    except OSError:
        return False


def different(one, other):
    """Keys of two nested dictionaries whose values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return {key: different(one.get(key), other.get(key)) for key in keys}
    return str(one)[:300], str(other)[:300]


@pytest.fixture(scope='module')
def commands(script, tmp_path_factory):
    """The command of each script in a directory, and what that holds before."""
    folder = tmp_path_factory.mktemp('kills')
    config, run, nothing = folder / 'tiny.py', folder / 'run', folder / 'nothing'
    config.write_text(CONFIG)
    data, prepare = folder / 'rows.csv', folder / 'prepare.py'
    data.write_text('text,label\n' + ''.join(f'text {i},{i % 7}\n' for i in range(ROWS)))
    prepare.write_text(PREPARE.format(data=data))
    nothing.mkdir()
    script('train.py', f'--config={config}', f'--workdir={run}')
    return {
        'train': (nothing, lambda path: ['train.py', f'--config={config}', f'--workdir={path}']),
        'sweep': (nothing, lambda path: ['sweep.py', f'--config={config}', f'--workdir={path}', '--jobs=2']),
        'eval': (run, lambda path: ['eval.py', f'--workdir={path}', '--lengths=2,4,6', '--examples=64']),
        'compare': (run, lambda path: ['compare.py', path]),
        'prepare': (nothing, lambda path: [prepare, path]),
    }


@pytest.mark.parametrize('name', SHARES)
def test_kills_at_random_moments_change_nothing(name, commands, script, tmp_path, capsys):
    """A signal other than SIGKILL also ends a process within ten seconds, with its code."""
    before, command = commands[name]
    rng, kills, losses, slowest = random.Random(name), 0, [], 0.0
    shutil.copytree(before, tmp_path / 'whole')
    began = time.monotonic()
    script(*command(tmp_path / 'whole'))
    lasts, expected = time.monotonic() - began, outcome(tmp_path / 'whole')
    for attempt in itertools.count():
        if kills >= KILLS * SHARES[name]:
            break
        torn = tmp_path / f'torn{attempt}'
        shutil.copytree(before, torn)
        for _ in range(8):  # up to eight times on the way to one result
            number = rng.choice(SIGNALS)
            began, wait = time.monotonic(), rng.uniform(0.05, 0.6 * lasts)
            ended = script(*command(torn), after=(wait, number))
            if ended.code == 0:
                break  # it was faster
            kills, slowest = kills + 1, max(slowest, time.monotonic() - began - wait)
            if number != signal.SIGKILL and ended.code == -number and done(torn, expected):
                break  # Python was ending, and handled no signals any more
            if ended.code != (-number if number == signal.SIGKILL else 128 + number) or 'Traceback' in ended.stderr:
                losses.append((number.name, wait, ended.code, ended.stderr[-500:]))
        script(*command(torn))
        if (found := outcome(torn)) != expected:
            losses.append((torn.name, different(expected, found)))
    with capsys.disabled():
        print(f'\n{name}.py: {kills} kills, {len(losses)} losses; it ended at most {slowest:.1f} s after a signal')
    assert not losses
    assert slowest < 10
