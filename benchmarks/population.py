"""Time of training a population, together (vectorised) and one member after the other, relative to one member.

    python benchmarks/population.py [--members=30] [--steps=20] [--config=configs/length_generalization.py]

Runs the same program as train.py, after warm-up. Rounds alternate, and times are medians. The members differ in their
seed. A ratio below the number of members means that the population trains faster than its members would separately.
"""
# ruff: noqa: E402

import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax
from absl import flags
from ml_collections import config_flags

from mha import cli
from mha.machine import parallel
from mha.run.build import build
from mha.run.experiment import at_once

CONFIG = config_flags.DEFINE_config_file('config', str(ROOT / 'configs/length_generalization.py'), 'Experiment.')
MEMBERS = flags.DEFINE_integer('members', 30, 'Members of the population.', lower_bound=2)
STEPS = flags.DEFINE_integer('steps', 20, 'Steps per round.', lower_bound=1)
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Number of rounds.', lower_bound=1)


class Training:
    """Training of one population, compiled and warmed up."""

    def __init__(self, members: int, how: str):
        config = CONFIG.value.to_dict()
        config['population'] = {'seed': range(members)}
        config['train']['members'] = how
        run = build(config)
        self.state, self.chunk = run.init(), run.chunk()
        self.seconds: list[float] = []
        self.round()
        self.seconds.clear()

    def round(self) -> None:
        clock = time.perf_counter()
        self.state, means = self.chunk(self.state, int(self.state.step) + STEPS.value)
        jax.block_until_ready(means)
        self.seconds.append(time.perf_counter() - clock)


def main() -> None:
    many = MEMBERS.value
    parallel.use_cores(at_once(CONFIG.value.train))
    trainings = {'1': Training(1, 'in turn')}
    trainings |= {f'{many} {how}': Training(many, how) for how in ('in turn', 'together')}
    for _ in range(ROUNDS.value):
        for training in trainings.values():
            training.round()
    config = CONFIG.value
    print(f'device  {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
    print(f'model   {config.model.layers} layers, width {config.model.dim}, {config.task}, {config.model.position}')
    print(f'step    batch {config.train.batch_size}, lengths {config.train.lengths}\n')
    print(f'{"members":16}{"steps/s":>10}{"times one member":>20}')
    one = statistics.median(trainings['1'].seconds)
    for name, training in trainings.items():
        took = statistics.median(training.seconds)
        print(f'{name:16}{STEPS.value / took:10.2f}{took / one:19.2f}x')


if __name__ == '__main__':
    cli.run(main)
