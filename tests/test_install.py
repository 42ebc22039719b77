"""The package as others install it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mha

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_of_any_checkout_works_elsewhere(tmp_path):
    """Built beside runs and what an earlier build has left, it holds the package alone, with the report's template and
    the published tables, and runs from anywhere."""
    checkout, wheels, site = tmp_path / 'checkout', tmp_path / 'wheels', tmp_path / 'site'
    leave_out = shutil.ignore_patterns('.git', '.venv', '__pycache__', 'runs')
    shutil.copytree(ROOT, checkout, ignore=leave_out)
    (checkout / 'runs' / 'a').mkdir(parents=True)
    (checkout / 'runs' / 'a' / 'config.json').write_text('{}')
    (checkout / 'build' / 'lib' / 'mha').mkdir(parents=True)
    (checkout / 'build' / 'lib' / 'mha' / 'gone.py').write_text('')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--wheel-dir', wheels, checkout], check=True, cwd=tmp_path)
    (wheel,) = wheels.iterdir()
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.split('/')[0] for name in files} == {'mha', f'{wheel.name.rsplit("-", 3)[0]}.dist-info'}
    kinds = ('.py', '.html', '.css', '.js', '.csv', '.json')
    package = {str(path.relative_to(ROOT)) for path in (ROOT / 'mha').rglob('*') if path.suffix in kinds}
    assert {name for name in files if name.startswith('mha/')} == package
    assert {'mha/views/report/templates/chart.js', 'mha/views/report/published/ruoss2023.csv'} <= package
    metadata = zipfile.ZipFile(wheel).read(next(name for name in files if name.endswith('METADATA'))).decode()
    wanted = ('Requires-Dist: jax', 'Requires-Python: >=3.11', 'Provides-Extra: dev', 'Provides-Extra: peers')
    for line in (f'Version: {mha.__version__}', *wanted):
        assert line in metadata
    subprocess.run([*pip, 'install', '--no-deps', '--target', site, wheel], check=True)
    environ = {**os.environ, 'PYTHONPATH': str(site), 'JAX_PLATFORMS': 'cpu', 'MHA_CACHE': str(tmp_path / 'cache')}
    run = ROOT / 'tests' / 'runs' / 'alibi'
    script = f'import mha; print(mha.__file__); mha.load({str(run)!r}).variant(lengths="4", examples=8).evaluate()'
    for command, code, words in (
        (['-c', script], 0, str(site)),
        (['-m', 'mha.positions', 'rope'], 0, 'Rotary position embedding'),
        (['-m', 'mha.tasks', '--docs'], 2, 'checkout'),
        (['-c', 'from mha.views.report import published; print(published.load("chi2022").year)'], 0, '2022'),
    ):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert words in done.stdout + done.stderr
