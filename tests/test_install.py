"""The package as others install it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import mha

ROOT = Path(__file__).parent.parent
STRAYS = ('runs/a/config.json', 'build/lib/mha/gone.py', 'notes.txt', 'scratch.py')
USE = """
import mha
from flax import nnx
from mha.views.report import published
dims = mha.positions.Dims(dim=32, heads=4, head_dim=8, max_len=16)
assert mha.positions.make('randomize(max_position=64)|rope', dims, rngs=nnx.Rngs(0)).extent(16) == 64
assert mha.load('run').variant(lengths='4', examples=8).evaluate()
print(published.load('chi2022').year, mha.__file__)
"""


def built(checkout, target):
    """Paths of the wheel and the sdist of a checkout."""
    subprocess.run([sys.executable, '-m', 'hatchling', 'build', '-d', target], check=True, cwd=checkout)
    return next(target.glob('*.whl')), next(target.glob('*.tar.gz'))


def tracked():
    """Files of this checkout that belong to the project, committed or not."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a git checkout')
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """Wheel and sdist, built beside runs, notes and what an earlier build has left."""
    checkout, target = tmp_path_factory.mktemp('checkout') / 'mha', tmp_path_factory.mktemp('dist')
    left_out = {'.git', '.venv', '__pycache__'}
    shutil.copytree(ROOT, checkout, ignore=lambda at, _: left_out | ({'runs'} if Path(at) == ROOT else set()))
    for stray in map(checkout.joinpath, STRAYS):
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text('')
    return built(checkout, target)


@pytest.mark.slow
def test_the_sdist_holds_the_files_of_the_project_alone(distributions):
    with tarfile.open(distributions[1]) as file:
        names = {name.partition('/')[2] for name in file.getnames()}
    assert names == tracked() | {'PKG-INFO'}


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone_with_its_templates_and_tables(distributions):
    wheel = zipfile.ZipFile(distributions[0])
    package = {name for name in wheel.namelist() if not name.startswith(f'mha-{mha.__version__}.dist-info/')}
    assert package == {name for name in tracked() if name.startswith('mha/')}
    assert {'mha/views/report/templates/chart.js', 'mha/views/report/published/ruoss2023.csv'} <= package
    metadata = wheel.read(f'mha-{mha.__version__}.dist-info/METADATA').decode()
    wanted = ('Requires-Dist: jax', 'Requires-Python: >=3.11', 'Provides-Extra: dev', 'Provides-Extra: peers')
    for line in (f'Version: {mha.__version__}', 'License-Expression: Apache-2.0', *wanted):
        assert line in metadata


@pytest.mark.slow
def test_a_wheel_of_the_sdist_is_the_same(distributions, tmp_path):
    with tarfile.open(distributions[1]) as file:
        file.extractall(tmp_path, filter='data')
    wheel, _ = built(tmp_path / f'mha-{mha.__version__}', tmp_path / 'dist')
    assert wheel.read_bytes() == distributions[0].read_bytes()


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(distributions, tmp_path):
    """In a fresh environment, which has the dependencies of this one, and a folder with a run."""
    environment, folder = tmp_path / 'environment', tmp_path / 'folder'
    venv.create(environment)
    python = environment / 'bin' / 'python'
    (site,) = environment.glob('lib/python*/site-packages')
    (site / 'dependencies.pth').write_text(sysconfig.get_paths()['purelib'])
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', '--python', python]
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', distributions[0]], check=True)
    shutil.copytree(ROOT / 'tests' / 'runs' / 'alibi', folder / 'run')
    environ = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'MHA_CACHE': str(tmp_path / 'cache')}
    for command, code, words in (
        (['-c', USE], 0, f'2022 {site}'),
        (['-m', 'mha.positions', 'rope'], 0, 'Rotary position embedding'),
        (['-m', 'mha.tasks', '--docs'], 2, 'checkout'),
    ):
        done = subprocess.run([python, *command], cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert words in done.stdout + done.stderr
