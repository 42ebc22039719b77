"""The record of a run's training, and who writes it."""

import json
import time

import pytest

from mha.machine import parallel
from mha.run.log import Metrics, last_step


def log(workdir, steps, after=0):
    metrics = Metrics(workdir, after)
    for step in steps:
        metrics.write(step, {'loss': step / 2}, {'seed': 7.0})
    metrics.close()


def record(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_what_was_logged_after_the_checkpoint_is_dropped(tmp_path):
    assert last_step(tmp_path) == 0
    log(tmp_path, (4, 8, 12))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 16, "lo')  # a crash in the middle of a line
    assert last_step(tmp_path) == 12
    log(tmp_path, (10,), after=8)
    assert record(tmp_path) == [{'step': step, 'seed': 7, 'loss': step / 2} for step in (4, 8, 10)]
    assert list((tmp_path / 'tensorboard').iterdir())


def test_events_are_soon_on_disk(tmp_path):
    """A run may be killed at any time. What is not finite has no place in a picture."""
    metrics = Metrics(tmp_path, 0)
    (events,) = (tmp_path / 'tensorboard').iterdir()
    for step in range(2):
        metrics.write(step, {'loss': 1.0})
        began = time.monotonic()
        while events.read_bytes().count(b'loss') <= step:
            assert time.monotonic() - began < 60
            time.sleep(0.05)
    metrics.write(2, {'loss': float('nan')})
    metrics.close()
    assert events.read_bytes().count(b'loss') == 2
    assert len(record(tmp_path)) == 3


@pytest.mark.parametrize('begun', [False, True])
def test_of_several_processes_the_first_alone_writes(tmp_path, monkeypatch, begun):
    if begun:
        log(tmp_path, (4, 8))
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    monkeypatch.setattr(parallel, 'first', lambda: False)
    log(tmp_path, (8, 12), after=4)
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 2 * begun
