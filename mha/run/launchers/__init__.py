"""Launchers run the cells of a sweep. Each is one file, named like its spec: `--cluster=local`,
`--cluster="slurm(partition='gpu')"`."""

import sys

from mha import arguments, spec
from mha.run.launchers.base import TRAIN, Grid, Launcher

__all__ = ['TRAIN', 'Grid', 'Launcher', 'make', 'names']


def names() -> tuple[str, ...]:
    """Names of all launchers."""
    return spec.names(sys.modules[__name__])


def make(text: str, jobs: int | None) -> Launcher:
    """Launcher that a spec describes. Raises `UserError`, which lists the choices."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'--cluster={text}: one launcher runs a sweep, not {1 + len(more)}')
    kind = spec.load(sys.modules[__name__], call.name, Launcher, 'cluster')
    return arguments.build(kind, call, 'cluster', jobs)
