"""Estimates of the time that runs take on this machine, from a few of their steps."""

import contextlib
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mha.run import workdir
from mha.run.build import build
from mha.run.launchers import Grid

STEPS = 8
"""Number of timed steps: each draws its own length, so one is too few."""


def estimate(cells: Sequence[Mapping[str, Any]], grid: Grid, jobs: int) -> str:
    """Time that the cells will take, `jobs` at a time: the mean of the finished cells of `grid`, or else an estimate
    for the first one."""
    if not cells:
        return 'all finished'
    took = [workdir.summary(grid.workdir(name)).get('seconds') for name in grid.steps if grid.finished(name)]
    known = [seconds for seconds in took if seconds]
    each = float(np.mean(known)) if known else seconds(cells[0])
    how = (
        f'as the {len(known)} finished ones took on average' if known else 'as the first would, from a few steps of it'
    )
    left = f'{len(cells)} left, ' if known else ''
    return f'{left}about {spoken(each)} each ({how}), {spoken(each * -(-len(cells) // jobs))} in all with --jobs={jobs}'


def seconds(config: Mapping[str, Any]) -> float:
    """Estimated seconds of a run: start, training and evaluation."""
    started = time.perf_counter()
    run = build(config)
    chunk, state = run.chunk(), run.init()
    state, _ = jax.block_until_ready(chunk(state, 1))
    compiled = time.perf_counter()
    state, _ = jax.block_until_ready(chunk(state, 1 + STEPS))
    train = (time.perf_counter() - compiled) / STEPS * config['train']['steps']
    params, settings = run.layout.fetch(state.evaluated), config['eval']
    few = min(settings['examples'], settings['batch_size'])
    middle, longest = run.eval_lengths[len(run.eval_lengths) // 2], run.eval_lengths[-1]
    took = {0: 0.0}
    for length in dict.fromkeys((middle, longest)):
        one = dataclasses.replace(
            run, config={**config, 'eval': {**settings, 'examples': few, 'buckets': 1}}, eval_lengths=(length,)
        )
        with contextlib.redirect_stderr(io.StringIO()):  # hides their progress bars
            one.evaluate(params, [0])
            clock = time.perf_counter()
            one.evaluate(params, [0])
        took[length] = time.perf_counter() - clock
    per_length = np.interp(run.eval_lengths, list(took), list(took.values()))
    evaluate = per_length.sum() * settings['examples'] / few * len(run.members)
    return compiled - started + train + float(evaluate)


def spoken(seconds: float) -> str:
    """Time in words: `'2 h 5 min'`, `'40 s'`."""
    minutes, hours = round(seconds / 60), int(seconds / 3600)
    if hours:
        return f'{hours} h {minutes - 60 * hours} min'
    return f'{minutes} min' if seconds >= 100 else f'{max(round(seconds), 1)} s'
