"""Position schemes of checkpoints with rotary embeddings: `rope_theta` with `rope_scaling`, or `rope_parameters`, of
config.json as a spec of `mha.positions`."""

import math
from collections.abc import Mapping
from typing import Any

from mha.pretrained.checkpoint import Checkpoint
from mha.spec import Call

THETA = 10000.0


def position(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Spec of the position scheme, and arguments for those that replace it: the base of the frequencies and the trained
    length. Raises `UserError` for a type that no scheme computes."""
    config = checkpoint.config
    settings = config.get('rope_parameters') or config.get('rope_scaling') or {}
    if not isinstance(settings, Mapping) or any(isinstance(value, Mapping) for value in settings.values()):
        raise checkpoint.refusal('rope_parameters', settings, 'one set of numbers for all layers')
    theta = checkpoint.number('rope_theta', checkpoint.number('rope_theta', THETA), settings)
    for where in settings, config:
        if where.get('partial_rotary_factor') not in (None, 1):
            raise checkpoint.refusal('partial_rotary_factor', where['partial_rotary_factor'], '1')
    longest = checkpoint.count('max_position_embeddings')
    original = 'original_max_position_embeddings'  # beside the numbers of the type, or among them
    trained = checkpoint.count(original, checkpoint.count(original, longest, settings=settings))
    kind = settings.get('rope_type') or settings.get('type') or 'default'
    if not isinstance(kind, str) or kind not in TYPES:
        raise checkpoint.refusal('rope_type', kind, ' or '.join(map(repr, TYPES)))

    def number(key: str, default: float) -> float:
        return checkpoint.number(key, default, settings)

    scale = number('factor', longest / trained)
    calls = TYPES[kind](checkpoint, settings, number, scale, trained)
    calls = [*calls[:-1], Call(calls[-1].name, (), {'theta': theta, **calls[-1].kwargs})]
    return '|'.join(map(str, calls)), {'theta': theta, 'original_length': trained}


def _default(checkpoint, settings, number, scale, trained):
    return [Call('rope')]


def _linear(checkpoint, settings, number, scale, trained):
    return [Call('pi', (), {'scale': scale}), Call('rope')]


def _dynamic(checkpoint, settings, number, scale, trained):
    longest = checkpoint.count('max_position_embeddings')
    return [Call('ntk', (), {'scale': scale, 'dynamic': True, 'original_length': longest})]


def _llama3(checkpoint, settings, number, scale, trained):
    low, high = number('low_freq_factor', 1.0), number('high_freq_factor', 4.0)
    return [Call('llama3', (), {'scale': scale, 'low': low, 'high': high, 'original_length': trained})]


def _yarn(checkpoint, settings, number, scale, trained):
    if not settings.get('truncate', True):
        raise checkpoint.refusal('truncate', False, 'True')
    arguments = {'scale': scale, 'original_length': trained}
    arguments |= {name: number(name, default) for name, default in (('beta_fast', 32.0), ('beta_slow', 1.0))}
    growth = 0.1 * math.log(max(scale, 1.0))
    by_default = growth + 1
    if settings.get('mscale') and settings.get('mscale_all_dim'):
        by_default = (number('mscale', 1.0) * growth + 1) / (number('mscale_all_dim', 1.0) * growth + 1)
    return [Call('yarn', (), arguments | {'attention_factor': number('attention_factor', by_default)})]


def _longrope(checkpoint, settings, number, scale, trained):
    factors = {}
    for ours, theirs in (('factors', 'long_factor'), ('short_factors', 'short_factor')):
        if not isinstance(settings.get(theirs), list | tuple):
            raise checkpoint.refusal(theirs, settings.get(theirs), 'a list of numbers')
        factors[ours] = tuple(settings[theirs])
    by_default = math.sqrt(1 + math.log(max(scale, 1.0)) / math.log(max(trained, 2)))
    factor = number('attention_factor', by_default)
    if not 1 <= factor <= 2:
        raise checkpoint.refusal('attention_factor', factor, 'from 1 to 2')
    scale = trained ** (factor**2 - 1)  # of which the scheme computes this factor
    return [Call('longrope', (), {**factors, 'scale': max(scale, 1.0), 'original_length': trained})]


TYPES = {
    'default': _default,
    'linear': _linear,
    'dynamic': _dynamic,
    'yarn': _yarn,
    'llama3': _llama3,
    'longrope': _longrope,
}
"""Types of scaling, each with the calls of its spec, of which the last one takes theta."""
