"""Several devices compute the same as one device, and several processes the same as one process."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from mha.machine import parallel
from mha.spec import UserError

HERE = Path(__file__).parents[1]
TRAIN = HERE / 'distributed' / 'train.py'
SECONDS = 600


def environ(devices, variables):
    """The environment of one process with so many devices, and of what started it only `variables`."""
    ours = {name: value for name, value in os.environ.items() if not re.match('SLURM_|OMPI_|JAX_(NUM|PROC|COOR)', name)}
    flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
    return ours | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(HERE.parent)} | variables


def by_hand(port, count, index):
    return {
        'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
        'JAX_NUM_PROCESSES': f'{count}',
        'JAX_PROCESS_ID': f'{index}',
    }


def by_slurm(port, count, index):
    return {
        'JAX_COORDINATOR_PORT': f'{port}',
        'SLURM_JOB_ID': '1',
        'SLURM_STEP_NODELIST': '127.0.0.1',
        'SLURM_NTASKS': f'{count}',
        'SLURM_PROCID': f'{index}',
        'SLURM_LOCALID': f'{index}',
    }


def by_open_mpi(port, count, index):
    return {
        'JAX_COORDINATOR_PORT': f'{port}',
        'OMPI_MCA_orte_hnp_uri': '4096.0;tcp://127.0.0.1:1234',
        'OMPI_COMM_WORLD_SIZE': f'{count}',
        'OMPI_COMM_WORLD_RANK': f'{index}',
        'OMPI_COMM_WORLD_LOCAL_RANK': f'{index}',
    }


def launch(processes, devices, *arguments, launcher=by_hand):
    """Runs tests/distributed/train.py; (exit code, output) of each process."""
    with contextlib.closing(socket.create_server(('127.0.0.1', 0))) as free:
        port = free.getsockname()[1]
    running = [
        subprocess.Popen(
            [sys.executable, TRAIN, *map(str, arguments)],
            env=environ(devices, launcher(port, processes, index) if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]
    try:
        return [(process.wait(SECONDS), process.stdout.read()) for process in running]
    finally:
        for process in running:
            process.kill()


def trained(directory, name, processes, devices, *cases):
    """What the cases gave, by '<case>/<array>'."""
    path = directory / f'{name}.npz'
    for code, output in launch(processes, devices, path, *cases):
        assert code == 0, output
    return dict(np.load(path))


# ---------------------------------------------------------------------------------------------- four devices, a process
FAST = (
    'reference:4:1:1:dense',
    'batch:1:4:1:dense:save={0}/a',
    'members:4:4:1:dense',
    'model:1:2:2:dense:restore={0}/a',
)
SLOW = (
    'parts:1:4:1:dense:parts=2',
    'batch_of_pairs:2:4:1:dense',
    'blockwise:1:4:1:blockwise',
    'all:2:2:2:blockwise',
)


@pytest.fixture(scope='module')
def four_devices(tmp_path_factory):
    directory = tmp_path_factory.mktemp('devices')
    return trained(directory, 'fast', 1, 4, *(case.format(directory) for case in FAST))


@pytest.fixture(scope='module')
def more_of_four_devices(tmp_path_factory, four_devices):
    return four_devices | trained(tmp_path_factory.mktemp('devices'), 'slow', 1, 4, *SLOW)


def assert_as_reference(found, name):
    """The members of a case end where the same members end that were trained on one device, and so does their
    evaluation."""
    compared = 0
    for key, value in found.items():
        case, _, array = key.partition('/')
        if case == name and array.startswith('params'):
            np.testing.assert_allclose(value, found[f'reference/{array}'][: len(value)], atol=1e-5, err_msg=key)
            compared += 1
    assert compared > 10
    losses = found[f'{name}/losses']
    steps, members = losses.shape
    np.testing.assert_allclose(losses, found['reference/losses'][-steps:, :members], atol=1e-5)
    np.testing.assert_allclose(found[f'{name}/evaluated'], found['reference/evaluated'], atol=1e-5)


@pytest.mark.parametrize('name', ['batch', 'members', 'model'])
def test_several_devices_train_as_one(name, four_devices):
    assert_as_reference(four_devices, name)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['batch_of_pairs', 'blockwise', 'all'])
def test_every_kind_of_mesh_trains_as_one(name, more_of_four_devices):
    assert_as_reference(more_of_four_devices, name)


def test_reference_learns(four_devices):
    first, last = four_devices['reference/losses'][[0, -1]]
    assert (last < first).all()


def kinds(exchanges):
    return {text.split()[0] for text in exchanges}


def test_devices_exchange_no_more_than_they_must(four_devices):
    """Gradients and sums, never examples or weights; all of them at once where weights are whole. Members exchange
    their losses, and the steps of their faults."""
    assert len(four_devices['reference/exchanges']) == 0
    assert kinds(four_devices['batch/exchanges']) == kinds(four_devices['model/exchanges']) == {'all-reduce'}
    assert len(four_devices['batch/exchanges']) == 1
    assert set(four_devices['members/exchanges']) == {'all-gather f32[4]{0}', 'all-gather s32[4]{0}'}


@pytest.mark.slow
def test_parts_of_a_batch_exchange_no_more_than_the_whole(more_of_four_devices):
    exchanges = more_of_four_devices['parts/exchanges']
    assert kinds(exchanges) == {'all-reduce'}
    assert len(exchanges) == 1


def test_devices_run_the_flash_kernels_on_their_own_examples():
    command = [sys.executable, HERE / 'distributed' / 'flash.py']
    done = subprocess.run(command, env=environ(2, {}), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


def test_wide_weights_and_their_moments_are_split(four_devices):
    for tree in ('.params', '.opt_state[1][0].mu', '.opt_state[1][0].nu'):
        block = f"model/local{tree}['blocks'][0]"
        assert tuple(four_devices[f"{block}['attention']['query']['kernel']"]) == (1, 16, 2, 4)
        assert tuple(four_devices[f"{block}['down']['kernel']"]) == (1, 32, 16)


# ------------------------------------------------------------------------------------------- two processes, two devices
@pytest.fixture(scope='module')
def two_processes(tmp_path_factory, four_devices):
    directory = tmp_path_factory.mktemp('processes')
    one = trained(directory, 'one', 1, 1, f'one:1:1:1:dense:save={directory}/one')
    cases = (
        'spread_members:4:4:1:dense',
        f'spread_model:1:2:2:dense:save={directory}/two',
        f'one_to_two:1:4:1:dense:restore={directory}/one',
    )
    two = trained(directory, 'two', 2, 2, *cases)
    back = trained(directory, 'back', 1, 1, f'two_to_one:1:1:1:dense:restore={directory}/two')
    return four_devices | one | two | back


@pytest.mark.slow
@pytest.mark.parametrize('name', ['one', 'spread_members', 'spread_model', 'one_to_two', 'two_to_one'])
def test_two_processes_train_and_read_checkpoints_as_one(name, two_processes):
    assert_as_reference(two_processes, name)


@pytest.mark.slow
@pytest.mark.parametrize('launcher', [by_hand, by_slurm, by_open_mpi])
def test_what_fails_in_the_first_process_fails_in_all(launcher, tmp_path):
    path = tmp_path / 'nowhere' / 'a.npz'
    (code, output), (other_code, other_output) = launch(2, 1, path, launcher=launcher)
    assert code == other_code == 1
    assert 'FileNotFoundError' in output
    assert 'UserError' in other_output
    assert 'nowhere/a.npz' in other_output


# ---------------------------------------------------------------------------------------------------- who takes part
HAND = {'JAX_COORDINATOR_ADDRESS': 'node:1234', 'JAX_NUM_PROCESSES': '4', 'JAX_PROCESS_ID': '2'}
STEP = by_slurm(1234, 4, 2)
BATCH_SCRIPT = {name: value for name, value in STEP.items() if name != 'SLURM_STEP_NODELIST'}
OPEN_MPI = by_open_mpi(1234, 4, 2)


@pytest.fixture
def joined(monkeypatch):
    """`joined(variables)` is what `start` asks of jax, which raises `error` if given."""

    def call(variables, error=None):
        for name in os.environ.keys() - environ(1, {}).keys():
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        asked = []

        def initialize(*args, **_):
            asked.append(args)
            if error:
                raise error

        monkeypatch.setattr(jax.distributed, 'initialize', initialize)
        parallel.start()
        return asked

    return call


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        pytest.param({}, [], id='alone'),
        pytest.param(HAND, [('node:1234', 4, 2)], id='by hand'),
        pytest.param(STEP, [(None, 4, 2)], id='a Slurm step'),
        pytest.param(STEP | {'JAX_COORDINATOR_ADDRESS': 'node:1'}, [('node:1', 4, 2)], id='a Slurm step, an address'),
        pytest.param(BATCH_SCRIPT, [], id='a Slurm batch script'),
        pytest.param(STEP | {'SLURM_NTASKS': '1'}, [], id='a Slurm step of one'),
        pytest.param(STEP | {'JAX_NUM_PROCESSES': '1'}, [], id='one process of many, by hand'),
        pytest.param(OPEN_MPI, [(None, 4, 2)], id='Open MPI'),
    ],
)
def test_start_reads_the_environment(variables, expected, joined):
    assert joined(variables) == expected


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        ({'JAX_COORDINATOR_ADDRESS': 'node:1234'}, 'JAX_COORDINATOR_ADDRESS needs JAX_NUM_PROCESSES'),
        ({'JAX_PROCESS_ID': '7'}, 'JAX_PROCESS_ID needs JAX_NUM_PROCESSES'),
        ({'JAX_NUM_PROCESSES': '0', 'JAX_PROCESS_ID': '0'}, 'JAX_NUM_PROCESSES must be at least 1'),
        (HAND | {'JAX_PROCESS_ID': '4'}, 'JAX_PROCESS_ID is 4 - it numbers them from 0 to 3'),
        ({'JAX_NUM_PROCESSES': '4', 'JAX_PROCESS_ID': '0'}, 'JAX_COORDINATOR_ADDRESS is not set'),
        (HAND | {'JAX_COORDINATOR_ADDRESS': 'node'}, "is 'node' - give host:port"),
        ({'JAX_NUM_PROCESSES': '4'}, 'JAX_PROCESS_ID is not set'),
        ({'JAX_NUM_PROCESSES': 'four'}, "JAX_NUM_PROCESSES must be a whole number, not 'four'"),
    ],
)
def test_start_refuses(variables, message, joined):
    with pytest.raises(UserError, match=message):
        joined(variables)


def test_start_says_what_a_launcher_leaves_out(joined):
    with pytest.raises(UserError, match=r'4 processes: no address - set JAX_COORDINATOR_ADDRESS to host:port'):
        joined(OPEN_MPI, ValueError('no address'))


def test_one_process_is_the_first_and_waits_for_nobody():
    done = []
    parallel.once(lambda: done.append(1))
    assert done
    assert parallel.first()
    with pytest.raises(KeyError):
        parallel.once(lambda: {}['missing'])


# ---------------------------------------------------------------------------------------------------- where arrays live
@pytest.mark.parametrize(
    ('cores', 'batch_size', 'variables', 'expected'),
    [
        pytest.param(2, 128, {}, 2, id='all cores'),
        pytest.param(6, 128, {}, 4, id='as many as divide the batch'),
        pytest.param(64, 96, {}, 12, id='8 examples or more for each'),
        pytest.param(8, 4, {}, 1, id='a small batch'),
        pytest.param(2, 128, {'JAX_NUM_CPU_DEVICES': '1'}, None, id='told'),
        pytest.param(2, 128, {'XLA_FLAGS': '--xla_force_host_platform_device_count=4'}, None, id='told by a flag'),
    ],
)
def test_a_cpu_is_as_many_devices_as_cores(cores, batch_size, variables, expected, monkeypatch):
    monkeypatch.delenv('JAX_NUM_CPU_DEVICES', raising=False)
    for name, value in {'XLA_FLAGS': '', **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(parallel, 'QUOTA', Path('nowhere'))
    found = []
    monkeypatch.setattr(jax.config, 'update', lambda name, value: found.append((name, value)))
    parallel.use_cores(batch_size)
    assert found == ([] if expected is None else [('jax_num_cpu_devices', expected)])


@pytest.mark.parametrize(
    ('quota', 'expected'),
    [('max 100000', 6), ('200000 100000', 2), ('50000 100000', 1), ('900000 100000', 6), ('', 6)],
    ids=['none', 'two', 'half', 'more than there are', 'unreadable'],
)
def test_cores_of_a_container(quota, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(parallel, 'QUOTA', tmp_path / 'cpu.max')
    parallel.QUOTA.write_text(quota)
    assert parallel.cores() == expected


@pytest.mark.parametrize(
    ('devices', 'cores', 'backend', 'single'),
    [(2, 2, 'cpu', True), (2, 4, 'cpu', False), (1, 1, 'cpu', False), (4, 2, 'gpu', False)],
)
def test_products_take_one_thread_where_each_core_is_a_device(devices, cores, backend, single, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(jax, 'local_device_count', lambda: devices)
    monkeypatch.setattr(parallel, 'cores', lambda: cores)
    options = parallel.Layout(AbstractMesh((devices, 1), ('data', 'model'))).compiler_options
    assert options == ({'xla_cpu_multi_thread_eigen': False} if single else {})


@pytest.mark.parametrize(
    ('data', 'model', 'message'),
    [
        (0, 3, 'mesh.model must divide the 8 devices, not be 3 - choices: 1, 2, 4, 8'),
        (0, 0, 'mesh.model must divide the 8 devices, not be 0'),
        (3, 2, 'mesh.data must divide the 4 devices of 2, not be 3 - choices: 1, 2, 4, 0 for all'),
        (-1, 1, 'mesh.data must divide the 8 devices, not be -1'),
        (16, 1, 'not be 16'),
    ],
)
def test_mesh_refuses(data, model, message, monkeypatch):
    monkeypatch.setattr(jax, 'devices', lambda: list(range(8)))
    with pytest.raises(UserError, match=message):
        parallel.make_mesh(data, model)


def test_several_processes_leave_none_idle(monkeypatch):
    monkeypatch.setattr(jax, 'devices', lambda: list(range(8)))
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    with pytest.raises(UserError, match=r'mesh\.data=4 leaves processes without work'):
        parallel.make_mesh(4)


@pytest.mark.parametrize(
    ('path', 'shape', 'spec'),
    [
        ('attention.query.kernel', (16, 4, 8), (None, 'model', None)),
        ('attention.value.kernel', (16, 3, 8), (None, None, None)),  # 3 heads on 2 devices
        ('attention.key.bias', (4, 8), ('model', None)),
        ('attention.out.kernel', (4, 8, 16), ('model', None, None)),
        ('attention.out.kernel', (4, 8), ()),  # a factored moment
        ('up.kernel', (16, 64), (None, 'model')),
        ('up.bias', (64,), ('model',)),
        ('down.kernel', (64, 16), ('model', None)),
        ('query.kernel', (16, 4, 8), ()),  # of something else
        ('attention_norm.scale', (16,), ()),
    ],
)
@pytest.mark.parametrize(('members', 'over'), [(4, 'data'), (2, None)])
def test_rules(path, shape, spec, members, over):
    layout = parallel.Layout(AbstractMesh((4, 2), ('data', 'model')), members, together=True)
    tree = jax.ShapeDtypeStruct((members, *shape), jnp.float32)
    for name in reversed(path.split('.')):
        tree = {name: tree}
    for wrapped in (tree, [None, (tree,)]):  # parameters, and moments within an optimizer's state
        (sharding,) = jax.tree.leaves(layout.shardings(wrapped))
        assert sharding.spec == PartitionSpec(over, *spec)
    assert layout.shardings(jax.ShapeDtypeStruct((), jnp.int32)).spec == PartitionSpec()


@pytest.mark.parametrize(
    ('members', 'batch_size', 'fits'),
    [(4, 3, True), (1, 8, True), (2, 8, True), (1, 6, False), (2, 2, False)],
)
def test_batches_that_do_not_divide_are_refused(members, batch_size, fits, monkeypatch):
    monkeypatch.setattr(jax, 'device_count', lambda: 4)
    layout = parallel.Layout(AbstractMesh((4, 1), ('data', 'model')), members, together=True)
    words = 'choose a multiple of 4, or another mesh.data: choices: 1, 2$'
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match=words):
        layout.check(batch_size)
