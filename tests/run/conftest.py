"""Sweeps of three small cells."""

import json

import pytest

CONFIG = """
from configs import common, sweeps

def get_config():
    config = common.get_config()
    config.model.update(dict(layers=1, dim=16, heads=2, dropout_rate=0.0))
    config.train.update(dict(steps=STEPS, batch_size=4, lengths='1-4', buckets=1))
    config.train.update(dict(log_every_steps=50, checkpoint_every_steps=50))
    config.eval.update(dict(lengths='2,4,8', examples=8, buckets=1))
    return config

def sweep():
    return sweeps.over('seed', range(3))
"""


@pytest.fixture
def small_sweep(tmp_path):
    """`small_sweep(steps)` is a config file whose sweep has three cells of so many steps."""

    def write(steps):
        config = tmp_path / f'config{steps}.py'
        config.write_text(CONFIG.replace('STEPS', str(steps)))
        return config

    return write


@pytest.fixture
def steps():
    """`steps(sweep, cell)` are the logged steps of a cell."""

    def read(sweep, cell):
        lines = (sweep / 'cells' / cell / 'metrics.jsonl').read_text().splitlines()
        return [json.loads(line)['step'] for line in lines]

    return read


@pytest.fixture
def curves():
    """`curves(sweep)` are the results of all cells."""
    return lambda sweep: {path.parent.name: path.read_text() for path in sweep.glob('cells/*/extrapolation.csv')}
