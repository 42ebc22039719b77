"""Set-up of every test, before `mha` is imported: shapes in signatures are checked, and programs compile fast.

`JAX_PLATFORMS=cuda pytest` runs the same tests on an accelerator.
"""

import contextlib
import ctypes
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile thousands of small programs and run each a few times: this compiles ten times as fast.
FLAGS = '--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0'
if metadata.version('jaxlib') < '0.11':  # later ones may not know the flags, and end the process
    FLAGS += ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
os.environ.setdefault('XLA_FLAGS', FLAGS)
# Half of the time of a small program is its compilation: workers share programs, and so do suites that set a directory.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    programs = tempfile.TemporaryDirectory(prefix='programs-')  # removed when the first process ends
    os.environ['JAX_COMPILATION_CACHE_DIR'] = programs.name
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import jaxtyping  # noqa: E402
from jaxtyping import _decorator  # noqa: E402


def keeping(function):
    """`function`, with its results kept for arguments that can be hashed."""
    kept = functools.cache(function)

    def call(*arguments, **options):
        try:
            hash((arguments, tuple(options.items())))
        except TypeError:
            return function(*arguments, **options)
        return kept(*arguments, **options)

    return call


# A function defined inside another is new at every call of that, and so are its checks, which depend on its signature
# alone and take milliseconds to make. A jaxtyping that names their makers otherwise is merely slower.
for name in '_make_fn_with_signature', '_apply_typechecker':
    if hasattr(_decorator, name):
        setattr(_decorator, name, keeping(getattr(_decorator, name)))
jaxtyping.install_import_hook('mha', 'beartype.beartype')

import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402
from jax.sharding import AbstractDevice, AbstractMesh, AxisType  # noqa: E402

jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_numpy_rank_promotion', 'raise')
# By default each program is written in an MLIR context of its own: 1 MB that stays, and a third of the time of a small
# program. One context serves them all; a jax that names it otherwise is merely slower.
if hasattr(mlir, 'make_ir_context'):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)

ROOT = Path(__file__).parent.parent
MEMORY = {'file': 1000, 'test': 1300}
"""Megabytes beyond which a worker drops its compiled programs when a file or a test ends; one that kept them all would
end at 4 GB. Within a file they are worth more: its tests share them."""
STATUS = Path('/proc/self/status')
PEAK = pytest.StashKey[float]()


def resident() -> float:
    """Megabytes of memory that this process holds; 0 where the system does not say."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith('VmRSS')), 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Drops compiled programs when memory is short; where the system does not say, at the end of each file."""
    done, held = (yield), resident()
    item.config.stash[PEAK] = max(held, item.config.stash.get(PEAK, 0))
    ends = nextitem is None or nextitem.path != item.path
    if held > MEMORY['file' if ends else 'test'] or (ends and not STATUS.exists()):
        jax.clear_caches()
        gc.collect()
        if sys.platform == 'linux':  # what is freed goes back to the system only when asked
            getattr(ctypes.CDLL(None), 'malloc_trim', int)(0)
    return done


def pytest_collection_finish():
    """Exempts all objects so far from garbage collection, since they stay to the end, and collects more rarely: the
    default takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def pytest_sessionfinish(session):
    """Measures it, if asked: a line per worker, with the most megabytes it held after a test."""
    if (path := os.environ.get('MHA_TEST_MEMORY')) and PEAK in session.config.stash:
        with open(path, 'a') as file:
            file.write(f'{os.environ.get("PYTEST_XDIST_WORKER", "main")} {session.config.stash[PEAK]:.0f}\n')


@pytest.fixture
def lower_for_cuda():
    """`lower_for_cuda(jitted, *arguments)` is the text of its program for a GPU, on a machine without one."""

    def lower(jitted, *arguments):
        device = AbstractDevice(device_kind='NVIDIA H100', num_cores=None, platform='cuda')
        mesh = AbstractMesh((1,), ('x',), axis_types=(AxisType.Auto,), abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):  # jax 0.11 asks which GPU it lowers for
            return jitted.trace(*arguments).lower(lowering_platforms=('cuda',)).as_text()

    return lower


@pytest.fixture
def module(tmp_path):
    """`module(name, *arguments, code=0)` is `python -m name ..` as a process in a directory of its own."""

    def call(name, *arguments, code=0):
        environ = {**os.environ, 'PYTHONPATH': str(ROOT), 'MHA_CACHE': str(tmp_path / 'cache'), 'JAX_PLATFORMS': 'cpu'}
        done = subprocess.run(
            [sys.executable, '-m', name, *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


@pytest.fixture(scope='session')
def environ(tmp_path_factory):
    cache = tmp_path_factory.getbasetemp().parent / 'cache'  # shared by all workers: programs compile once
    flags = {'MHA_CACHE': str(cache), 'JAX_PLATFORMS': 'cpu'}
    return {**os.environ, **flags}


SERVER = """
import gc, json, os, runpy, sys
import mha.run.checkpoint, mha.cli, mha.run.build, mha.run.log, mha.views.report.page, mha.views.report.plots
import matplotlib.backends.backend_svg, scipy.optimize, tensorboardX
from ml_collections import config_flags
sys.path.insert(0, os.getcwd())
gc.freeze()
for line in sys.stdin:
    sys.argv, cwd, *files = json.loads(line)
    if (child := os.fork()) == 0:
        mha.cli.end_on_signals()
        os.chdir(cwd)
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        run = runpy.run_path if sys.argv[0].endswith('.py') else runpy.run_module
        run(sys.argv[0], run_name='__main__')
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope='session')
def script(environ, tmp_path_factory):
    """`script(name, *arguments, code=0)` is `python name ..` or `python -m name ..`, as the fork of one process that
    has imported everything."""
    command = [sys.executable, '-W', 'ignore', '-c', SERVER]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, cwd=ROOT, env=environ, text=True, stdin=pipe, stdout=pipe)

    def call(*command, code=0, kill_at=None, after=None, cwd=ROOT):
        """With `kill_at`, the process is killed once that path exists. With `after=(seconds, signal)`, it gets the
        signal so late, if it has not ended by then, and may end with any code."""
        files = [tmp_path_factory.mktemp('output') / name for name in ('stdout', 'stderr')]
        server.stdin.write(json.dumps([[*map(str, command)], str(cwd), *map(str, files)]) + '\n')
        server.stdin.flush()
        child = int(server.stdout.readline())
        while not files[1].exists():  # it has begun, and handles signals
            time.sleep(0.005)
        if kill_at:
            while not kill_at.exists():
                os.kill(child, 0)  # an error once it has ended
                time.sleep(0.005)
            os.kill(child, signal.SIGKILL)
        if after:
            time.sleep(after[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, after[1])
        returned = server.stdout.readline()
        stdout, stderr = (file.read_text(encoding='utf-8') for file in files)
        assert after or returned == f'{code}\n', stdout + stderr
        return SimpleNamespace(stdout=stdout, stderr=stderr, code=int(returned))

    yield call
    server.communicate()
