"""Builder of experiments. Every mistake in a config is found here, before any work is done."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import jax

from mha import spec, tasks
from mha.machine import parallel
from mha.run import checks, population, versions
from mha.run.experiment import Experiment
from mha.spec import UserError
from mha.training import curricula


def build(config: Mapping[str, Any], eval_lengths: str | None = None) -> Experiment:
    """Experiment that a config describes, checked. `eval_lengths` replaces the lengths to evaluate at. It is given for
    runs that are already trained; checks of training are then left out, because this device may be too small to train
    the run. Raises `UserError`."""
    experiment = unchecked(config, eval_lengths)
    for check in (*checks.EVALUATION, *(checks.TRAINING if eval_lengths is None else ())):
        check(experiment)
    return experiment


def unchecked(config: Mapping[str, Any], eval_lengths: str | None = None) -> Experiment:
    """Experiment that a config describes, of which only the single settings are checked."""
    train, members = config['train'], population.members(config)
    checks.settings(config, members)
    on_cpu = jax.default_backend() == 'cpu'
    together = train['members'] == 'together' or (train['members'] == 'auto' and not on_cpu)
    lengths = spec.lengths(train['lengths'], 'train.lengths')
    with spec.setting('task'):
        task = tasks.make(versions.task(config['task']), causal=config['model']['causal'])
    with spec.setting('train.curriculum'):
        curriculum = curricula.make(train['curriculum'], lengths, train['steps'])
    return Experiment(
        config=config,
        task=task,
        members=members,
        layout=parallel.Layout(parallel.make_mesh(**config['mesh']), len(members), together),
        curriculum=curriculum,
        eval_lengths=spec.lengths(eval_lengths or config['eval']['lengths'], 'eval.lengths'),
    )


def check_cells(cells: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `UserError` unless all `cells`, configs by name, can be built. To save time, cells that differ only in
    their seed share one build."""
    built: set[str] = set()
    shown = sys.stderr.isatty() and len(cells) > 1
    with parallel.progress(shown, total=len(cells), unit=' cells', desc='check', leave=False) as bar:
        for name, config in cells.items():
            try:
                checks.settings(config, population.members(config))
                without_seed = json.dumps({**config, 'seed': 0}, default=list)
                if without_seed not in built:
                    build(config)
                built.add(without_seed)
            except UserError as error:
                raise UserError(f'cell {name}: {error}') from error
            bar.update()
