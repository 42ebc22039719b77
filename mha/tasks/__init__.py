"""Tasks, one file each; a task's name is its file's name. `make('reverse_string')` builds one from its spec."""

import sys

from mha import arguments, spec
from mha.tasks.base import Batch, Task

__all__ = ['Batch', 'Task', 'example', 'make', 'names']


def names() -> tuple[str, ...]:
    """Names of all tasks: those of the files beside this one."""
    return spec.names(sys.modules[__name__])


def example(name: str) -> str:
    """Shortest spec that builds a task: its name, with arguments if any are required."""
    arguments = spec.load(sys.modules[__name__], name, Task, 'task').example_arguments
    return f'{name}({arguments})' if arguments else name


@arguments.checked
def make(text: str, *, causal: bool = False) -> Task:
    """Task that a spec such as `"odds_first(order='released')"` describes, for a causal or a bidirectional model.
    Raises a one-line `ValueError` for a wrong name or argument."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'task {text!r}: tasks do not compose')
    kind = spec.load(sys.modules[__name__], call.name, Task, 'task')
    return arguments.build(kind, call, 'task', causal=causal)
