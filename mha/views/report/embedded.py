"""Data that report.html embeds as JSON for its script: results of rows, training curves, and accuracy per position of
the answer. Numbers that are not finite become null."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mha.machine import files
from mha.run import fields
from mha.run.population import SETTINGS
from mha.spec import UserError
from mha.views.report import plots, statistics
from mha.views.report.comparison import Comparison
from mha.views.report.runs import Run

POINTS = 200
"""Largest number of points of a training curve."""
CELLS = 64
"""Largest number of columns of a heatmap; more positions are averaged in groups."""
MOST_TABLES = 100
"""Largest number of files of accuracies per position that a page reads."""
TRAINING = ('loss', 'accuracy')
"""Training metrics that the page draws."""
NAMED = ('step', *SETTINGS)
"""Fields of metrics.jsonl that are no metrics."""


def page_data(comparison: Comparison) -> dict[str, Any]:
    """Everything that the script of the page draws."""
    metric = comparison.metric
    problems = list(dict.fromkeys(row.problem for row in comparison.rows))
    return {
        'metric': {'name': metric.name, 'title': metric.title, 'best': metric.best, 'limits': _finite(metric.limits)},
        'interval': comparison.interval,
        'panels': comparison.panels,
        'keys': comparison.keys,
        'headers': comparison.headers,
        'follows': list(comparison.follows),
        'lengths': comparison.lengths,
        'problems': [', '.join(problem) for problem in problems],
        'baselines': [
            _finite(comparison.baselines[problem]) if problem in comparison.baselines else None for problem in problems
        ],
        'palette': plots.PALETTE,
        'dashes': [_dashes(style) for style in plots.DASHES],
        'rows': [
            {
                'labels': row.labels,
                'problem': problems.index(row.problem),
                'trained': row.trained,
                'seeds': row.seeds,
                'diverged': row.diverged,
                'values': [_finite(line) for line in row.values],
                'mean': _finite(row.values.mean(0)),
                'low': _finite(low),
                'high': _finite(high),
            }
            for row in comparison.rows
            for low, high in [statistics.interval(row.values, comparison.interval)]
        ],
        'training': _training(comparison),
        'positions': _positions(comparison),
    }


def _finite(values: Any) -> list[float | None]:
    return [float(f'{value:.5g}') if math.isfinite(value) else None for value in map(float, values)]


def _dashes(style: Any) -> str:
    """Dashes of matplotlib, in line widths, as those of SVG."""
    return '' if style == '-' else ' '.join(f'{2 * length:g}' for length in style[1])


def _runs_of_rows(comparison: Comparison) -> Iterator[tuple[int, Run]]:
    """Runs with the index of their row; runs whose row was not chosen are left out."""
    rows = {row.labels: index for index, row in enumerate(comparison.rows)}
    for run in comparison.runs:
        labels = tuple(run.setting(key) for key in comparison.keys)
        if labels in rows:
            yield rows[labels], run


# ------------------------------------------------------------------------------------------------------------ training
def _training(comparison: Comparison) -> list[dict[str, Any]]:
    """Training curves: the row, the seed, and one list of numbers for `step` and each metric."""
    return [
        {'row': index, **curve}
        for index, run in _runs_of_rows(comparison)
        for curve in training_curves(run)
        if curve['step']
    ]


def training_curves(run: Run) -> list[dict[str, Any]]:
    """Training curves of a run, one per seed, thinned to about `POINTS` points before any of them is parsed."""
    try:
        lines = files.read_text(run.path / 'metrics.jsonl', errors='replace').splitlines()
    except UserError:
        return []
    own = {name: run.config.get(key) for name, key in SETTINGS.items() if name != 'seed'}
    curves: dict[int, dict[str, Any]] = {}
    for record in _thinned(lines):
        if any(name in record and record[name] != own[name] for name in own):
            continue  # a member in another row
        seed = record.get('seed', run.config['seed'])
        curve = curves.setdefault(seed, {'seed': seed, **{name: [] for name in ('step', *TRAINING)}})
        curve['step'].append(record['step'])
        for name in TRAINING:
            curve[name] += _finite([_as_number(record.get(name))])
    return list(curves.values())


def _thinned(lines: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Records of evenly spaced log steps, of all members, with the last one."""
    first = next(_records(lines[:1]), None)
    if first is None:
        return
    members = sum(1 for _ in itertools.takewhile(lambda record: record['step'] == first['step'], _records(lines)))
    count = math.ceil(len(lines) / members)
    for block in np.unique(np.linspace(0, count - 1, min(POINTS, count)).round().astype(int)):
        yield from _records(lines[block * members : (block + 1) * members])


def _records(lines: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Records that can be read; the last line of a killed run may be cut."""
    return fields.checked(files.json_lines('\n'.join(lines)), fields.TRAINING)


def _as_number(value: Any) -> float:
    return float(value) if fields.NUMBER.holds(value) else math.nan


# ---------------------------------------------------------------------------------------------------------- positions
def _positions(comparison: Comparison) -> list[dict[str, Any]]:
    """Heatmaps of accuracy [lengths, groups of positions], one per row and evaluation with a file of `eval.py
    --per_position`, averaged over seeds."""
    tables = [
        (index, run, path)
        for index, run in _runs_of_rows(comparison)
        for path in sorted(run.path.glob('*_positions.csv'))
    ]
    sums: dict[tuple[int, str], dict[tuple[int, int], list[float]]] = {}
    for index, run, path in tables[:MOST_TABLES]:
        for length, position, accuracy in _accuracies(run, path):
            cells = sums.setdefault((index, path.stem.removesuffix('_positions')), {})
            cells.setdefault((length, position), []).append(accuracy)
    found = []
    for (index, name), cells in sums.items():
        lengths, last = sorted({length for length, _ in cells}), max(position for _, position in cells)
        width = math.ceil(last / CELLS)
        groups: dict[tuple[int, int], list[float]] = {}
        for (length, position), values in cells.items():
            groups.setdefault((length, (position - 1) // width), []).extend(values)
        values = [
            _finite([np.mean(groups.get((length, group), [math.nan])) for group in range(math.ceil(last / width))])
            for length in lengths
        ]
        found.append({'row': index, 'name': name, 'lengths': lengths, 'width': width, 'last': last, 'values': values})
    return found


def _accuracies(run: Run, path: Any) -> list[tuple[int, int, float]]:
    """Length, position and accuracy of the records of a run; none if the file cannot be read."""
    with contextlib.suppress(UserError):
        return [
            (record['length'], record['position'], record['accuracy'])
            for record in fields.read_table(path, fields.POSITIONS)
            if all(
                record[name] == run.config.get(key)
                for name, key in SETTINGS.items()
                if name in record and name != 'seed'
            )
        ]
    return []
