"""Environment variables of other packages: a mistake is one line, whichever package reads it, and whenever."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AT_IMPORT = {
    ('train', 'JAX_NUM_CPU_DEVICES=abc'): 'Invalid value "abc" for JAX flag jax_num_cpu_devices',
    ('train', 'NNX_GRAPH_MODE=maybe'): "invalid truth value 'maybe'",
    ('sweep', 'JAX_DEFAULT_PRNG_IMPL=xyz'): 'Invalid value "xyz"',
    ('eval', 'JAX_ENABLE_X64=maybe'): "invalid truth value 'maybe'",
    ('compare', 'MPLBACKEND=xyz'): "'xyz' is not a valid value for backend",
}
AT_START = {
    'XLA_FLAGS=--xla_nonsense=1': 'Unknown flag in XLA_FLAGS',
    'XLA_FLAGS=nonsense': 'Could not open file "nonsense"',
    'JAX_NUM_CPU_DEVICES=0': 'at least 1',
    'JAX_DISABLE_JIT=true': 'compiled before they run',
    'JAX_PLATFORMS=xyz': "Unable to initialize backend 'xyz'",
    'JAX_COMPILATION_CACHE_DIR=/dev/null/x': 'cannot write to /dev/null/x',
    'MHA_CACHE=/dev/null/x': 'cannot write to /dev/null/x',
    'JAX_PROCESS_ID=7': 'needs JAX_NUM_PROCESSES',
}
if not metadata.entry_points(group='jax_plugins'):  # those of GPUs
    AT_START['JAX_PLATFORMS=cuda'] = 'no such device here'
START = """
from mha import cli
from mha.machine import cache, parallel
import jax
cli.run(lambda: [parallel.start(), cache.keep_programs(), jax.devices()])
"""
"""What train.py does first, without its imports."""
OURS = ('MHA_CACHE', 'JAX_COMPILATION_CACHE_DIR', 'JAX_NUM_CPU_DEVICES')


def few(cases):
    """Cases, of which all but the first two are slow."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=pytest.mark.slow if index > 1 else ()) for index, row in enumerate(rows)]


def refused(variable, *command):
    """The line on stderr of a Python process that refuses an environment variable."""
    environ = {name: value for name, value in os.environ.items() if name not in OURS}
    environ |= [variable.split('=', 1)]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ''
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(('script', 'variable'), few(AT_IMPORT))
def test_a_mistake_that_fails_an_import_is_one_line(script, variable):
    line = refused(variable, f'{script}.py')
    assert line.startswith(f'{script}.py: {variable}: ')
    assert AT_IMPORT[script, variable] in line


@pytest.mark.parametrize('variable', few(AT_START))
def test_a_mistake_that_fails_the_start_is_one_line(variable):
    assert AT_START[variable] in refused(variable, '-c', START)


def test_a_defect_that_fails_an_import_keeps_its_traceback(tmp_path):
    (tmp_path / 'jax.py').write_text('raise ValueError("a defect")')
    environ = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    done = subprocess.run([sys.executable, 'train.py'], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('Traceback')
    assert done.stderr.endswith('ValueError: a defect\n')


def test_an_output_that_cannot_show_a_character_ends_no_run():
    environ = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
    code = 'from mha import cli\ncli.run(lambda: print("±"))'
    done = subprocess.run([sys.executable, '-c', code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == '\\xb1\n'


def test_right_values_are_taken():
    environ = {**os.environ, 'XLA_FLAGS': '--xla_cpu_multi_thread_eigen=false', 'JAX_NUM_CPU_DEVICES': '2'}
    code = 'from mha import cli\nimport jax\ncli.run(lambda: print(jax.device_count()))'
    environ['JAX_PLATFORMS'] = 'cpu'
    done = subprocess.run([sys.executable, '-c', code], env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('2\n', '')
