"""Every benchmark runs and prints its table; the numbers in it are not tested."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
QUICK = f'--config={ROOT}/configs/quickstart.py'
COMMANDS = {
    'attention.py': (
        ['--lengths=64', '--rounds=1', '--budget=1', '--contenders=mha dense,mha blockwise'],
        ['mha dense', 'mha blockwise'],
    ),
    'complexity.py': (
        ['--lengths=16,32,64', '--heads=1,2,4', '--widths=16,32,64', '--rounds=1', '--window=8'],
        ['| dense |', '| blockwise, window |', '| linear |'],
    ),
    'data.py': (
        ['--length=16', '--batches=2', '--repeats=1', '--tasks=lm'],
        ['tokens/s read', 'lm'],
    ),
    'decode.py': (['--lengths=4', '--layers=1', '--dim=16', '--heads=2', '--rounds=1'], ['mha, no cache', 'cache /']),
    'population.py': ([QUICK, '--members=2', '--rounds=1', '--steps=1'], ['2 in turn', '2 together']),
    'reliability.py': ([QUICK, '--steps=2', '--rounds=1'], ['with', 'ratio', 'lock', 'checksums']),
    'schemes.py': (['--schemes=rope,t5', '--length=16', '--repeats=1'], ['rope', 't5']),
    'tasks.py': (['--tasks=parity_check,reverse', '--batches=1', '--repeats=1'], ['parity_check', 'reverse']),
    'train_step.py': ([QUICK, '--steps=1'], ['steps/s', 'attention: core', 'optimizer', 'all parts']),
}


def test_every_benchmark_is_here():
    here = {path.name for path in (ROOT / 'benchmarks').glob('*.py')}
    assert here == {*COMMANDS, 'flash_gpu.py'}  # which needs one


@pytest.mark.parametrize('name', COMMANDS)
def test_prints_its_table(name, tmp_path):
    arguments, words = COMMANDS[name]
    done = subprocess.run(
        [sys.executable, str(ROOT / 'benchmarks' / name), *arguments],
        cwd=tmp_path,
        env={**os.environ, 'MHA_CACHE': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in words:
        assert word in done.stdout
