"""Checkpoints: restored states equal the states at the time of saving."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.run.checkpoint import Checkpoints, checksums
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


def spoil(path):
    """Cuts the files of a checkpoint's arrays."""
    for file in (path / 'default').rglob('*'):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])


def two(tmp_path):
    """Checkpoints of steps 1 and 2, and the shapes in them."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {'w': jnp.full(5000, float(step))})
    checkpoints.close()
    return tmp_path / 'checkpoints', {'w': jax.ShapeDtypeStruct((5000,), jnp.float32)}


def test_instead_of_a_damaged_checkpoint_the_one_before_is_read(tmp_path, capsys):
    """And its step can be saved again; what is damaged stays, under another name."""
    directory, like = two(tmp_path)
    spoil(directory / '2')
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(like)['w'].sum() == 5000
    told = capsys.readouterr().err
    assert told.startswith(f'note: {directory}/2 is damaged (')
    assert told.endswith('); step 1 is used\n')
    assert told.count('\n') == 1
    checkpoints.save(2, {'w': jnp.full(5000, 3.0)})
    checkpoints.close()
    assert {path.name for path in directory.iterdir()} == {'1', '2', 'damaged-2'}
    assert Checkpoints(tmp_path).restore(like)['w'].sum() == 15000


def test_checkpoints_that_are_all_damaged(tmp_path):
    directory, like = two(tmp_path)
    for step in '12':
        spoil(directory / step)
    with pytest.raises(UserError, match=f'cannot read {directory}/2 .*; {directory}/1 '):
        Checkpoints(tmp_path).restore(like)


def test_arrays_are_compared_with_their_checksums(tmp_path, capsys):
    """As if the disk had changed a number without an error. Earlier versions wrote no checksums."""
    directory, like = two(tmp_path)
    file = directory / '2' / 'checksums' / 'metadata'
    assert json.loads(file.read_text()) == {"['w']": zlib.crc32(np.full(5000, 2, np.float32))}
    file.write_text('{"[\'w\']": 7}')
    assert Checkpoints(tmp_path).restore(like)['w'][0] == 1
    assert "2 is damaged (['w'] differs from its checksum); step 1 is used" in capsys.readouterr().err
    shutil.rmtree(file.parent)
    assert Checkpoints(tmp_path).restore(like)['w'][0] == 2


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.bool, jnp.int8])
def test_checksums_of_all_types(dtype):
    one = checksums({'a': jnp.ones((2, 3), dtype), 'b': jnp.zeros((), dtype), 'c': jnp.zeros((0,), dtype)})
    tree = {'a': jnp.ones((2, 3), dtype).at[1, 2].set(0), 'b': jnp.zeros((), dtype), 'c': jnp.zeros((0,), dtype)}
    other = checksums(tree)
    assert [name for name in one if one[name] != other[name]] == ["['a']"]


def test_a_disk_that_is_full(tmp_path):
    """One line, and no half checkpoint."""
    checkpoints, like = Checkpoints(tmp_path), {'w': jax.ShapeDtypeStruct((2**20,), jnp.float32)}
    checkpoints.save(1, {'w': jnp.ones(2**20)})
    checkpoints.close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, before[1]))
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(2, {'w': jax.random.normal(jax.random.key(0), 2**20)})  # in the background
        with pytest.raises(UserError, match=r'cannot write to .*checkpoints \(.*make room for it') as error:
            checkpoints.close()
        assert '\n' not in str(error.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['1']
    assert Checkpoints(tmp_path).restore(like)['w'].sum() == 2**20
