"""Everything that a spec can name."""

from mha import cores, mixing, normalizers, positions, spec, tasks
from mha.model import initial, mlp
from mha.nn import masks
from mha.positions import Position
from mha.training import curricula, optim

KINDS = {  # each with its number of leading parameters that a spec does not set
    'position': {name: (spec.load(positions, name, Position, ''), 1) for name in positions.names()},
    'task': {name: (spec.load(tasks, name, tasks.Task, ''), 0) for name in tasks.names()},
    'core': {name: (spec.load(cores, name, cores.Core, ''), 0) for name in cores.names()},
    'pattern': {name: (kind, name in masks.OF_HEADS) for name, kind in masks.PATTERNS.items()},
    'normalizer': {n: (spec.load(normalizers, n, normalizers.Normalizer, ''), 1) for n in normalizers.names()},
    'mixing': {name: (mixing.kind(name), 2) for name in mixing.names()},
    'optimizer': {name: (function, 2) for name, function in optim.OPTIMIZERS.items()},
    'schedule': {name: (function, 3) for name, function in optim.SCHEDULES.items()} | {'warmup': (optim.warmup, 2)},
    'curriculum': {name: (function, 2) for name, function in curricula.CURRICULA.items()},
    'mlp': dict.fromkeys([*mlp.ACTIVATIONS, *mlp.GATED], (mlp._width, 0)),
    'init': {name: (function, 2) for name, function in initial.INITIALS.items()},
}
"""Classes and functions of each kind by name."""
