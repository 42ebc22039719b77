"""Tables with one setting down and another across, choices of the best setting, and pairwise comparisons of rows."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mha.machine.files import csv_text
from mha.spec import UserError
from mha.training.metrics import number
from mha.views.report import latex, statistics
from mha.views.report.comparison import Comparison, Row
from mha.views.report.labels import natural
from mha.views.report.runs import varying
from mha.views.report.statistics import Cell
from mha.views.report.table import Section, align

Labels = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Pivot:
    """Scores [rows, columns]. `cells` lacks the combinations without a finished run."""

    row_keys: Labels
    column_keys: Labels
    rows: tuple[Labels, ...]
    columns: tuple[Labels, ...]
    cells: dict[tuple[Labels, Labels], Cell]
    above_baseline: dict[tuple[Labels, Labels], bool | None]
    diverged: dict[tuple[Labels, Labels], int]
    """Numbers of seeds of which the means know nothing."""
    baselines: dict[Labels, float]
    """Baseline of each column, if all runs of a column share one."""
    best: str
    """'max' or 'min': the direction of the metric."""

    @property
    def complete(self) -> bool:
        return len(self.cells) == len(self.rows) * len(self.columns)

    def scores(self) -> np.ndarray:
        """Mean scores [rows, columns]; NaN for a combination without a run."""
        found = [[self.cells.get((row, column)) for column in self.columns] for row in self.rows]
        return np.array([[cell.mean if cell else math.nan for cell in line] for line in found])


def pivot(comparison: Comparison, rows: Sequence[str], columns: Sequence[str]) -> Pivot:
    """Scores with the settings `rows` down and `columns` across. Raises `UserError` for a setting that does not vary,
    and if rows of the comparison that differ in another setting would share a cell."""
    down = [comparison.index_of(key, 'setting in --rows') for key in rows]
    across = [comparison.index_of(key, 'setting in --columns') for key in columns]
    if not down or not across or len({*down, *across}) < len([*down, *across]):
        raise UserError('a table needs --rows=.. and --columns=.., which name different settings that vary')
    found: dict[tuple[Labels, Labels], Row] = {}
    for row in comparison.rows:
        place = (tuple(row.labels[index] for index in down), tuple(row.labels[index] for index in across))
        if place in found:
            known = found[place].labels
            other = next(comparison.keys[i] for i in comparison.labelled if row.labels[i] != known[i])
            raise UserError(
                f'rows that differ in {other} share a cell - add it to --rows or --columns, choose one of its values '
                f'with --only={other}=.., or the best one with --best={other}'
            )
        found[place] = row
    score = comparison.ranges[-1]
    baselines = {}
    for column in dict.fromkeys(column for _, column in found):
        here = [row for (_, other), row in found.items() if other == column and row.problem in comparison.baselines]
        values = {round(comparison.baseline(row.problem, score, row.trained), 6) for row in here}
        if len(values) == 1:
            baselines[column] = values.pop()
    made = Pivot(
        tuple(comparison.headers[index] for index in down),
        tuple(comparison.headers[index] for index in across),
        tuple(dict.fromkeys(row for row, _ in found)),
        tuple(sorted({column for _, column in found}, key=lambda column: tuple(map(natural, column)))),
        {place: comparison.cell(row, score) for place, row in found.items()},
        {place: comparison.beats_baseline(row) for place, row in found.items()},
        {place: row.diverged for place, row in found.items()},
        baselines,
        comparison.metric.best,
    )
    means = np.nan_to_num(np.nanmean(made.scores(), 1), nan=-math.inf if made.best == 'max' else math.inf)
    order = np.argsort(-means if made.best == 'max' else means, kind='stable')
    return dataclasses.replace(made, rows=tuple(made.rows[index] for index in order))


def grid(table: Pivot) -> tuple[list[str], list[list[str]]]:
    """Table as text: headers and lines, with mean and 95 % interval, the baseline, and ranks over the columns."""
    from mha.views.report.columns import NOT_ABOVE, SURVIVORS

    several = len(table.columns) > 1 and table.complete and 'task' not in table.row_keys
    headers = [*table.row_keys, *(', '.join(column) for column in table.columns)]
    lines = []
    scores = table.scores()
    ranks = statistics.ranks(scores, table.best).mean(1) if several else []
    reciprocal = statistics.mean_reciprocal_rank(scores, table.best) if several else []
    for index, row in enumerate(table.rows):
        line = [*row]
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is None:
                line.append('')
                continue
            marks = NOT_ABOVE if table.above_baseline[row, column] is False else ''
            marks += SURVIVORS if table.diverged[row, column] else ''
            line.append(' '.join(part for part in (number(cell.mean), cell.spread, marks) if part))
        lines.append([*line, *([f'{ranks[index]:.2f}', f'{reciprocal[index]:.3f}'] if several else [])])
    if table.baselines:
        first = ['baseline', *[''] * (len(table.row_keys) - 1)]
        values = [number(table.baselines[column]) if column in table.baselines else '' for column in table.columns]
        lines.append([*first, *values, *([''] * 2 if several else [])])
    return [*headers, *(['mean rank', 'MRR'] if several else [])], lines


def section(table: Pivot) -> Section:
    headers, lines = grid(table)
    title = f'Scores by {", ".join(table.row_keys)} (down) and {", ".join(table.column_keys)} (across)'
    return Section(title, headers, lines, len(table.row_keys))


def files(table: Pivot) -> dict[str, str]:
    """Table as csv, with unrounded numbers, and in LaTeX, by file name."""
    headers, lines = grid(table)
    scores = table.scores()
    plain = [
        dict(zip([*table.row_keys, *map(', '.join, table.columns)], [*row, *values], strict=True))
        for row, values in zip(table.rows, scores.tolist(), strict=True)
    ]
    return {'pivot.csv': csv_text(plain), 'pivot.tex': latex.table(headers, lines, len(table.row_keys))}


# -------------------------------------------------------------------------------------------------- choice of a setting
def choose_best(comparison: Comparison, key: str) -> tuple[Comparison, list[str]]:
    """Comparison in which rows that differ only in the setting `key` are replaced by the best of them, by the mean
    metric within the trained lengths; and a line per choice. Nothing of the score takes part in the choice."""
    index = comparison.index_of(key, 'setting in --best')
    chosen_with = [
        i for i, each in enumerate(comparison.keys) if comparison.follows.get(each) == comparison.keys[index]
    ]
    same = [i for i in range(len(comparison.keys)) if i not in (index, *chosen_with)]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in comparison.rows:
        groups.setdefault((*(row.labels[i] for i in same), *row.problem), []).append(row)
    sign = 1 if comparison.metric.best == 'max' else -1
    chosen, lines = [], []
    for rows in groups.values():
        best = max(rows, key=lambda row: sign * _in_range(comparison, row))
        chosen.append(best)
        others = [best.labels[i] for i in comparison.labelled if i != index]
        scores = [comparison.cell(row, comparison.ranges[-1]).best for row in rows]
        most = max(scores) if sign == 1 else min(scores)
        lines.append(
            f'{", ".join(others) or best.problem[0]}: {comparison.headers[index]} {best.labels[index]} of '
            f'{", ".join(row.labels[index] for row in rows)}; {comparison.metric.best} over all of these and seeds '
            f'{number(most)}'
        )
    kept = tuple(row for row in comparison.rows if any(row is each for each in chosen))
    labels = {row.labels for row in kept}
    runs = tuple(run for run in comparison.runs if tuple(map(run.setting, comparison.keys)) in labels)
    differ = tuple(varying(runs))
    return dataclasses.replace(comparison, rows=kept, runs=runs, varying=differ, best=comparison.keys[index]), lines


def _in_range(comparison: Comparison, row: Row) -> float:
    """Mean over the evaluated lengths up to the longest trained one."""
    inside = np.array(comparison.lengths) <= row.trained[1]
    if not inside.any():
        raise UserError('--best chooses by the trained lengths, of which none was evaluated')
    return float(comparison.scores(row, inside).mean())


# ------------------------------------------------------------------------------------------------------ pairwise tests
def pairs(comparison: Comparison) -> list[tuple[str, statistics.Pair]]:
    """Paired comparisons of all rows of each problem, by their scores: the problem, and each pair. p-values are
    corrected for the number of pairs of all problems."""
    found: list[tuple[str, statistics.Pair]] = []
    for problem in dict.fromkeys(row.problem for row in comparison.rows):
        rows = {
            comparison.name(row): dict(zip(row.seeds, scores_of(comparison, row), strict=True))
            for row in comparison.rows
            if row.problem == problem
        }
        found += [(problem[0], pair) for pair in statistics.pairs(rows)]
    corrected = statistics.corrected([pair for _, pair in found])
    return [(task, pair) for (task, _), pair in zip(found, corrected, strict=True)]


def scores_of(comparison: Comparison, row: Row) -> list[float]:
    """Score of each seed of a row."""
    inside = comparison.ranges[-1].inside(comparison.lengths, row.trained)
    return comparison.scores(row, inside).tolist()


def pairs_csv(found: Sequence[tuple[str, statistics.Pair]]) -> str:
    return csv_text([{'task': task, **dataclasses.asdict(pair)} for task, pair in found])


def pairs_text(found: Sequence[tuple[str, statistics.Pair]]) -> str:
    """Paired comparisons for a terminal, the clearest differences first."""
    lines = [['task', 'row', 'against', 'difference', 'p (Holm)', 'seeds']]
    tested = [(task, pair) for task, pair in found if not math.isnan(pair.p)]
    for task, pair in sorted(tested, key=lambda each: (each[0], each[1].p)):
        spread = '' if math.isnan(pair.half_width) else f' ± {number(pair.half_width)}'
        p = f'{pair.p:.2g}' + (' *' if pair.differs else '')
        lines.append([task, pair.first, pair.second, f'{pair.difference:+.3f}{spread}', p, str(pair.seeds)])
    first, *rest = ('   '.join(line) for line in align(lines, 3))
    note = '* differs: p < 0.05 in the paired t-test over common seeds, corrected for the number of pairs (Holm)'
    if len(tested) < len(found):
        note += f'\n{len(found) - len(tested):,} pairs without two common seeds are in pairs.csv only'
    return '\n'.join([first, '─' * len(first), *(line.rstrip() for line in rest), note])
