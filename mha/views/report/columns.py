"""Columns of a report, each defined once. The terminal, table.csv, seeds.csv, table.md and report.html read this
list."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from mha.training.metrics import Metric, number
from mha.views.report import statistics
from mha.views.report.comparison import Comparison, Problem, Range, Row, longest
from mha.views.report.runs import compact, span

NOT_ABOVE, BEYOND, SURVIVORS = '†', '‡', '§'
"""Marks of a score that is not above the baseline, of an interval that extends beyond the metric's limits, and of a
mean over those seeds that did not diverge."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """Formatted cell: a value and, for several seeds, the interval and the best seed."""

    value: str
    spread: str = ''
    best: str = ''

    def text(self, with_best: bool) -> str:
        best = f'({self.best})' if self.best and with_best else ''
        return ' '.join(part for part in (self.value, self.spread, best) if part)


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Column:
    """Column of a report. In csv files it may become several: `fields` are written for every row and every seed,
    `spread` only for rows."""

    header: str = ''
    """Title in tables for people; a column without a title is for csv files only."""
    kind: Literal['label', 'number', 'score'] = 'number'
    show: Callable[[Row], Shown] = lambda row: Shown('')
    baseline: Callable[[Problem], str] = lambda problem: ''
    fields: Callable[[Row], dict[str, Any]] = _nothing
    spread: Callable[[Row], dict[str, Any]] = _nothing


def columns(comparison: Comparison) -> list[Column]:
    labels = [_label(comparison, index) for index in range(len(comparison.keys))]
    scores = [_over(comparison, over, comparison.metric) for over in comparison.ranges]
    scores += [_over(comparison, comparison.ranges[-1], metric) for metric in comparison.more_metrics]
    return [_task(), *labels, *scores, _seeds(), _parameters(), *_judged(comparison), _meaning(comparison)]


def shown(comparison: Comparison) -> list[Column]:
    """Columns of tables for people."""
    return [column for column in columns(comparison) if column.header]


def _task() -> Column:
    return Column(fields=lambda row: {'task': row.problem[0]})


def _label(comparison: Comparison, index: int) -> Column:
    key, (first, *_) = comparison.keys[index], comparison.labelled
    return Column(
        '' if key in comparison.follows else comparison.headers[index],
        'label',
        show=lambda row: Shown(row.labels[index]),
        baseline=lambda problem: comparison.baseline_label(problem) if index == first else '',
        fields=lambda row: {key: row.labels[index]},
    )


def _over(comparison: Comparison, over: Range, metric: Metric) -> Column:
    """Column of the mean over a range of lengths; the last range is the score."""
    own = metric == comparison.metric
    score = own and over == comparison.ranges[-1]
    low, high = metric.limits
    name, key = over.name, over.key
    if not own:
        name = name.replace('score', metric.header) if 'score' in name else f'{metric.header}, {name}'
        key = f'{key}_{metric.name}'

    def show(row: Row) -> Shown:
        cell = comparison.cell(row, over, metric)
        if not over.inside(comparison.lengths, row.trained).any():
            return Shown('-')
        value = number(cell.mean)
        value += f' {NOT_ABOVE}' if score and comparison.beats_baseline(row) is False else ''
        value += f' {SURVIVORS}' if row.diverged else ''
        if len(row.seeds) == 1:
            return Shown(value)
        reaches = cell.interval[0] < low or cell.interval[1] > high
        mark = f' {BEYOND}' if reaches else ''
        return Shown(value, f'{cell.spread}{mark}', f'{metric.best} {number(cell.best)}')

    def baseline(problem: Problem) -> str:
        trained = {row.trained for row in comparison.rows if row.problem == problem}
        if not own or (over.own and len(trained) > 1):
            return ''
        return number(comparison.baseline(problem, over, trained.pop()))

    def fields(row: Row) -> dict[str, Any]:
        found = {key: _rounded(comparison.cell(row, over, metric).mean)}
        if own and comparison.baselines:
            known = row.problem in comparison.baselines
            found[f'{key}_baseline'] = _rounded(comparison.baseline(row.problem, over, row.trained)) if known else ''
        return found

    def spread(row: Row) -> dict[str, Any]:
        cell = comparison.cell(row, over, metric)
        several = {'sd': cell.deviation, 'ci95': cell.half_width, metric.best: cell.best}
        if score or comparison.interval == 'bootstrap':
            several |= dict(zip(('bootstrap_low', 'bootstrap_high'), statistics.bootstrap(cell.scores), strict=True))
        return {f'{key}_{name}': _rounded(value) for name, value in several.items()}

    return Column(name, 'score' if score else 'number', show, baseline, fields, spread)


def _seeds() -> Column:
    def show(row: Row) -> Shown:
        number, whole = len(row.seeds), len(row.seeds) + row.diverged
        return Shown(f'{f"{number} of {whole}" if row.diverged else whole} seed{"s" * (whole > 1)}')

    return Column('seeds', show=show, spread=lambda row: {'seeds': len(row.seeds), 'diverged': row.diverged})


def _parameters() -> Column:
    def show(row: Row) -> Shown:
        return Shown('' if row.parameters is None else f'{row.parameters:,}')

    return Column('parameters', show=show, fields=lambda row: {'parameters': row.parameters})


def _judged(comparison: Comparison) -> list[Column]:
    """Columns that say whether a row beats the baseline, and the longest length that it solves."""
    found = [Column(fields=lambda row: {'beats_baseline': comparison.beats_baseline(row)})]
    if comparison.metric.best == 'max':
        found.append(
            Column(fields=lambda row: {'longest_solved': longest(comparison.lengths, row.values.mean(0))}),
        )
    return found


def _meaning(comparison: Comparison) -> Column:
    """Columns that say what the numbers of a row mean."""

    def fields(row: Row) -> dict[str, Any]:
        return {
            'metric': comparison.metric.title,
            'trained_lengths': span(row.trained),
            'evaluated_lengths': compact(comparison.lengths),
        }

    return Column(fields=fields)


def _rounded(value: float) -> float | str:
    return '' if math.isnan(value) else round(value, 6)
