"""An experiment built from its config: everything a person can get wrong in one fails here, before any work."""

from collections.abc import Mapping
from typing import Any

import jax

from mha import spec, tasks
from mha.machine import parallel
from mha.run import checks, population
from mha.run.experiment import Experiment
from mha.training import curricula


def build(config: Mapping[str, Any], eval_lengths: str | None = None) -> Experiment:
    """Reads and checks a config. `eval_lengths` replaces those of the config, for a run that is trained already: a
    device may be too small to train it. Raises `UserError`."""
    train, members = config['train'], population.members(config)
    checks.numbers(config, members)
    on_cpu = jax.default_backend() == 'cpu'
    together = train['members'] == 'together' or (train['members'] == 'auto' and not on_cpu)
    lengths = spec.lengths(train['lengths'], 'train.lengths')
    with spec.setting('task'):
        task = tasks.make(config['task'], causal=config['model']['causal'])
    with spec.setting('train.curriculum'):
        curriculum = curricula.make(train['curriculum'], lengths, train['steps'])
    experiment = Experiment(
        config=config,
        task=task,
        members=members,
        layout=parallel.Layout(parallel.make_mesh(**config['mesh']), len(members), together),
        curriculum=curriculum,
        eval_lengths=spec.lengths(eval_lengths or config['eval']['lengths'], 'eval.lengths'),
    )
    for check in (*checks.EVALUATION, *(checks.TRAINING if eval_lengths is None else ())):
        check(experiment)
    return experiment
