"""How the scripts end; what they refuse is in tests/test_scripts.py."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mha import cli


def test_a_device_without_enough_memory_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: jnp.zeros(2**52).block_until_ready())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith('train.py: out of memory')
    assert 'choose smaller batches' in said
    assert said.count('\n') == 1


def test_other_failures_of_a_program_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py'])

    def main():
        raise jax.errors.JaxRuntimeError('INTERNAL: a defect')

    with pytest.raises(jax.errors.JaxRuntimeError):
        cli.run(main)


BUSY = """
import threading, time
from mha import cli
def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise KeyboardInterrupt
cli.run(main)
"""


def test_an_interrupt_waits_for_no_thread():
    done = subprocess.run([sys.executable, '-c', BUSY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130
    assert 'interrupted - the same command resumes' in done.stderr
