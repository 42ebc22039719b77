"""Published numbers beside those of a comparison, with every difference in settings."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mha import spec
from mha.machine import files
from mha.spec import UserError, as_text, compact
from mha.training.metrics import number
from mha.views.report import published
from mha.views.report.columns import SURVIVORS
from mha.views.report.comparison import Comparison, Row
from mha.views.report.published import Published
from mha.views.report.runs import Run
from mha.views.report.statistics import Cell, mean_reciprocal_rank
from mha.views.report.table import Section

HEADERS = ('task', 'scheme', 'theirs', 'aggregation', 'lengths', 'mark', 'ours', 'best seed', 'our lengths')


@dataclasses.dataclass(frozen=True)
class Beside:
    """A published number and ours. `lengths` are those of theirs that we evaluated, both as multiples of the longest
    trained length, or, without any, all of ours beyond the trained ones."""

    theirs: published.Row
    ours: Row
    lengths: tuple[int, ...]
    measured: Cell


def pairs(comparison: Comparison, table: Published) -> list[Beside]:
    """The rows that have a number in the table: equal names of task and scheme, equal metric. Raises `UserError` if
    there is none."""
    found = []
    for row in comparison.rows:
        run = _run(comparison, row)
        for theirs in table.like(run.setting('task'), run.setting('model.position')):
            if theirs.metric == comparison.metric.name:
                found.append(_beside(comparison, table, row, theirs))
    if not found:
        tasks, schemes = ({getattr(row, name) for row in table.rows} - {''} for name in ('task', 'scheme'))
        raise UserError(
            f'no compared run has a number in {table.name} - it has the tasks {", ".join(sorted(tasks))} and the '
            f'schemes {", ".join(sorted(schemes))}'
        )
    return found


def _beside(comparison: Comparison, table: Published, row: Row, theirs: published.Row) -> Beside:
    evaluated, trained = np.array(comparison.lengths), row.trained[1]
    longest = _longest(table, theirs) or trained
    inside = np.isin(-(-evaluated * longest // trained), theirs.lengths)
    if not inside.any():
        inside = evaluated > trained
    return Beside(theirs, row, tuple(evaluated[inside].tolist()), comparison.over_seeds(comparison.scores(row, inside)))


def _longest(table: Published, theirs: published.Row) -> int | None:
    """Longest length on which the authors trained; None if the table does not tell."""
    lengths = table.settings_of(theirs).get('train.lengths')
    return max(spec.lengths(lengths)) if lengths else None


def _scaled(found: Sequence[Beside], table: Published) -> list[str]:
    """A note on lengths, if theirs and ours are compared as multiples of different trained lengths."""
    trained = {(_longest(table, each.theirs), each.ours.trained[1]) for each in found}
    if all(theirs in (None, ours) for theirs, ours in trained):
        return []
    return ['lengths are compared as multiples of the longest trained one, which differs']


def _run(comparison: Comparison, row: Row) -> Run:
    """A run of the row."""
    labels = dict(zip(comparison.keys, row.labels, strict=True))
    return next(run for run in comparison.runs if all(run.setting(key) == label for key, label in labels.items()))


def differences(comparison: Comparison, found: Sequence[Beside], table: Published) -> dict[str, tuple[str, str]]:
    """Settings in which compared runs differ from the published ones: their value and ours, by key."""
    values: dict[str, tuple[set[str], set[str]]] = {}
    for each in found:
        for key, theirs, ours in published.differences(table, _run(comparison, each.ours).config, each.theirs):
            both = values.setdefault(key, (set(), set()))
            both[0].add(as_text(theirs))
            both[1].add(as_text(ours))
    return {key: (', '.join(sorted(theirs)), ', '.join(sorted(ours))) for key, (theirs, ours) in values.items()}


def _line(each: Beside) -> list[str]:
    theirs = each.theirs
    spread = '' if theirs.low is None or theirs.high is None else f' [{number(theirs.low)}-{number(theirs.high)}]'
    return [
        theirs.task_label,
        theirs.scheme_label,
        f'{number(theirs.value)}{spread}',
        theirs.aggregation,
        compact(theirs.lengths) if theirs.lengths else '-',
        theirs.mark,
        ' '.join([number(each.measured.mean), each.measured.spread, SURVIVORS * bool(each.ours.diverged)]).strip(),
        number(each.measured.best),
        compact(each.lengths) if each.lengths else '-',
    ]


def sections(comparison: Comparison, found: Sequence[Beside], table: Published) -> list[Section]:
    """Both numbers, with the protocol of the paper; and the differences in settings."""
    marks = {each.theirs.mark for each in found}
    notes = [
        f'{table.authors} ({table.year}, arXiv:{table.arxiv}), {table.table}: {table.protocol}',
        *table.notes,
        *_scaled(found, table),
        *(f'{mark}: {published.MARKS[mark]}' for mark in published.MARKS if mark in marks),
    ]
    numbers = Section('Published numbers and ours', HEADERS, list(map(_line, found)), 2, notes)
    ranks = _ranks(comparison, found)
    differ = differences(comparison, found, table)
    settings = [[key, theirs, ours] for key, (theirs, ours) in differ.items()]
    if not settings:
        return [
            dataclasses.replace(numbers, notes=[*notes, 'no difference in the settings that the paper tells']),
            *ranks,
        ]
    return [numbers, *ranks, Section('Differences in settings', ('setting', 'theirs', 'ours'), settings, 3)]


def _ranks(comparison: Comparison, found: Sequence[Beside]) -> list[Section]:
    """Mean reciprocal rank of each scheme, theirs and ours, over the tasks and lengths that all schemes have."""
    found = [each for each in found if each.lengths]
    scores = {(each.theirs.scheme_label, each.theirs.task, each.theirs.lengths): each for each in found}
    if not scores:
        return []
    schemes, tasks, lengths = (list(dict.fromkeys(names)) for names in zip(*scores, strict=True))
    columns = [(task, at) for task in tasks for at in lengths if all((name, task, at) in scores for name in schemes)]
    if len(schemes) < 2 or len(columns) < 2 or len(scores) < len(found):
        return []
    both = np.array(
        [
            [[scores[name, *column].theirs.value, scores[name, *column].measured.mean] for column in columns]
            for name in schemes
        ]
    )
    best = comparison.metric.best
    theirs, ours = (mean_reciprocal_rank(each, best) for each in np.moveaxis(both, -1, 0))
    lines = [[name, *map(number, ranks)] for name, *ranks in zip(schemes, theirs, ours, strict=True)]
    title = f'Mean reciprocal rank over {len(columns)} pairs of task and lengths, by the means over seeds'
    return [Section(title, ('scheme', 'theirs', 'ours'), lines, 1)]


def as_csv(found: Sequence[Beside]) -> str:
    """Both numbers as csv."""
    return files.csv_text([dict(zip(HEADERS, _line(each), strict=True)) for each in found])
