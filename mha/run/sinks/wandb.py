"""Weights & Biases (https://wandb.ai)."""

import os
import secrets
from typing import Any

from mha.run.sinks.base import Sink, group, identity, package
from mha.spec import flatten


class WandB(Sink):
    """Run of Weights & Biases, named like the directory; cells of a sweep are one group. Values at training steps have
    the step as x-axis, those of the evaluation the length. A resumed run repeats some steps, with the same values.
    Log-in and mode are set by the variables of wandb, such as `WANDB_MODE=offline`."""

    def __init__(self, project: str | None = None, entity: str | None = None):
        self.wandb = package('wandb')
        self.project, self.entity = project, entity
        self.run: Any = None

    def start(self, workdir, config, step):
        self.run = self.wandb.init(
            project=self.project or os.environ.get('WANDB_PROJECT', 'mha'),
            entity=self.entity,
            id=identity(workdir, 'wandb', lambda: secrets.token_hex(4)),
            resume='allow',
            name=workdir.absolute().name,
            group=group(workdir),
            config=flatten(config),
            dir=workdir,
            settings=self.wandb.Settings(console='off', quiet=True),
        )
        for axis in 'step', 'length':
            self.run.define_metric(axis, hidden=True)
        self.run.define_metric('*', step_metric='step')
        self.run.define_metric('extrapolation/*', step_metric='length')

    def write(self, step, values):
        self.run.log({'step': step, **values})

    def evaluated(self, curves, scores):
        for length, values in curves:
            self.run.log({'length': length, **values})
        self.run.summary.update(dict(scores))

    def close(self, finished):
        self.run.finish(exit_code=0 if finished else 1)
