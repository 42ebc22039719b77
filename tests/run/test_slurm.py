"""The Slurm launcher against a real Slurm on this machine, which tests/slurm/start.sh starts."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / 'tests' / 'slurm'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which('slurmctld') or os.geteuid() != 0, reason='needs slurm-wlm, munge and root'),
]


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return str(found.getsockname()[1])


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    directory = tmp_path_factory.mktemp('slurm')
    subprocess.run([SCRIPTS / 'start.sh', directory, free_port(), free_port()], check=True, stdout=subprocess.DEVNULL)
    yield {
        **os.environ,
        'SLURM_CONF': str(directory / 'slurm.conf'),
        'MHA_CACHE': str(directory / 'cache'),
        'JAX_PLATFORMS': 'cpu',
    }
    subprocess.run([SCRIPTS / 'stop.sh', directory], check=True)


@pytest.fixture
def launch(slurm, small_sweep):
    """`launch(workdir, steps)` starts a sweep of three cells."""

    def start(workdir, steps, cluster='slurm(cpus=1)'):
        config = small_sweep(steps)
        command = [sys.executable, 'sweep.py', f'--config={config}', f'--workdir={workdir}', f'--cluster={cluster}']
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=slurm, stdout=pipe, stderr=pipe, text=True)

    return start


def wait_for(path, seconds=120):
    until = time.time() + seconds
    while not path.exists():
        assert time.time() < until, f'no {path}'
        time.sleep(0.1)


def job_of(workdir, cell):
    records = map(json.loads, (workdir / 'jobs.jsonl').read_text().splitlines())
    return [record['job'] for record in records if record['cell'] == cell]


def test_cancelled_requeued_and_orphaned_cells_come_to_the_same_results(launch, slurm, curves, steps, tmp_path):
    count = 2000
    whole, torn = tmp_path / 'whole', tmp_path / 'torn'
    undisturbed = launch(whole, count)
    assert undisturbed.wait() == 0, undisturbed.communicate()

    first = launch(torn, count)
    wait_for(torn / 'cells' / 'seed=0' / 'metrics.jsonl')
    subprocess.run(['scontrol', 'requeue', job_of(torn, 'seed=0')[0]], env=slurm, check=True)
    first.kill()  # its jobs go on
    first.communicate()
    wait_for(torn / 'cells' / 'seed=1' / 'metrics.jsonl')
    subprocess.run(['scancel', job_of(torn, 'seed=1')[0]], env=slurm, check=True)

    again = launch(torn, count)
    assert again.wait() == 0, again.communicate()
    assert curves(torn) == curves(whole)
    assert [len(job_of(torn, f'seed={seed}')) for seed in range(3)] == [1, 2, 1]  # only what was cancelled comes anew
    for seed in range(3):
        assert steps(torn, f'seed={seed}') == list(range(50, count + 1, 50))


def test_a_time_limit_queues_a_cell_again(launch, steps, tmp_path):
    """The job has a minute; Slurm tells it to end 5 to 35 seconds before that is over. It takes more than one such
    job."""
    done = launch(tmp_path / 'grid', 200_000, 'slurm(cpus=1, timeout=1, grace=5)')
    wait_for(tmp_path / 'grid' / 'cells' / 'seed=0' / 'metrics.jsonl')
    logs = tmp_path / 'grid' / 'slurm'
    until = time.time() + 200
    while not any('requeu' in path.read_text().lower() for path in logs.glob('*_log.*')):
        assert time.time() < until
        time.sleep(1)
    at = steps(tmp_path / 'grid', 'seed=0')[-1]
    until = time.time() + 120
    while steps(tmp_path / 'grid', 'seed=0')[-1] <= at:
        assert time.time() < until
        time.sleep(1)
    done.kill()
    done.communicate()
    reached = steps(tmp_path / 'grid', 'seed=0')
    assert reached == sorted(set(reached))
