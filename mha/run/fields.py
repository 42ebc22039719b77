"""Fields of the files of a run, each with the values that it may have. Whoever reads such a file has it checked here,
so that damaged files and those of strangers end in one line that names the file and the field.

Fields may be missing, as in older runs, or null, unless they are needed. Others than those listed are left alone.
"""

import contextlib
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mha.machine import files
from mha.run.population import SETTINGS
from mha.spec import LONGEST, UserError, escaped


class Field(NamedTuple):
    """Values that a field may have, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]
    needed: bool = False


Fields = Mapping[str, Field]


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value < high


def _number(value: Any) -> bool:
    return type(value) is float or _whole(-(2**63), 2**63)(value)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _number(value)


def _plain(value: Any) -> bool:
    return _scalar(value) or (isinstance(value, list) and all(map(_scalar, value)))


def _object(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(of, value.values()))


def _pair_of_lengths(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(LENGTH.holds, value))


def _file_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value != ''
        and Path(value).name == value == escaped(value)
        and len(value.encode()) < 256
    )


TEXT = Field('text', lambda value: isinstance(value, str))
YES_OR_NO = Field('true or false', lambda value: type(value) is bool)
WHOLE = Field('a whole number from 0', _whole(0, 2**63))
COUNT = Field('a whole number from 1', _whole(1, 2**63))
SEED = Field('a whole number', _whole(0, 2**32))
LENGTH = Field(f'a whole number from 1 to {LONGEST:,}', _whole(1, LONGEST + 1))
SHARE = Field('from 0 to 1', lambda value: _number(value) and 0 <= value <= 1)
RATE = Field('a number from 0', lambda value: _number(value) and 0 <= value < math.inf)
LOSS = Field('from 0, or nan', lambda value: _number(value) and not value < 0)
"""Under a scheme that has no value for a position, the loss is NaN."""
NUMBER = Field('a number', _number)
PLAIN = Field('a number, a text or a list of these', _plain)
SECTION = Field('a section', lambda value: _object(value, _plain))
TEXTS = Field('a list of texts', lambda value: isinstance(value, list) and all(map(TEXT.holds, value)))


def _needed(field: Field) -> Field:
    return field._replace(needed=True)


CONFIG = {
    'seed': _needed(SEED),
    'task': TEXT,
    **dict.fromkeys(('population', 'data', 'model', 'train', 'mesh', 'optimizer', 'eval'), SECTION),
    **dict.fromkeys(('model.position', 'model.readout', 'train.final_position', 'train.lengths', 'eval.lengths'), TEXT),
    **dict.fromkeys(('train.steps', 'train.batch_size', 'eval.examples', 'eval.batch_size'), COUNT),
    'model.causal': YES_OR_NO,
    'model.decoder_layers': WHOLE,
    'optimizer.learning_rate': RATE,
    'eval.seed': SEED,
}
"""Fields of config.json. `mha.run.build` checks the others, if the run is built."""
SUMMARY = {
    **dict.fromkeys(('status', 'metric', 'data_sha256', 'init_from'), TEXT),
    **dict.fromkeys(('steps', 'parameters', 'data_train_bytes', 'data_test_bytes'), WHOLE),
    'trained_lengths': Field('the shortest and the longest length', _pair_of_lengths),
    'diverged': Field(
        'a list of members', lambda value: isinstance(value, list) and all(_object(each, _number) for each in value)
    ),
}
"""Fields of summary.json."""
ENVIRONMENT = {
    'init_from': TEXT,
    'changed': Field('true, false or text', lambda value: isinstance(value, bool | str)),
    'versions': Field('texts by the names of packages', lambda value: _object(value, TEXT.holds)),
}
"""Fields of environment.json."""
CELL = Field('the name of a directory', _file_name, needed=True)
MANIFEST = {'cell': CELL, 'overrides': _needed(SECTION)}
FAILURES = {'cell': CELL, 'error': _needed(TEXTS)}
"""Fields of the lines of manifest.jsonl and failures.jsonl."""
TRAINING = {'step': _needed(WHOLE), 'seed': NUMBER}
"""Fields of the lines of metrics.jsonl."""
RESULTS = {
    'seed': _needed(SEED),
    'length': _needed(LENGTH),
    **dict.fromkeys(('accuracy', 'exact_match', 'macro_f1', 'baseline'), SHARE),
    'loss': LOSS,
    'bytes_per_symbol': Field('a number above 0', lambda value: _number(value) and 0 < value < math.inf),
    'examples': _needed(COUNT),
    'step': WHOLE,
    'task': TEXT,
    'position': TEXT,
}
"""Columns of extrapolation.csv, evaluations.csv and evaluation_*.csv."""
POSITIONS = {
    'seed': _needed(SEED),
    'length': _needed(LENGTH),
    'position': _needed(LENGTH),
    'count': _needed(COUNT),
    **dict.fromkeys(('accuracy', 'low', 'high'), _needed(SHARE)),
    **dict.fromkeys(('loss', 'loss_low', 'loss_high'), NUMBER),
}
"""Columns of evaluation_*_positions.csv."""
CONFUSION = {
    'seed': _needed(SEED),
    'length': _needed(LENGTH),
    **dict.fromkeys(('true', 'predicted'), _needed(TEXT)),
    'count': _needed(COUNT),
}
"""Columns of evaluation_*_confusion.csv."""


def check(where: Any, record: Mapping[str, Any], fields: Fields) -> None:
    """Raises `UserError` that begins with `where`, a file, if a field is missing or has another value."""
    for name, field in fields.items():
        value = record.get(name)
        if value is None and field.needed:
            raise UserError(f'{where}: {name!r} is missing')
        if value is not None and not field.holds(value):
            raise UserError(f'{where}: {name!r} must be {field.words}, not {reprlib.repr(value)}')


def read_json(path: Path, fields: Fields) -> dict[str, Any]:
    """Checked object in a JSON file; an empty one if the file does not exist and no field is needed."""
    if not os.path.lexists(path) and not any(field.needed for field in fields.values()):
        return {}
    content = files.read_json(path)
    check(path, content, fields)
    return content


def read_config(path: Path) -> dict[str, Any]:
    """Checked config of a run: sections of plain settings, under the keys that it was written with."""
    config = files.read_json(path)
    if 'model_type' in config:
        raise UserError(f'{path.parent} holds a pretrained model, no run - read it with mha.pretrained.load')
    where = f'{path} is not the config of a run'
    for key, value in config.items():
        if not _plain(value) and not SECTION.holds(value):
            raise UserError(f'{where}: {key!r} must be a section, not {reprlib.repr(value)}')
    sections = {key: value for key, value in config.items() if isinstance(value, dict)}
    if wrong := [key for each in (config, *sections.values()) for key in each if not key.isidentifier()]:
        raise UserError(f'{where}: {reprlib.repr(wrong[0])} is no name of a setting')
    settings = {f'{section}.{key}': value for section, each in sections.items() for key, value in each.items()}
    check(where, config | settings, CONFIG)
    return config


def read_json_lines(path: Path, fields: Fields) -> Iterator[dict[str, Any]]:
    """Records in lines of JSON that have these fields."""
    return checked(files.json_lines(files.read_text(path, errors='replace')), fields) if path.exists() else iter(())


def checked(records: Iterable[dict[str, Any]], fields: Fields) -> Iterator[dict[str, Any]]:
    """Records that have these fields; others are skipped, such as those that a crash has damaged."""
    for record in records:
        with contextlib.suppress(UserError):
            check('', record, fields)
            yield record


def read_table(path: Path, fields: Fields) -> list[dict[str, Any]]:
    """Checked records of a csv file, those columns as numbers that hold numbers. An empty field is None."""
    fields = {**dict.fromkeys(SETTINGS, NUMBER), **fields}
    records = [
        {name: _value(text, fields.get(name, TEXT)) for name, text in record.items()} for record in files.read_csv(path)
    ]
    for number, record in enumerate(records, 1):
        check(f'{path}, record {number}', record, fields)
    return records


def _value(text: str, field: Field) -> Any:
    """Value of a csv field: text, or a number unless it is none. An empty one is None."""
    if field.holds is TEXT.holds:
        return text
    try:
        return int(text) if text.isdecimal() else float(text) if text else None
    except ValueError:
        return text
