"""Sinks show the metrics of a run elsewhere, as TensorBoard and Weights & Biases do. Each is one file, named like its
spec: `--log_to="wandb(project='heads')"`."""

import sys
from collections.abc import Iterable

from mha import arguments, spec
from mha.run.sinks.base import Sink, Values

__all__ = ['Sink', 'Values', 'make', 'names']


def names() -> tuple[str, ...]:
    """Names of all sinks."""
    return spec.names(sys.modules[__name__])


def make(texts: Iterable[str]) -> list[Sink]:
    """Sinks that specs describe, after TensorBoard, which every run has. Raises `UserError` for mistakes, also if a
    package is not installed."""
    found: dict[type, Sink] = {}
    for text in dict.fromkeys(('tensorboard', *texts)):
        call, *more = spec.parse(text)
        kind = spec.load(sys.modules[__name__], call.name, Sink, 'sink')
        if more or kind in found:
            raise spec.UserError(f'--log_to={text}: repeat the flag for other sinks, each once')
        found[kind] = arguments.build(kind, call, 'sink')
    return list(found.values())
