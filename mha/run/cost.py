"""Costs of a run on this machine, from some of its training steps and evaluated batches.

As a program, `cost.py FILE` reads a config from the file and writes its cost there.
"""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mha.machine import cache, parallel
from mha.run import workdir
from mha.run.build import build
from mha.run.experiment import Experiment, at_once
from mha.training import evaluation

Config = Mapping[str, Any]
TIMED = 2.0
"""Seconds for which training steps are timed."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds that the parts of a run take."""

    start: float
    compilation: float
    """Compilation of the programs, which runs that differ only in their seed share."""
    step: float
    """One training step."""
    evaluation: float
    """One evaluation at all lengths."""

    def seconds(self, config: Config, compiled: bool) -> float:
        """Time of a run, whose programs may have been `compiled` before."""
        steps, every = config['train']['steps'], config['eval']['every_steps']
        evaluations = 1 + (steps - 1) // every if every else 1
        start = self.start if compiled else self.start + self.compilation
        return start + steps * self.step + evaluations * self.evaluation


def cost(config: Config) -> Cost:
    """Cost of a run in this process."""
    began, traced = time.perf_counter(), []
    run = build(config)
    state = run.init()
    chunk = run.chunk(meanwhile=lambda: traced.append(time.perf_counter()))
    compiled = time.perf_counter()
    state, _ = jax.block_until_ready(chunk(state, 1))
    begins = time.perf_counter()
    step, state = _step(chunk, state, config['train']['steps'])
    compilation, evaluating = _evaluation(run, run.layout.fetch(state.evaluated))
    compilation += compiled - traced[0]
    return Cost(begins - began - (compiled - traced[0]), compilation, step, evaluating)


def _step(chunk: Any, state: Any, steps: int) -> tuple[float, Any]:
    """Time of a training step, a mean over steps from all parts of the training, and the last state."""
    spent, done, count = 0.0, 0, 4
    for index in itertools.count(1):
        place = int(f'{index:b}'[::-1], 2) / 2 ** index.bit_length()  # 1/2, 1/4, 3/4, 1/8, 5/8, ...
        at = int(place * steps)
        state = dataclasses.replace(state, step=jax.device_put(np.int32(at), state.step.sharding))
        clock = time.perf_counter()
        state, _ = jax.block_until_ready(chunk(state, at + count))
        spent, done, count = spent + time.perf_counter() - clock, done + count, min(2 * count, 32)
        if spent > TIMED or done >= steps:  # a short run takes less time than that
            return spent / done, state
    raise AssertionError


def _evaluation(run: Experiment, params: Any) -> tuple[float, float]:
    """Time of the compilation of an evaluation of all members, and of the evaluation itself. Only some examples of the
    longest length are timed; other lengths take as much time per token."""
    settings, longest = run.config['eval'], run.eval_lengths[-1]
    tokens = run.task.num_tokens(longest)
    few = min(settings['examples'], settings['batch_size'], max(evaluation.PAIRS_PER_DISPATCH // tokens**2, 1))
    config = {**run.config, 'eval': {**settings, 'examples': few, 'buckets': 1}}
    one = dataclasses.replace(run, config=config, eval_lengths=(longest,))
    clock = time.perf_counter()
    one.evaluate(params, [0])
    compiled = time.perf_counter()
    one.evaluate(params, [0])
    took = time.perf_counter() - compiled
    buckets = run.evaluator.buckets
    padded = [next(each.max_length for each in buckets if each.max_length >= length) for length in run.eval_lengths]
    share = sum(map(run.task.num_tokens, padded)) / tokens
    whole = took * share * settings['examples'] / few * len(run.members)
    return max(compiled - clock - took, 0) * len(buckets), whole


if __name__ == '__main__':
    config = json.loads(Path(sys.argv[1]).read_text())
    cache.keep_programs()
    parallel.use_cores(at_once(config['train']))
    workdir.write_json(Path(sys.argv[1]), dataclasses.asdict(cost(config)))
