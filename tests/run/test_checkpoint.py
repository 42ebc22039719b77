"""Checkpoints: restored states equal the states at the time of saving."""

import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.run.checkpoint import Checkpoints
from mha.spec import UserError
from mha.training.step import State


def state(value=0.0, size=8):
    params = {'w': [jnp.full((2, size), value), jnp.arange(3.0)]}
    return State(params, (jnp.ones((2,), jnp.int32),), mean=None, step=jnp.int32(7))


def test_round_trip(tmp_path):
    saved = state(0.5)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    checkpoints.save(7, saved)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest() == 7
    for like in (saved, jax.eval_shape(state)):
        jax.tree.map(np.testing.assert_array_equal, again.restore(like), saved)


def test_the_last_two_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(4):
        checkpoints.save(step, state(float(step)))
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['2', '3']


@pytest.mark.parametrize('size', [1, 2**20])
def test_state_may_be_donated_at_once(size, tmp_path):
    """The buffers of a saved state are overwritten while orbax still writes."""
    advance = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    checkpoints, now = Checkpoints(tmp_path), advance(state(0.0, size))
    now = jax.block_until_ready(now)
    compiled = advance.lower(now).compile()
    for step in range(3):
        expected = jax.tree.map(np.array, now)
        checkpoints.save(step, now)
        for _ in range(5):
            now = compiled(now)
        jax.block_until_ready(now)
        checkpoints.manager.wait_until_finished()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(like=now), expected)
    checkpoints.close()


KILLED = """
import os, signal, sys
from pathlib import Path
import jax.numpy as jnp
from mha.run.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {'w': jnp.ones(2**24)})
checkpoints.manager.wait_until_finished()
checkpoints.save(2, {'w': jnp.zeros(2**24)})
while not {path.name for path in Path(sys.argv[1], 'checkpoints').iterdir()} - {'1'}:
    pass  # it begins in a thread
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_save_cut_short_is_ignored(tmp_path):
    done = subprocess.run([sys.executable, '-c', KILLED, tmp_path], capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any('tmp' in path.name for path in (tmp_path / 'checkpoints').iterdir())  # it was writing
    checkpoints, like = Checkpoints(tmp_path), {'w': jax.ShapeDtypeStruct((2**24,), jnp.float32)}
    assert checkpoints.latest() == 1
    assert checkpoints.restore(like)['w'].sum() == 2**24
    checkpoints.save(2, {'w': jnp.zeros(2**24)})
    checkpoints.close()
    assert Checkpoints(tmp_path).latest() == 2


def test_a_damaged_checkpoint_is_named(tmp_path):
    """Without it the run resumes from the one before."""
    checkpoints, like = Checkpoints(tmp_path), {'w': jax.ShapeDtypeStruct((5000,), jnp.float32)}
    for step in (1, 2):
        checkpoints.save(step, {'w': jnp.full(5000, float(step))})
    checkpoints.close()
    damaged = tmp_path / 'checkpoints' / '2'
    largest = max((path for path in damaged.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:20])
    with pytest.raises(UserError, match=f'cannot read {damaged}'):
        Checkpoints(tmp_path).restore(like)
    shutil.rmtree(damaged)
    assert Checkpoints(tmp_path).restore(like)['w'].sum() == 5000
