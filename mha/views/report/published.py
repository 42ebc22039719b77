"""Results as their authors published them, and how the settings of a run differ from theirs.

Each table is two files in `published/`. `<name>.csv` has one row per number: the task and the scheme as specs of ours,
where we have them, and as the paper labels them; accuracies are shares from 0 to 1. `<name>.json` has the protocol and
the settings of the paper, as keys of our configs.
"""

import ast
import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mha import spec
from mha.run import versions

FOLDER = Path(__file__).with_name('published')
MARKS = {
    'verified': "read in the authors' text or files, or computed from the results they released",
    'recalled': 'from memory: not a bound for a test',
}
"""Marks of numbers, with their meaning."""
SPECS = ('task', 'model.position', 'model.mlp', 'optimizer.name', 'optimizer.schedule', 'train.curriculum')


@dataclasses.dataclass(frozen=True)
class Row:
    """One published number."""

    task: str
    """A spec of ours; empty where we have no such task."""
    scheme: str
    """A spec of ours; empty where the row is not about position schemes."""
    task_label: str
    """Name of the task in the paper."""
    scheme_label: str
    """Name of the scheme, or of the model, in the paper."""
    settings: Mapping[str, Any]
    """Settings in which the row departs from those of its table."""
    metric: str
    """A name in `mha.training.metrics`, or 'perplexity' or 'bleu'."""
    aggregation: str
    """'mean' or 'maximum' over the runs of the protocol, or 'one run'."""
    lengths: tuple[int, ...]
    """The evaluated lengths, over which the value is a mean; none where the paper has no such choice."""
    value: float
    low: float | None
    """With `high`, the spread over runs; None where it is not known."""
    high: float | None
    mark: str
    """One of `MARKS`."""
    source: str


@dataclasses.dataclass(frozen=True)
class Published:
    """A table of a paper."""

    name: str
    title: str
    authors: str
    year: int
    arxiv: str
    table: str
    """Place of the numbers in the paper."""
    config: str
    """File name of the config with these settings in `configs/published/`; empty where there is none."""
    protocol: str
    """One sentence: metric, lengths, examples, aggregation, seeds, learning rates, steps, batches."""
    settings: Mapping[str, Any]
    """Settings by key of our configs; a list holds the choices among which the authors searched."""
    tasks: Mapping[str, Mapping[str, Any]]
    """Settings of single tasks, by their label."""
    recalled: Sequence[str]
    """Keys of settings that are recalled; the others are verified."""
    notes: Sequence[str]
    rows: tuple[Row, ...]

    def like(self, task: str, scheme: str) -> list[Row]:
        """Rows whose task and scheme have the same names as these specs, whatever the arguments. If the table has
        several tasks of that name, rows of the equal one, or of the only one that differs in numbers alone."""
        wanted = _names(task), _names(scheme)
        variants = {row.task for row in self.rows if _names(row.task) == wanted[0]}
        equal = {variant for variant in variants if _calls(variant) == _calls(task)}
        alike = {variant for variant in variants if _without_numbers(variant) == _without_numbers(task)}
        found = equal or (variants if len(variants) == 1 else alike if len(alike) == 1 else set())
        return [row for row in self.rows if row.task in found and _names(row.scheme) == wanted[1]]

    def settings_of(self, row: Row) -> dict[str, Any]:
        """The settings behind a row."""
        specs = {'task': row.task, 'model.position': row.scheme}
        own = {key: text for key, text in specs.items() if text}
        return {**self.settings, **self.tasks.get(row.task_label, {}), **own, **row.settings}


def names() -> tuple[str, ...]:
    """The published tables there are."""
    return tuple(sorted(path.stem for path in FOLDER.glob('*.csv')))


def load(name: str) -> Published:
    """The published table `name`; raises `UserError` with the choices if there is none."""
    spec.choose(name, names(), 'published table')
    header = json.loads((FOLDER / f'{name}.json').read_text(encoding='utf-8'))
    with (FOLDER / f'{name}.csv').open(newline='', encoding='utf-8') as file:
        rows = tuple(_row(record) for record in csv.DictReader(file))
    return Published(name=name, rows=rows, tasks=header.pop('tasks', {}), **header)


def differences(published: Published, config: Mapping[str, Any], row: Row | None = None) -> list[tuple[str, Any, Any]]:
    """Settings in which a run's config, nested or flat, departs from the published ones: `(key, theirs, ours)`. With a
    `row`, those behind it, task and scheme included. Settings that the paper does not tell are not compared; other
    lengths may be evaluated beside theirs."""
    flat = {**versions.ADDED, **spec.flatten(config)}
    theirs = published.settings if row is None else published.settings_of(row)
    found = []
    for key, value in theirs.items():
        ours = _setting(flat, key)
        if not any(_same(key, each, ours) for each in _choices(value)):
            found.append((key, value, ours))
    return found


def _row(record: dict[str, str]) -> Row:
    settings = (setting.split('=', 1) for setting in record.pop('settings').split())
    lengths, value, low, high = (record.pop(name) for name in ('lengths', 'value', 'low', 'high'))
    return Row(
        **record,
        settings={key: _literal(text) for key, text in settings},
        lengths=spec.lengths(lengths) if lengths else (),
        value=float(value),
        low=float(low) if low else None,
        high=float(high) if high else None,
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _calls(text: str) -> list[list[spec.Call]]:
    """The calls of each spec of a list, with what their spelling does not change."""
    return [spec.parse(part) for part in spec.split(text)] if text else []


def _names(text: str) -> list[list[str]]:
    return [[call.name for call in calls] for calls in _calls(text)]


def _without_numbers(text: str) -> list[list[tuple[str, dict[Any, Any]]]]:
    """Names and arguments of a spec's calls, but for numbers."""

    def kept(call: spec.Call) -> dict[Any, Any]:
        given = {**dict(enumerate(call.args)), **call.kwargs}
        return {name: value for name, value in given.items() if type(value) not in (int, float)}

    return [[(call.name, kept(call)) for call in calls] for calls in _calls(text)]


def _setting(flat: Mapping[str, Any], key: str) -> Any:
    """A setting of ours, with what an unset one stands for."""
    varied = flat.get(f'population.{key.rpartition(".")[2]}')
    if key.startswith('optimizer.') and varied:
        return tuple(varied)
    if flat.get(key) is None and key == 'model.mlp_dim':
        return 4 * flat['model.dim']
    if flat.get(key) is None and key == 'model.head_dim':
        return flat['model.dim'] // flat['model.heads']
    return flat.get(key)


def _choices(value: Any) -> Sequence[Any]:
    return [value, *value] if isinstance(value, list | tuple) else [value]


def _same(key: str, theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, list | tuple):
        return isinstance(ours, list | tuple) and set(theirs) == set(ours)
    if key == 'train.lengths' and ours is not None:
        return spec.lengths(theirs) == spec.lengths(ours)
    if key == 'eval.lengths' and ours is not None:
        return {*spec.lengths(theirs)} <= {*spec.lengths(ours)}
    if key in SPECS and ours is not None:
        return _calls(theirs) == _calls(ours)
    return theirs == ours
