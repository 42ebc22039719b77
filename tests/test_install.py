"""The package as others install it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_of_any_checkout_works_elsewhere(tmp_path):
    """Built beside a folder of runs, it holds the package alone, with the report's template, and runs from anywhere."""
    checkout, wheels, site = tmp_path / 'checkout', tmp_path / 'wheels', tmp_path / 'site'
    leave_out = shutil.ignore_patterns('.git', '.venv', '__pycache__', 'runs')
    shutil.copytree(ROOT, checkout, ignore=leave_out)
    (checkout / 'runs' / 'a').mkdir(parents=True)
    (checkout / 'runs' / 'a' / 'config.json').write_text('{}')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--wheel-dir', wheels, checkout], check=True, cwd=tmp_path)
    (wheel,) = wheels.iterdir()
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.split('/')[0] for name in files} == {'mha', f'{wheel.name.rsplit("-", 3)[0]}.dist-info'}
    assert 'mha/views/report/templates/report.html' in files
    metadata = zipfile.ZipFile(wheel).read(next(name for name in files if name.endswith('METADATA'))).decode()
    for wanted in ('Requires-Dist: jax', 'Requires-Python: >=3.11', 'Provides-Extra: dev', 'Provides-Extra: peers'):
        assert wanted in metadata
    subprocess.run([*pip, 'install', '--no-deps', '--target', site, wheel], check=True)
    environ = {**os.environ, 'PYTHONPATH': str(site), 'JAX_PLATFORMS': 'cpu', 'MHA_CACHE': str(tmp_path / 'cache')}
    run = ROOT / 'tests' / 'runs' / 'alibi'
    code = f'import mha; print(mha.__file__); print(mha.load({str(run)!r}).variant(lengths="4", examples=8).evaluate())'
    for command in (['-c', code], ['-m', 'mha.positions', 'rope']):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(site) in done.stdout or 'rope' in done.stdout
