"""Several devices, in one process or in many: start of the processes, and placement of arrays on devices.

A CPU counts as one device per core, because parts of a batch run faster on several cores while small products do not.
The devices form one mesh with axes `data` and `model`. Results do not depend on the mesh.

* The axis `data` spreads the members of a population, if they are trained together and the axis divides their number.
  Otherwise it spreads each batch: every device runs the model on its own examples, and gradients are summed over
  devices once per step.
* The axis `model` spreads wide weights and their optimizer moments: attention by heads, the feed-forward layer by its
  inner width (Megatron-LM, Shoeybi et al., 2019, arXiv:1909.08053). The compiler splits the program accordingly (GSPMD,
  Xu et al., 2021, arXiv:2105.04663), as it does for members.

Every process runs the same script. Only the first process writes the files of a run and shows progress, except that all
processes write checkpoints (`mha.run.checkpoint`).
"""

import dataclasses
import math
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from mha.spec import UserError

DATA, MODEL = 'data', 'model'

OVER_MODEL = {
    **{('attention', name, 'kernel'): (None, MODEL, None) for name in ('query', 'key', 'value')},  # [D, H, K]
    **{('attention', name, 'bias'): (MODEL, None) for name in ('query', 'key', 'value')},  # [H, K]
    ('attention', 'out', 'kernel'): (MODEL, None, None),  # [H, K, D]
    ('output_gate', 'kernel'): (None, MODEL),  # [D, H] or [D, H, K]
    ('output_gate', 'bias'): (MODEL,),  # [H] or [H, K]
    ('up', 'kernel'): (None, MODEL),  # [D, M]
    ('up', 'bias'): (MODEL,),  # [M]
    ('down', 'kernel'): (MODEL, None),  # [M, D]
}
"""Mesh axis of each axis of a weight, by the end of the weight's path. All other weights are replicated, and so is an
axis whose size the mesh does not divide."""

EXAMPLES_PER_CORE = 8
"""Smallest number of examples that is worth a device of its own."""

QUOTA = Path('/sys/fs/cgroup/cpu.max')
"""Linux file with the CPU quota of a container: microseconds of CPU time, over all cores, and the period they are
for."""

PROCESSES = {
    'JAX_NUM_PROCESSES': 'JAX_PROCESS_ID',
    'SLURM_NTASKS': 'SLURM_PROCID',
    'OMPI_COMM_WORLD_SIZE': 'OMPI_COMM_WORLD_RANK',
}
"""Environment variables with the number of processes and the index of this one. The first pair that is set counts."""


# ------------------------------------------------------------------------------------------------------------ processes
def start() -> None:
    """Joins the other processes of this run, if the environment names any. Must be called before the first computation.

    By hand, set `JAX_COORDINATOR_ADDRESS` (host:port of the first process), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
    From the variables of Slurm or Open MPI, jax finds the address itself. It then gives each process one GPU, unless
    `JAX_LOCAL_DEVICE_IDS=0,1,..` names more. With `JAX_NUM_PROCESSES=1`, a run is one process whatever else is set."""
    if jax.distributed.is_initialized():
        return
    for name in 'JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID':
        if name in os.environ and not PROCESSES.keys() & os.environ.keys():
            raise UserError(f'{name} needs JAX_NUM_PROCESSES - set it, or unset {name}')
    for count_name, index_name in PROCESSES.items():
        count = _number(count_name)
        if count is None or (count_name == 'SLURM_NTASKS' and 'SLURM_STEP_NODELIST' not in os.environ):
            continue  # a Slurm batch script is one process, however many tasks its job may start
        if count < 1:
            raise UserError(f'{count_name} must be at least 1')
        if count > 1:
            _join(count, index_name)
        return


def _join(count: int, index_name: str) -> None:
    address, index = os.environ.get('JAX_COORDINATOR_ADDRESS'), _number(index_name)
    if index is None or index >= count:
        state = 'is not set' if index is None else f'is {index}'
        raise UserError(f'{count} processes, but {index_name} {state} - it numbers them from 0 to {count - 1}')
    by_hand = index_name == 'JAX_PROCESS_ID'
    if (by_hand or address) and not re.fullmatch(r'.+:\d+', address or ''):
        state = f'is {address!r}' if address else 'is not set'
        raise UserError(f'{count} processes, but JAX_COORDINATOR_ADDRESS {state} - give host:port of process 0')
    # jax ends this process itself, without an exception, if the others do not join within five minutes
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM away from `mha.machine.signals`
    print(f'process {index} of {count} joins at {address or "the address its launcher gives"}', file=sys.stderr)
    try:
        jax.distributed.initialize(address, count, index, cluster_detection_method='deactivate' if by_hand else None)
    except ValueError as error:  # no address found
        raise UserError(
            f'{count} processes: {error} - set JAX_COORDINATOR_ADDRESS to host:port of process 0'
        ) from error


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise UserError(f'{name} must be a whole number, not {text!r}')
    return None if text is None else int(text)


def first() -> bool:
    """Whether this process writes files and shows progress."""
    return jax.process_index() == 0


def once(act: Callable[[], None]) -> None:
    """Runs `act` in the first process, while the others wait. If it fails there, all processes raise an error, because
    the others would wait forever."""
    if jax.process_count() == 1:
        return act()
    failed = None
    try:
        if first():
            act()
    except Exception as error:  # raised again below, after the other processes know
        failed = error
    text = ('' if failed is None else str(failed) or repr(failed)).encode()[:1024]
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(text.ljust(1024), np.uint8))
    if failed is not None:
        raise failed
    if text := np.asarray(told).tobytes().decode(errors='ignore').strip():
        raise UserError(text)


def largest(number: int) -> int:
    """Largest of the numbers that the processes give."""
    return number if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(number)).max())


class Progress(tqdm):
    """Progress bar on a terminal. If output goes to a file, a line once a minute and one at the end instead."""

    EVERY = 60
    """Seconds between two lines."""
    told = -math.inf

    def display(self, *args: Any, **kwargs: Any) -> None:
        if self.fp.isatty():
            super().display(*args, **kwargs)
        elif self.disable or time.monotonic() - self.told > self.EVERY:  # tqdm disables a bar as it closes it
            self.told = time.monotonic()
            self.fp.write(str(self) + ('' if self.disable else '\n'))
            self.fp.flush()

    def clear(self, *args: Any, **kwargs: Any) -> None:
        if self.fp.isatty():
            super().clear(*args, **kwargs)


def progress(shown: bool = True, **options: Any) -> tqdm:
    """Progress bar, shown in the first process only."""
    return Progress(disable=not (shown and first()), dynamic_ncols=True, **options)


# -------------------------------------------------------------------------------------------------------------- devices
def use_cores(batch_size: int) -> None:
    """Splits the CPU of this process into one device per usable core. The number of devices divides `batch_size` into
    parts of at least `EXAMPLES_PER_CORE` examples. Changes nothing if several processes take part, or if the
    environment sets the number (`JAX_NUM_CPU_DEVICES`). Must be called before the first computation."""
    flags = os.environ.get('XLA_FLAGS', '')
    told = 'JAX_NUM_CPU_DEVICES' in os.environ or 'xla_force_host_platform_device_count' in flags
    if told or jax.distributed.is_initialized():
        return
    limit = max(min(cores(), batch_size // EXAMPLES_PER_CORE), 1)
    jax.config.update('jax_num_cpu_devices', max(n for n in range(1, limit + 1) if batch_size % n == 0))


def cores() -> int:
    """Number of cores that this process may use: those it may run on, limited by the quota of its container."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        quota, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # no such file, or 'max': no limit
        return usable
    return max(1, min(usable, quota // period))


def make_mesh(data: int = 0, model: int = 1) -> Mesh:
    """Mesh of `data` x `model` devices; `data=0` uses all devices that `model` leaves. A single process may leave
    devices idle; several processes must use all of theirs."""
    devices = jax.devices()
    if model < 1 or len(devices) % model:
        raise UserError(f'mesh.model must divide the {len(devices)} devices, not be {model} - {_choices(len(devices))}')
    left = len(devices) // model
    if data < 0 or (data and left % data):
        each = f' of {model}' if model > 1 else ''
        raise UserError(f'mesh.data must divide the {left} devices{each}, not be {data} - {_choices(left)}, 0 for all')
    data = data or left
    if jax.process_count() > 1 and data != left:
        raise UserError(f'mesh.data={data} leaves processes without work - choose 0, or start fewer processes')
    return jax.make_mesh((data, model), (DATA, MODEL), (AxisType.Auto, AxisType.Auto), devices=devices[: data * model])


def _choices(number: int) -> str:
    return f'choices: {", ".join(str(n) for n in range(1, number + 1) if number % n == 0)}'


@dataclasses.dataclass(frozen=True)
class Layout:
    """Placement of the arrays of a population on devices. Arrays are leaves [P, ...] of trees, with a leading axis of
    `members`, or scalars."""

    mesh: Mesh | AbstractMesh
    members: int = 1
    together: bool = False
    """Whether members are trained together instead of one after the other."""

    @property
    def member_axis(self) -> str | None:
        """Mesh axis that spreads the members; None if each device has all members and a part of the batch."""
        return DATA if self.together and self.members % self.mesh.shape[DATA] == 0 else None

    @property
    def replicated(self) -> NamedSharding:
        """Sharding with the same values on every device, which any process can read."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def compiler_options(self) -> dict[str, Any]:
        """Options for programs that call `split`: products use one thread if every core of a CPU is a device."""
        each = jax.default_backend() == 'cpu' and self.mesh.size > 1 and jax.local_device_count() >= cores()
        return {'xla_cpu_multi_thread_eigen': False} if each else {}

    def shardings(self, tree: Any) -> Any:
        """Sharding of every leaf, which may be an array or a shape."""
        return jax.tree.map_with_path(self._sharding, tree)

    def _sharding(self, path: tuple, leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return self.replicated
        names, sizes = tuple(getattr(entry, 'key', getattr(entry, 'name', None)) for entry in path), leaf.shape[1:]
        fits = (axes for end, axes in OVER_MODEL.items() if names[-len(end) :] == end and len(axes) == len(sizes))
        over = (
            axis if size % self.mesh.shape[MODEL] == 0 else None
            for axis, size in zip(next(fits, ()), sizes, strict=False)
        )
        return NamedSharding(self.mesh, PartitionSpec(self.member_axis, *over))

    def place(self, tree: Any) -> Any:
        """Puts arrays, equal in all processes, on their devices. Weights that are too large for one device are better
        made in place: `jax.jit(init, out_shardings=layout.shardings(jax.eval_shape(init)))()`."""
        return _put(tree, self.shardings(tree))

    def replicate(self, tree: Any) -> Any:
        """Puts arrays, equal in all processes, on every device."""
        return _put(tree, self.replicated)

    def fetch(self, tree: Any) -> Any:
        """Copies of arrays on the host of every process."""
        return jax.tree.map(np.asarray, self.replicate(tree))

    def divides(self, batch_size: int) -> bool:
        """Whether `split` spreads batches of this size."""
        return self.member_axis is None and batch_size % self.mesh.shape[DATA] == 0

    def split(self, batch: Any) -> Any:
        """Spreads a batch, leaves [B, ...], over the axis `data`, unless that spreads members or does not divide B. For
        use inside a program, for one member."""

        def constrain(leaf):
            if not self.divides(leaf.shape[0]):
                return leaf
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, PartitionSpec(DATA)))

        return jax.tree.map(constrain, batch)

    def summed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Same as `function(batch, *others)`, whose results must be sums over the examples of a batch, leaves [B, ...].
        If `split` spreads the batch, each device computes the sums over its own examples, which are then summed over
        devices. For use inside a program, for one member."""
        manual_axes = {DATA} if self.mesh.shape[MODEL] > 1 else {DATA, MODEL}  # all axes compile faster

        def on_device(batch, *others):
            sums = function(batch, *others)
            if self.mesh.shape[MODEL] > 1 or len({leaf.dtype for leaf in jax.tree.leaves(sums)}) > 1:
                return jax.lax.psum(sums, DATA)
            # As one array: the devices of a CPU wait a tenth of a millisecond for each array that they sum.
            flat, unravel = ravel_pytree(sums)
            return unravel(jax.lax.psum(flat, DATA))

        def call(batch, *others):
            if self.mesh.shape[DATA] == 1 or not self.divides(len(jax.tree.leaves(batch)[0])):
                return function(batch, *others)
            whole = PartitionSpec()
            return jax.shard_map(
                on_device,
                mesh=self.mesh,
                in_specs=(PartitionSpec(DATA), *[whole] * len(others)),
                out_specs=whole,
                axis_names=manual_axes,
                check_vma=False,  # otherwise gradients are summed one by one
            )(batch, *others)

        return call

    def check(self, batch_size: int) -> None:
        """Refuses a batch size at which devices would repeat each other's work."""
        data = self.mesh.shape[DATA]
        if not self.member_axis and batch_size % data:
            others = math.gcd(batch_size, jax.device_count() // self.mesh.shape[MODEL])
            other = f', or another mesh.data: {_choices(others)}' if jax.process_count() == 1 else ''
            raise UserError(
                f'{batch_size} examples (train.batch_size / train.microbatches) do not divide over mesh.data={data} '
                f'devices - choose a multiple of {data}{other}'
            )


def _put(tree: Any, shardings: Any) -> Any:
    """Same as `jax.device_put`, which refuses random keys if some devices belong to another process (jax 0.10)."""
    return jax.jit(lambda tree: tree, out_shardings=shardings)(tree)
