"""Long runs: memory and files stay bounded over ten hours' worth of records and checkpoints, and over 1,000 resumes,
whose result is that of an undisturbed run, bit for bit.

    MHA_CHUNKS=2000 MHA_RESUMES=100 pytest -m slow -s tests/faults/test_endurance.py    # a tenth of it, and of the time
"""

import collections
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CHUNKS = int(os.environ.get('MHA_CHUNKS', 20_000))
"""Records of a run of ten hours: configs/quickstart.py trains 50 steps per second on a core, and records every 100th.
Here, each step is recorded."""
RESUMES = int(os.environ.get('MHA_RESUMES', 1000))
GROWTH, PER_CHECKPOINT = 8, 0.06
"""Megabytes by which the memory of a process may grow after the first quarter of a run, and for each checkpoint: of
each, tensorstore keeps some 20 to 40 kB."""
SAVED = 20
"""Steps from one checkpoint to the next."""
ROW = 200
"""Bytes of a record in `metrics.jsonl`."""
CONFIG = """
from configs import common

def get_config():
    config = common.get_config()
    config.model.update(dict(layers=1, dim=8, heads=1))
    config.train.update(dict(steps={steps}, batch_size=8, lengths='1-4', buckets=1, log_every_steps=1))
    config.train.checkpoint_every_steps = {checkpoint_every}
    config.eval.update(dict(lengths='2,4,8', examples=8, buckets=1, every_steps={evaluate_every}))
    return config
"""


def start(environ, *command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**environ, 'PYTHONPATH': str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def files(directory):
    """Paths of all files below a directory."""
    return [path.relative_to(directory) for path in directory.rglob('*') if path.is_file()]


def sample(pid, directory):
    """Records of a run so far, and what its process and its directory hold: megabytes, threads, open files, files."""
    process = Path(f'/proc/{pid}')
    memory = next(line for line in (process / 'status').read_text().splitlines() if line.startswith('RssAnon'))
    return {
        'records': (directory / 'metrics.jsonl').read_bytes().count(b'\n'),
        'memory': int(memory.split()[1]) / 1024,
        'threads': len(os.listdir(process / 'task')),
        'open': len(os.listdir(process / 'fd')),
        'files': len(files(directory)),
        'checkpoints': len(os.listdir(directory / 'checkpoints')),
    }


@pytest.mark.skipif(sys.platform != 'linux', reason='memory of another process is read from /proc')
def test_a_long_run_holds_memory_and_files_bounded(environ, tmp_path, capsys):
    config, run, samples = tmp_path / 'long.py', tmp_path / 'run', []
    config.write_text(CONFIG.format(steps=CHUNKS, checkpoint_every=SAVED, evaluate_every=1000))
    process = start(environ, 'train.py', f'--config={config}', f'--workdir={run}')
    while process.poll() is None:
        time.sleep(0.5)
        try:
            samples.append(sample(process.pid, run))
        except (OSError, StopIteration):  # it has not begun, has ended, or renames a file
            continue
    assert process.returncode == 0
    warm = [each for each in samples if each['records'] > CHUNKS / 4]
    early, late = (max(each['memory'] for each in part) for part in (warm[: len(warm) // 3], warm[-len(warm) // 3 :]))
    most = {name: max(each[name] for each in warm) for name in warm[0]}
    size = (run / 'metrics.jsonl').stat().st_size
    with capsys.disabled():
        print(
            f'\n{CHUNKS:,} records, {CHUNKS // SAVED:,} checkpoints, {CHUNKS // 1000} evaluations: '
            f'{early:.0f} MB, then {late:.0f} MB; at most {most["threads"]} threads, {most["open"]} open files, '
            f'{most["files"]} files, {most["checkpoints"]} checkpoints; {size / CHUNKS:.0f} bytes per record'
        )
    assert len(warm) >= 10
    assert late < early + GROWTH + PER_CHECKPOINT * 0.75 * CHUNKS / SAVED
    assert most['threads'] < 80
    assert most['open'] < 80
    assert most['checkpoints'] <= 4  # two, one that is being written, one that is being removed
    assert most['files'] < 120
    assert size < ROW * CHUNKS
    assert sorted(path.name for path in (run / 'checkpoints').iterdir()) == [f'{CHUNKS - SAVED}', f'{CHUNKS}']


def results(run):
    """What a run has to show, without times."""
    lines = map(json.loads, (run / 'metrics.jsonl').read_text().splitlines())
    return {
        'metrics': [{name: value for name, value in line.items() if name != 'steps_per_second'} for line in lines],
        'checksums': [path.read_text() for path in sorted(run.glob('checkpoints/*/checksums/metadata'))],
        **{name: (run / name).read_text() for name in ('extrapolation.csv', 'evaluations.csv', 'config.json')},
    }


def test_many_resumes_change_nothing(environ, tmp_path, capsys):
    config, whole, pieces = tmp_path / 'short.py', tmp_path / 'whole', tmp_path / 'pieces'
    config.write_text(CONFIG.format(steps=RESUMES + 1, checkpoint_every=1, evaluate_every=100))
    assert start(environ, 'train.py', f'--config={config}', f'--workdir={whole}').wait() == 0
    process = start(environ, Path(__file__).with_name('resumes.py'), config, pieces)
    printed, _ = process.communicate()
    assert process.returncode == 0
    resumes = int(printed.splitlines()[-1])
    counts = [collections.Counter(path.parts[0] for path in files(run)) for run in (pieces, whole)]
    with capsys.disabled():
        print(f'\n{resumes:,} resumes of one run: {counts[0].total()} files, {counts[1].total()} without resumes')
    for count in counts:
        del count['changes.patch']  # there if the code has changed since its last commit
    assert resumes >= RESUMES
    assert results(pieces) == results(whole)
    assert counts[0].pop('tensorboard') == 2  # one file has the events of all processes before
    assert counts[1].pop('tensorboard') == 1
    assert counts[0].pop('checkpoints') < counts[1].pop('checkpoints') + 10  # the parts of a checkpoint vary
    assert counts[0] == counts[1]
