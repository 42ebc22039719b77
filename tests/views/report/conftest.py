"""Runs made of a few files."""

import csv
import json
import math

import pytest

from mha.spec import lengths
from mha.views.report import runs

LENGTHS = (10, 20, 30, 40, 60, 120)


@pytest.fixture
def make(tmp_path):
    """Writes a run whose accuracy is 1 up to length 20 and `beyond` after; returns its workdir."""

    def make(
        name,
        beyond=0.5,
        status='finished',
        evaluated=LENGTHS,
        examples=64,
        baseline=0.4,
        metric='accuracy',
        **settings,
    ):
        config = {'seed': 0, 'task': 'reverse_string', 'data': {}, 'model': {'position': 'rope', 'causal': False}}
        config |= {'train': {'lengths': '1-20', 'steps': 100, 'batch_size': 8}, 'optimizer': {'learning_rate': 1e-3}}
        config |= {'eval': {'lengths': '10-20:10,30,40,60,120', 'seed': 1}}
        for key, value in settings.items():
            *sections, last = key.split('__')
            inner = config
            for section in sections:
                inner = inner[section]
            inner[last] = value
        folder = tmp_path / 'runs' / name
        folder.mkdir(parents=True)
        (folder / 'config.json').write_text(json.dumps(config))
        trained = [lengths(config['train']['lengths'])[i] for i in (0, -1)]
        summary = {'status': status, 'parameters': 1234, 'trained_lengths': trained, 'metric': metric}
        (folder / 'summary.json').write_text(json.dumps(summary))
        with (folder / 'extrapolation.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(runs.COLUMNS)
            for length in evaluated:
                accuracy = 1.0 if length <= 20 else beyond
                writer.writerow([config['seed'], length, accuracy, 0.25, math.log(2) * length, baseline, examples])
        return folder

    return make
