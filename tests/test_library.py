"""The front door, and every line of docs/library.md."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mha

ROOT = Path(__file__).parent.parent


def test_library_page(tmp_path, monkeypatch):
    """The run that the page trains from the command line is one that an earlier version has trained."""
    shutil.copytree(ROOT / 'tests' / 'runs' / 'alibi', tmp_path / 'runs' / 'alibi')
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'library.md').read_text(), re.DOTALL)
    assert len(blocks) >= 6
    names = {}
    for block in blocks:
        exec(compile(block, 'docs/library.md', 'exec'), names)


def test_every_name_of_the_front_door():
    for name in mha.__all__:
        assert getattr(mha, name) is not None
        assert name in dir(mha)
    with pytest.raises(AttributeError, match='no attribute'):
        mha.missing  # noqa: B018


def test_importing_the_package_loads_no_jax():
    code = 'import sys, mha; mha.__all__; sys.exit("jax" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
