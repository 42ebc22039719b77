"""Time that every task takes to make a batch, relative to the training step of configs/length_generalization.py.

    python benchmarks/tasks.py [--length=40] [--batch_size=128] [--tasks='one, two(argument=value)']

Batches are made as in training, on the device inside a compiled loop; tasks that require causal models are causal. The
step is that of the config, but with examples of this one length only, so that a single program is compiled. Batches and
steps alternate, so that other load on the machine affects both equally. The ratio is the median over such pairs.
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
from tqdm import tqdm

from configs import length_generalization
from mha import cli, spec, tasks
from mha.machine import cache
from mha.run.build import build
from mha.run.experiment import Experiment
from mha.tasks import Task
from mha.views.catalogue import prose
from mha.views.catalogue import tasks as task_catalogue

LENGTH = flags.DEFINE_integer('length', 40, 'Length of the examples.', lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 128, 'Examples per batch.', lower_bound=1)
BATCHES = flags.DEFINE_integer('batches', 20, 'Batches per measurement.', lower_bound=1)
REPEATS = flags.DEFINE_integer('repeats', 5, 'Measurements of each task.', lower_bound=1)
TASKS = flags.DEFINE_string('tasks', None, 'Comma-separated specs; default: every task.')
LIMIT = 0.1
"""Share of a training step; a task that takes longer slows training down."""


def main() -> None:
    cache.keep_programs()
    texts = spec.split(TASKS.value) if TASKS.value else [tasks.example(name) for name in tasks.names()]
    entries = [task_catalogue.look(text) for text in texts]  # wrong specs are reported before any work
    step, run, rows, steps, refused = *training_step(), [], [], []
    for entry in (bar := tqdm(entries, unit=' tasks', desc='time', dynamic_ncols=True)):
        bar.set_postfix_str(entry.text)
        try:
            make_batches = batches(entry.task)
        except spec.UserError as error:
            refused.append(f'{entry.text}: {error}')
            continue
        pairs = [(seconds(make_batches) / BATCHES.value, seconds(step)) for _ in range(REPEATS.value)]
        rows.append((statistics.median(a / b for a, b in pairs), statistics.median(a for a, _ in pairs), entry))
        steps += [b for _, b in pairs]

    rows.sort(key=lambda row: row[:2])
    model, train = run.config['model'], run.config['train']
    print(f'device         {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
    print(f'batches        {BATCH_SIZE.value} examples of length {LENGTH.value}, in loops of {BATCHES.value}')
    print(
        f'training step  {1000 * statistics.median(steps):.1f} ms ({run.config["task"]}, {run.position}, '
        f'{model["layers"]} layers, width {model["dim"]}, batch {train["batch_size"]}, length {LENGTH.value})'
    )
    cells = [
        [entry.text, f'{1000 * duration:.3f}', f'{ratio:.4f}', f'above {LIMIT}' if ratio > LIMIT else '']
        for ratio, duration, entry in rows
    ]
    header = ['task', 'ms per batch', 'of a step', '']
    print('', *(line.rstrip() for line in prose.aligned([header, *cells], right=(1, 2))), sep='\n')
    slow = [entry.text for ratio, _, entry in rows if ratio > LIMIT]
    if refused:
        print(f'\nnot available at length {LENGTH.value}:', *refused, sep='\n')
    if slow:
        print(f'\nwarning: above {LIMIT} of a training step: {", ".join(slow)}')


def training_step() -> tuple[Callable[[], jax.Array], Experiment]:
    """Training step of the config at the measured length, after some steps to warm up, and its experiment."""
    config = length_generalization.get_config().to_dict()
    config['train'] |= {'lengths': str(LENGTH.value), 'batch_size': BATCH_SIZE.value}
    run = build(config, eval_lengths=str(LENGTH.value))
    state, chunk = run.init(), run.chunk()

    def step():
        nonlocal state
        state, means = chunk(state, int(state.step) + 1)
        return means['loss']

    for _ in range(3):
        jax.block_until_ready(step())
    return step, run


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


def seconds(run: Callable[[], jax.Array]) -> float:
    clock = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - clock


if __name__ == '__main__':
    cli.run(main)
