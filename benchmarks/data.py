"""Tokens per second that tasks on texts deliver, next to those that a tiny training step uses.

    python benchmarks/data.py [--length=128] [--batch_size=32] [--tasks='text, classification']

Batches are made as in training, on the device inside a compiled loop. The step trains one layer of width 16 on the same
task, so a reader that is ten times as fast slows no training down. Batches and steps alternate, so that other load on
the machine affects both equally; the ratio is the median over such pairs.
"""
# ruff: noqa: E402

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax
import jax.numpy as jnp
from absl import flags

from configs import common
from mha import cli, spec
from mha.machine import cache
from mha.run.build import build
from mha.run.experiment import Experiment
from mha.tasks import Task
from mha.views.catalogue import prose

LENGTH = flags.DEFINE_integer('length', 128, 'Tokens per example.', lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'Examples per batch.', lower_bound=1)
BATCHES = flags.DEFINE_integer('batches', 50, 'Batches, or steps, per measurement.', lower_bound=1)
REPEATS = flags.DEFINE_integer('repeats', 5, 'Measurements of each task.', lower_bound=1)
TASKS = flags.DEFINE_string('tasks', 'text, classification', 'Comma-separated specs of tasks.')
LIMIT = 10
"""Smallest ratio at which reading does not matter."""


def main() -> None:
    cache.keep_programs()
    cells, slow = [], []
    tokens = BATCHES.value * BATCH_SIZE.value * LENGTH.value
    for text in spec.split(TASKS.value):
        run = experiment(text)
        read, train = batches(run.task), steps(run)
        pairs = [(tokens / seconds(read), tokens / seconds(train)) for _ in range(REPEATS.value)]
        ratio = statistics.median(a / b for a, b in pairs)
        speeds = [f'{statistics.median(each):,.0f}' for each in zip(*pairs, strict=True)]
        cells.append([text, *speeds, f'{ratio:.0f}', '' if ratio >= LIMIT else f'below {LIMIT}'])
        slow += [text] * (ratio < LIMIT)
    print(f'device  {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
    print(f'batch   {BATCH_SIZE.value} examples of {LENGTH.value} tokens; step: one layer of width 16\n')
    header = ['task', 'tokens/s read', 'tokens/s trained', 'ratio', '']
    print(*(line.rstrip() for line in prose.aligned([header, *cells], right=(1, 2, 3))), sep='\n')
    if slow:
        print(f'\nwarning: reading is less than {LIMIT} times as fast as a tiny step: {", ".join(slow)}')


def experiment(task: str) -> Experiment:
    """Tiny model of a task."""
    config = common.get_config()
    config.task = task
    config.model.update(layers=1, dim=16, heads=2, position='alibi')
    config.model.readout = 'pooled' if task.startswith('classification') else 'token'
    config.train.update(lengths=str(LENGTH.value), batch_size=BATCH_SIZE.value)
    return build(config.to_dict(), eval_lengths=str(LENGTH.value))


def batches(task: Task) -> Callable[[], jax.Array]:
    """Compiled loop that makes `BATCHES` batches and reads every array of each, run once to warm up."""

    def loop(task, key, length):
        def body(i, total):
            batch = task.batch(jax.random.fold_in(key, i), BATCH_SIZE.value, length, LENGTH.value)
            return total + sum(jnp.sum(leaf, dtype=jnp.int32) for leaf in jax.tree.leaves(batch))

        return jax.lax.fori_loop(0, BATCHES.value, body, jnp.int32(0))

    arguments = task, jax.random.key(0), jnp.int32(LENGTH.value)
    compiled = jax.jit(loop).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    return lambda: compiled(*arguments)


def steps(run: Experiment) -> Callable[[], jax.Array]:
    """Chunk of `BATCHES` training steps, run once to warm up."""
    state, chunk = run.init(), run.chunk()

    def train():
        nonlocal state
        state, means = chunk(state, int(state.step) + BATCHES.value)
        return means['loss']

    jax.block_until_ready(train())
    return train


def seconds(run: Callable[[], jax.Array]) -> float:
    clock = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - clock


if __name__ == '__main__':
    cli.run(main)
