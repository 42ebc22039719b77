"""Damaged checkpoints: whatever happens to the files of one of them, a restore gives the right arrays or says that
there are none.

    MHA_DAMAGES=5000 pytest -m slow -s tests/faults/test_damage.py    # ten times the default"""

import collections
import gc
import os
import random
import shutil
import sys

import jax
import jax.numpy as jnp
import pytest

from mha.run.checkpoint import Checkpoints, checksums
from mha.spec import UserError

pytestmark = pytest.mark.slow

CASES = int(os.environ.get('MHA_DAMAGES', 520))
STEPS = (1, 2)


def state(step):
    """Small state of a step, with arrays as large as a block of the disk, and small ones."""
    keys = jax.random.split(jax.random.key(step), 3)
    params = {'w': jax.random.normal(keys[0], (40, 30)), 'b': [jax.random.normal(keys[1], (7,)), jnp.zeros((2, 3))]}
    return {'params': params, 'mean': jax.random.normal(keys[2], (40, 30)), 'step': jnp.int32(step)}


def flip(path, rng):
    """Another bit at a random place."""
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def scatter(path, rng):
    """Random bytes in a block."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + 64] = rng.randbytes(len(content[start : start + 64]))
    path.write_bytes(content)


def cut(path, rng):
    """A file without its end."""
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def zero(path, rng):
    """Zeros in place of the content, as after a loss of power."""
    path.write_bytes(bytes(path.stat().st_size))


def remove(path, rng):
    path.unlink()


def remove_folder(path, rng):
    shutil.rmtree(path.parent)


ACTS = [*[flip] * 4, scatter, cut, zero, remove, remove_folder]


def restored(directory):
    """Step of the state that is restored; 'wrong' if an array differs, 'refused' if none can be read."""
    try:
        found = Checkpoints(directory).restore(jax.eval_shape(lambda: state(0)))
    except UserError as error:
        return 'refused' if '\n' not in str(error) else 'told in several lines'
    step = int(found['step'])
    return step if step in STEPS and checksums(found) == checksums(state(step)) else 'wrong'


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / 'whole')
    for step in STEPS:
        checkpoints.save(step, state(step))
    checkpoints.close()
    return tmp_path / 'whole', tmp_path / 'torn'


def test_damaged_checkpoints(saved, capsys, monkeypatch):
    """One of the two, mostly the newest, or both at once. The step of a damaged one can be saved again."""
    whole, torn = saved
    monkeypatch.setattr(sys, 'unraisablehook', lambda *_: None)  # of reads that orbax gives up
    rng, counts, lost = random.Random(0), collections.Counter(), []
    for case in range(CASES):
        shutil.rmtree(torn, ignore_errors=True)
        shutil.copytree(whole, torn)
        steps = rng.choice([['2'], ['2'], ['2'], ['1'], ['1', '2']])
        acts = []
        for step in steps:
            path = rng.choice(sorted(path for path in (torn / 'checkpoints' / step).rglob('*') if path.is_file()))
            acts.append(f'{rng.choice(ACTS).__name__} {path.relative_to(torn)}')
            next(act for act in ACTS if act.__name__ == acts[-1].split()[0])(path, rng)
        result = restored(torn)
        good = {'2': {1, 2}, '1': {2}, '1 2': {1, 2, 'refused'}}[' '.join(steps)]
        if case % 10 == 0 and result in (1, 2):  # training goes on
            checkpoints = Checkpoints(torn)
            checkpoints.restore(jax.eval_shape(lambda: state(0)))
            for step in range(result + 1, 4):
                checkpoints.save(step, state(2) | {'step': jnp.int32(step)})
            checkpoints.close()
            good = good if int(Checkpoints(torn).restore(jax.eval_shape(lambda: state(0)))['step']) == 3 else set()
        counts[' and '.join(steps), result] += 1
        if result not in good:
            lost.append((acts, result))
    told = ', '.join(f'{steps} damaged, {read} read: {count}' for (steps, read), count in counts.items())
    with capsys.disabled():
        print(f'\n{CASES} damages, {len(lost)} losses ({told})')
    gc.collect()
    assert not lost
    assert counts['2', 1] > 0.2 * CASES
