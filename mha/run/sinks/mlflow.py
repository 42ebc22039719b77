"""MLflow (https://mlflow.org)."""

import re
import time
from typing import Any

from mha.run.sinks.base import Sink, group, identity, package
from mha.spec import flatten

LONGEST_PARAMETER = 6000
"""Longest value of a parameter that MLflow accepts, in characters."""


class MLflow(Sink):
    """Run of an MLflow experiment, named like the directory. The server is that of the variable `MLFLOW_TRACKING_URI`.
    Curves over length have the length as step."""

    def __init__(self, experiment: str = 'mha'):
        self.mlflow = package('mlflow')
        self.experiment = experiment
        self.client: Any = None

    def start(self, workdir, config, step):
        self.client = self.mlflow.MlflowClient()
        found = self.client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self.client.create_experiment(self.experiment)
        tags = {'sweep': name} if (name := group(workdir)) else {}
        name = workdir.absolute().name
        self.id = identity(
            workdir, 'mlflow', lambda: self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        )
        if self.client.get_run(self.id).data.params:
            self.client.set_terminated(self.id, 'RUNNING')
            return
        settings = [
            self.mlflow.entities.Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in flatten(config).items()
        ]
        self.client.log_batch(self.id, params=settings)

    def write(self, step, values):
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.id, [self.mlflow.entities.Metric(_name(name), value, now, step) for name, value in values.items()]
        )

    def evaluated(self, curves, scores):
        for length, values in curves:
            self.write(length, values)
        self.write(0, scores)

    def close(self, finished):
        self.client.set_terminated(self.id, 'FINISHED' if finished else 'FAILED')


def _name(name: str) -> str:
    """Name with other characters than MLflow accepts replaced."""
    return re.sub(r'[^\w\-./ ]', '_', name)
