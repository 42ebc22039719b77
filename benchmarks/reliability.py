"""Time of a run with locks and checksums of its checkpoints, relative to the same run without them.

    python benchmarks/reliability.py [--steps=1000] [--rounds=3] [--config=configs/quickstart.py]

Runs the same program as train.py, after warm-up, with the checkpoints that the config asks for and one at the end,
which is restored. Rounds alternate, and times are medians. The parts are timed within the run; unlike the ratio, they
hardly depend on what else the machine does.
"""
# ruff: noqa: E402

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax
from absl import flags
from ml_collections import config_flags

from mha import cli
from mha.machine import parallel
from mha.run import checkpoint, workdir
from mha.run.build import build
from mha.run.experiment import at_once

CONFIG = config_flags.DEFINE_config_file('config', str(ROOT / 'configs/quickstart.py'), 'Experiment.')
STEPS = flags.DEFINE_integer('steps', 1000, 'Steps of a run.', lower_bound=1)
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Number of rounds.', lower_bound=1)


def main() -> None:
    checkpoint.silence()
    config = CONFIG.value.to_dict()
    parallel.use_cores(at_once(config['train']))
    run = build(config)
    state, chunk = run.init(), run.chunk()
    state, means = chunk(state, 1)
    jax.block_until_ready(means)
    parts: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            clock = time.perf_counter()
            result = function(*arguments)
            parts[name] = parts.get(name, 0) + time.perf_counter() - clock
            return result

        return call

    hold, checksums = timed('lock', workdir.hold), timed('checksums', checkpoint.checksums)

    def train(locked: bool) -> float:
        nonlocal state
        checkpoint.checksums = checksums if locked else lambda tree: {}
        begin, clock = int(state.step), time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            if locked:
                hold(Path(directory))
            checkpoints = checkpoint.Checkpoints(Path(directory))
            for step in range(begin + 1, begin + STEPS.value + 1):
                last = step == begin + STEPS.value
                if last or step % config['train']['log_every_steps'] == 0:
                    state, means = chunk(state, step)
                    jax.block_until_ready(means)
                if last or step % config['train']['checkpoint_every_steps'] == 0:
                    checkpoints.save(step, state)
            checkpoints.close()
            state = checkpoint.Checkpoints(Path(directory)).restore(run.state_shapes)
        return time.perf_counter() - clock

    train(True)
    parts.clear()
    rounds = [(train(True), train(False)) for _ in range(ROUNDS.value)]
    locked, plain = map(statistics.median, zip(*rounds, strict=True))
    print(f'device  {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
    print(f'model   {config["model"]["layers"]} layers, width {config["model"]["dim"]}, {config["task"]}')
    print(f'run     {STEPS.value} steps, a checkpoint every {config["train"]["checkpoint_every_steps"]}\n')
    print(f'{"with":12}{locked:10.3f} s\n{"without":12}{plain:10.3f} s\n{"ratio":12}{locked / plain:10.3f}')
    for name, seconds in parts.items():
        each = seconds / ROUNDS.value
        print(f'{name:12}{each:10.4f} s, {each / locked:.2%} of the run')


if __name__ == '__main__':
    cli.run(main)
