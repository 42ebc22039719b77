"""The memory that a run announces before its first step, against the peak that the operating system counts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='sizes of a process are read as on Linux')
@pytest.mark.parametrize(
    'changes',
    [
        {'model.core': 'dense', 'train.lengths': '256', 'model.layers': 2},
        {'model.core': 'dense', 'train.lengths': '1-300', 'train.batch_size': 64},
        {'model.core': 'blockwise', 'train.lengths': '400', 'model.layers': 2},
        {'model.core': 'dense', 'train.lengths': '256', 'train.microbatches': 4},
        {'model.core': 'dense', 'train.lengths': '200', 'model.remat': True},
        {'train.lengths': '20', 'model.dim': 1024},
        {'train.lengths': '40', 'config.population.seed': '(0,1,2)', 'train.members': 'together'},
    ],
    ids=str,
)
def test_announced_memory(changes, tmp_path):
    settings = {'train.steps': 2, 'train.buckets': 1, 'eval.lengths': 8, 'eval.examples': 2, **changes}
    arguments = [
        f'--{name if name.startswith("config.") else f"config.{name}"}={each}' for name, each in settings.items()
    ]
    command = [sys.executable, 'train.py', '--config=configs/common.py', f'--workdir={tmp_path / "run"}', *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output
    size, unit = re.search(r'memory: about ([\d.,]+) ([GM]B),', output).groups()
    announced, peak = float(size.replace(',', '')) * {'GB': 1e9, 'MB': 1e6}[unit], usage.ru_maxrss * 1024
    print(f'{changes}: announced {announced / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, ratio {announced / peak:.2f}')
    assert 0.7 <= announced / peak <= 1.3
