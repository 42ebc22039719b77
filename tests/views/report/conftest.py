"""Runs made of a few files."""

import csv
import itertools
import json
import math

import numpy as np
import pytest

from mha.spec import lengths
from mha.views.report import plots, runs

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


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without their curves, which take longer than the rest, for tests of where the files go."""
    monkeypatch.setattr(plots, 'figure', lambda comparison: None)
    monkeypatch.setattr(plots, 'as_svg', lambda drawing: '<svg width="1pt" viewBox="0 0 1 1"></svg>')
    monkeypatch.setattr(plots, 'as_pdf', lambda drawing: b'%PDF')


@pytest.fixture
def study(make):
    """Plants runs of all combinations of schemes, tasks, head counts and seeds, with training curves; the first run
    also has accuracies per position. Returns their common directory."""

    def study(schemes, tasks, seeds, heads=(8,), lengths=LENGTHS, records=50):
        rng = np.random.default_rng(0)
        folders = []
        for number, (task, count, scheme, seed) in enumerate(
            itertools.product(tasks, heads, range(len(schemes)), range(seeds))
        ):
            folder = make(
                f'{number}',
                evaluated=lengths,
                task=task,
                model__position=schemes[scheme],
                model__heads=count,
                seed=seed,
            )
            floor, reach = 0.25 + 0.5 * tasks.index(task) / len(tasks), 30 * (scheme + 1) + 3 * count + rng.normal(0, 6)
            with (folder / 'extrapolation.csv').open('w', newline='') as file:
                writer = csv.writer(file)
                writer.writerow(runs.COLUMNS)
                for length in lengths:
                    accuracy = floor - 0.1 + (1.1 - floor) / (1 + math.exp((length - reach) / 12))
                    baseline = floor + 0.05 * length / max(lengths)
                    writer.writerow([seed, length, round(accuracy, 4), 0.25, 2 * length, baseline, 64])
            with (folder / 'metrics.jsonl').open('w') as file:
                for step in range(10, 10 * records + 10, 10):
                    loss = math.exp(-step / (300 + 100 * scheme)) * 2 + rng.exponential(0.05)
                    file.write(
                        json.dumps({'step': step, 'loss': loss, 'accuracy': math.exp(-loss), 'length': 9.0}) + '\n'
                    )
            folders.append(folder)
        lines = ['seed,length,position,accuracy,count,low,high']
        for length in (20, 60, 120):
            lines += [f'0,{length},{at},{max(0, 1 - at / 90):.3f},64,0,1' for at in range(1, length + 1)]
        (folders[0] / 'evaluation_20_60_120_64-examples_positions.csv').write_text('\n'.join(lines) + '\n')
        return folders[0].parent

    return study
