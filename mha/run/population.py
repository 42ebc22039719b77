"""Populations: models that differ in nothing but numbers, trained by one program.

    config.population = {'seed': range(10), 'learning_rate': (1e-4, 3e-4, 5e-4)}     # 30 members

Every combination is a member. What may differ leaves the program as it is: it enters as an argument.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from mha.spec import UserError, choose

SETTINGS = {
    'seed': 'seed',
    'learning_rate': 'optimizer.learning_rate',
    'weight_decay': 'optimizer.weight_decay',
    'dropout_rate': 'model.dropout_rate',
}
"""What members may differ in, and the config's key for it."""

Member = Mapping[str, Any]


def members(config: Mapping[str, Any]) -> list[Member]:
    """The members of a config's population, each with its seed; one without a population. Raises `UserError`."""
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
    found = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    return [{'seed': config['seed'], **member} for member in found]


def config_of(config: Mapping[str, Any], member: Member) -> dict[str, Any]:
    """The config, nested, of the run that a member alone would be."""
    sections = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for name, value in member.items():
        *path, key = SETTINGS[name].split('.')
        (sections[path[0]] if path else sections)[key] = value
    return sections | {'population': {}}


def named(member: Member) -> str:
    """`'seed=0, learning_rate=0.001'`"""
    return ', '.join(f'{name}={value}' for name, value in member.items())
