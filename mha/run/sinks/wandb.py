"""Weights & Biases (https://wandb.ai)."""

import secrets
from typing import Any

from mha.run.sinks.base import Sink, group, identity, package
from mha.spec import flatten


class WandB(Sink):
    """Run of Weights & Biases, named like the directory; cells of a sweep are one group. Values at training steps have
    the step as x-axis, those of the evaluation the length. Where they go and whether at once is set by the variables of
    wandb, such as `WANDB_MODE=offline`."""

    def __init__(self, project: str = 'mha', entity: str | None = None):
        self.wandb = package('wandb')
        self.project, self.entity = project, entity
        self.run: Any = None

    def start(self, workdir, config, step):
        self.run = self.wandb.init(
            project=self.project,
            entity=self.entity,
            id=identity(workdir, 'wandb', lambda: secrets.token_hex(4)),
            resume='allow',
            name=workdir.absolute().name,
            group=group(workdir),
            config=flatten(config),
            dir=workdir,
            settings=self.wandb.Settings(console='off', quiet=True),
        )
        self.run.define_metric('length', hidden=True)
        self.run.define_metric('extrapolation/*', step_metric='length')

    def write(self, step, values):
        self.run.log(dict(values), step=step)  # ignored for steps that it has: a resumed run repeats their values

    def evaluated(self, curves, scores):
        for length, values in curves:
            self.run.log({'length': length, **values})
        self.run.summary.update(dict(scores))

    def close(self, finished):
        self.run.finish(exit_code=0 if finished else 1)
