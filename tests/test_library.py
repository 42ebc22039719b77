"""The front door, and every line of docs/library.md."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mha

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


def test_importing_the_package_loads_no_jax():
    code = 'import sys, mha; mha.__all__; sys.exit("jax" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
