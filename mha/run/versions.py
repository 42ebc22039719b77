"""Configs of earlier versions, translated to today's keys, so that old runs can be read, resumed and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mha import spec
from mha.run import fields

ADDED = {
    'model.norm_kind': 'layer',
    'model.mlp': 'relu',
    'model.kv_heads': None,
    'model.qk_norm': 'none',
    'model.embedding_norm': 'none',
    'model.output': 'linear',
    'model.tied': False,
    'model.norm_eps': 1e-6,
    'model.init': 'default',
    'model.embedding_dropout': True,
    'model.prefix_lm': False,
    'model.decoder_layers': 0,
    'model.decoder_position': '',
    'model.cross_position': 'none',
    'model.pruned': '',
    'model.normalizer': 'softmax',
    'model.softcap': 0.0,
    'model.gate': 'none',
    'model.mixing': 'none',
    'train.head_penalty': 0.0,
    'train.non_finite': 'stop',
    'eval.every_steps': 0,
}
"""Keys that were added later, each with the value that describes older runs."""


RENAMED = {'text': 'lm'}
"""Earlier names of tasks. The data set of `lm` was its argument `text`."""


def read_config(path: Path) -> dict[str, Any]:
    """Checked config of a run in today's keys."""
    return current(fields.read_config(path))


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested config in today's keys: added keys get the value of older runs, removed keys are translated."""
    config = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    data = config.pop('data', None)
    if data and isinstance(config.get('task'), str):  # arguments of the task; today they are part of its spec
        config['task'] = _with_arguments(config['task'], data)
    if isinstance(config.get('task'), str):
        config['task'] = task(config['task'])
    model = config.get('model')
    if isinstance(model, dict) and model.get('readout') == 'pair':  # today this follows from the task
        model['readout'] = 'token'
    for key, value in ADDED.items():
        section, _, name = key.partition('.')
        if isinstance(config.get(section), dict):
            config[section].setdefault(name, value)
    return config


def task(text: str) -> str:
    """Spec of a task under its name of today."""
    if text.partition('(')[0].strip() not in RENAMED:
        return text
    call, *_ = spec.parse(text)
    arguments = {'data' if name == 'text' else name: value for name, value in call.kwargs.items()}
    return str(spec.Call(RENAMED[call.name], call.args, arguments))


def _with_arguments(task: str, data: Mapping[str, Any]) -> str:
    given = {name: value for name, value in data.items() if value not in ('', None)}
    call, *_ = spec.parse(task)
    return str(spec.Call(call.name, call.args, {**given, **call.kwargs}))


def metric(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Name of the metric of a run's task. Old runs on text say `accuracy` in their summary, but were compared in bits
    per byte."""
    said = summary.get('metric', 'accuracy')
    text = said == 'accuracy' and isinstance(task := config.get('task'), str) and spec.parse(task)[0].name == 'lm'
    return 'bits_per_byte' if text else said
