"""The front door, and every line of docs/library.md."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import mha
from mha.spec import UserError

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize('document', ['README.md', 'docs/library.md'])
def test_python_of_the_documents_runs(document, tmp_path, monkeypatch):
    """In place of the runs that the documents train stands a small stored one, which has no parameters of positions
    either and can pass for theirs."""
    for name in ('a', 'quickstart/cells/position=rope,seed=0'):
        workdir = tmp_path / 'runs' / name
        shutil.copytree(ROOT / 'tests' / 'runs' / 'alibi', workdir)
        config = json.loads((workdir / 'config.json').read_text())
        config['model']['position'] = 'rope'
        (workdir / 'config.json').write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / document).read_text(), re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line]) <= 10, 'from an import to attention weights'
    names = {}
    for block in blocks:
        exec(compile(block, document, 'exec'), names)


def test_every_name_of_the_front_door():
    for name in mha.__all__:
        assert getattr(mha, name) is not None
        assert name in dir(mha)
    with pytest.raises(AttributeError, match='no attribute'):
        mha.missing  # noqa: B018


DIMS = mha.positions.Dims(dim=8, heads=2, head_dim=4, max_len=16)
QUERIES = np.ones((1, 3, 2, 4), np.float32)
WRONG = {
    'examples 0': (lambda run: run.variant(examples=0), 'variant: examples must be at least 1, not 0'),
    'examples 2.5': (lambda run: run.variant(examples=2.5), 'examples must be a whole number or None, not 2.5'),
    'examples True': (lambda run: run.variant(examples=True), 'not True'),
    'one length': (lambda run: run.variant(lengths=5), 'lengths must be a string or an Iterable or None, not 5'),
    'no length': (lambda run: run.variant(lengths=[]), "cannot read lengths ''"),
    'no position': (lambda run: run.variant(position=''), "cannot read ''"),
    'position 5': (lambda run: run.variant(position=5), 'position must be a string or None, not 5'),
    'tasks': (lambda run: run.variant(task=['parity']), "task must be a string or None, not ['parity']"),
    'member': (lambda run: mha.load(run.directory, member='0'), "load: member must be a whole number, not '0'"),
    'directory': (lambda run: mha.load(None), 'load: directory must be a string or a Path, not None'),
    'scheme': (
        lambda run: mha.positions.make(None, DIMS, rngs=nnx.Rngs(0)),
        'a string, not None',
    ),
    'rngs': (lambda run: mha.positions.make('rope', DIMS, rngs=0), 'rngs must be a Rngs, not 0'),
    'dims': (lambda run: mha.positions.make('rope', (8, 2, 4), rngs=nnx.Rngs(0)), 'dims must be a Dims'),
    'heads': (
        lambda run: mha.positions.Dims(dim=8, heads=0, head_dim=4, max_len=16),
        'Dims: heads must be at least 1, not 0',
    ),
    'task': (lambda run: mha.tasks.make(5), 'make: text must be a string, not 5'),
    'core': (lambda run: mha.cores.make(None), 'make: core must be a string or a Core, not None'),
    'batch': (lambda run: run.task.batch(jax.random.key(0), -1, 3, 3), 'batch: batch_size must be at least 1, not -1'),
    'length': (lambda run: run.task.batch(jax.random.key(0), 2, 4, 3), 'length=4 must be at most max_length=3'),
    'window': (lambda run: mha.masks.window(2.5), 'window: left must be a whole number, not 2.5'),
    'stride': (lambda run: mha.masks.strided(0), 'strided: stride must be at least 1, not 0'),
    'prefix': (lambda run: mha.masks.prefix(-1), 'prefix: length must be at least 0, not -1'),
    'position': (lambda run: mha.attend(*[QUERIES] * 3, position=5), 'position must be a Position or a string or None'),
    'layer': (lambda run: mha.MultiHeadAttention(0, 8, rngs=nnx.Rngs(0)), 'num_heads must be at least 1, not 0'),
    'width': (lambda run: mha.MultiHeadAttention(3, 8, rngs=nnx.Rngs(0)), '3 heads do not divide the width 8'),
    'classes': (
        lambda run: mha.Encoder(vocab_size=4, num_classes=None, max_len=8, rngs=nnx.Rngs(0)),
        'Encoder: num_classes must be a whole number, not None',
    ),
}


@pytest.fixture(scope='module')
def run():
    return mha.load(ROOT / 'tests' / 'runs' / 'alibi')


@pytest.mark.parametrize('name', WRONG)
def test_wrong_arguments_are_told_in_one_line(name, run):
    call, words = WRONG[name]
    with pytest.raises(UserError) as error:
        call(run)
    assert words in str(error.value)
    assert '\n' not in str(error.value)


def test_importing_the_package_loads_no_jax():
    code = 'import sys, mha; mha.__all__; sys.exit("jax" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
