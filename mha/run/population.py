"""Populations: models that differ only in numbers such as the seed, trained by one program.

    config.population = {'seed': range(10), 'learning_rate': (1e-4, 3e-4, 5e-4)}     # 30 members

Every combination of values is a member. The values are arguments of the compiled program, so that all members share it.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from mha.spec import UserError, choose

SETTINGS = {
    'seed': 'seed',
    'learning_rate': 'optimizer.learning_rate',
    'weight_decay': 'optimizer.weight_decay',
    'dropout_rate': 'model.dropout_rate',
}
"""Settings in which members may differ, each with its config key."""
MOST = 2**14
"""Largest number of members."""

Member = Mapping[str, Any]


def members(config: Mapping[str, Any]) -> list[Member]:
    """Members of a config's population, each with its seed; a single member without a population. Raises
    `UserError`."""
    for name in config['population']:
        choose(name, SETTINGS, 'population')
    varied = {name: config['population'].get(name) for name in SETTINGS}
    varied = {name: values for name, values in varied.items() if values is not None}
    for name, values in varied.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, '__iter__'):
            raise UserError(f'population.{name} must be a sequence of numbers such as (0, 1, 2), not {values!r}')
        kind, kinds = ('whole numbers', (int,)) if name == 'seed' else ('numbers', (int, float))
        right = all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)
        if not right or not list(values) or len(set(values)) < len(list(values)):
            raise UserError(f'population.{name} must hold {kind}, each once, such as (0, 1, 2), not {list(values)}')
    if (count := math.prod(len(values) for values in varied.values())) > MOST:
        raise UserError(f'a population has at most {MOST:,} members, not {count:,}')
    found = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    return [{'seed': config['seed'], **member} for member in found]


def config_of(config: Mapping[str, Any], member: Member) -> dict[str, Any]:
    """Nested config that trains a member alone, as an ordinary run."""
    sections = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for name, value in member.items():
        *path, key = SETTINGS[name].split('.')
        (sections[path[0]] if path else sections)[key] = value
    return sections | {'population': {}}


def named(member: Member) -> str:
    """Name of a member, such as `'seed=0, learning_rate=0.001'`."""
    return ', '.join(f'{name}={value}' for name, value in member.items())
