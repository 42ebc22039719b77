"""The cache of compiled programs."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from mha.machine import cache
from mha.spec import UserError


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(jax.config, 'update', lambda name, value: None)
    monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)  # restored at the end
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    for path, reason in {'file': 'Not a directory', 'file/below': 'Not a directory'}.items():
        monkeypatch.setenv('MHA_CACHE', str(tmp_path / path))
        with pytest.raises(UserError, match=f'cannot write to {tmp_path / path}: {reason} - set MHA_CACHE'):
            cache.keep_programs()
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'new' / 'cache'))
    cache.keep_programs()
    assert (tmp_path / 'new' / 'cache' / 'programs').is_dir()


def test_damaged_programs_are_compiled_again(tmp_path):
    """And replaced, such as one that a killed process has half written. A line says so, once."""
    code = 'from mha.machine import cache; cache.keep_programs(); import jax; print(jax.jit(lambda x: x + 1)(1))'
    environ = os.environ | {'MHA_CACHE': str(tmp_path), 'PYTHONPATH': str(Path(__file__).parents[2])}
    environ.pop('JAX_COMPILATION_CACHE_DIR', None)

    def start():
        return subprocess.run([sys.executable, '-c', code], env=environ, capture_output=True, text=True, check=True)

    start()
    programs = {path: path.read_bytes() for path in (tmp_path / 'programs').iterdir()}
    assert programs
    for path, content in programs.items():
        path.write_bytes(content[: len(content) // 2])
    done = start()
    assert (done.stdout, done.stderr) == (
        '2\n',
        f'note: some programs in {tmp_path}/programs are damaged; they are compiled again\n',
    )
    assert {path: path.read_bytes() for path in (tmp_path / 'programs').iterdir()}.keys() == programs.keys()
    assert start().stderr == ''
