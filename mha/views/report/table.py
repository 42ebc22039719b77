"""A comparison as text: the table, the notes below it, and the runs of a workdir on one screen."""

from collections.abc import Sequence

import numpy as np

from mha.spec import UserError, compact
from mha.training.metrics import number, one_per_column
from mha.views.report.columns import BEYOND, NOT_ABOVE, shown
from mha.views.report.comparison import SOLVED, Comparison, longest, of_runs, ranges, unfinished
from mha.views.report.runs import Run, span

FEW = 100
"""Examples below which the most frequent class is often so by accident."""
FACTS = {'steps': 'steps', 'batch size': 'train.batch_size', 'learning rate': 'learning_rate'}


def grid(comparison: Comparison, best_everywhere: bool = True) -> tuple[list[str], list[list[str]]]:
    """The table as text: headers and lines. The best seed is shown in every range, or in the last, the score, only."""
    columns = shown(comparison)
    lines = [
        [column.show(row).text(best_everywhere or column.kind == 'score') for column in columns]
        for row in comparison.rows
    ]
    lines += [[column.baseline(problem) for column in columns] for problem in comparison.baselines]
    return [column.header for column in columns], lines


def text(comparison: Comparison) -> str:
    """For a terminal."""
    headers, lines = grid(comparison, best_everywhere=False)
    return '\n'.join([*_ruled([headers, *lines], left=len(comparison.keys)), '', *notes(comparison)])


def align(lines: Sequence[Sequence[str]], left: int) -> list[list[str]]:
    """Cells padded to the width of their column, all but the first `left` to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]


def _ruled(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    first, *rest = ('   '.join(line) for line in align(lines, left))
    return [first, '─' * len(first), *(line.rstrip() for line in rest)]


def notes(comparison: Comparison) -> list[str]:
    """What must be known to read the numbers: the facts in a line, then the marks that the table uses."""
    found = [facts(comparison)]
    if len(comparison.trained) > 1:
        found.append('score: each row over the evaluated lengths beyond its own trained ones')
    if comparison.baselines:
        found.append('baseline: always the most frequent class of the evaluation data, without reading the input')
        if (few := int(comparison.runs[0].rows['examples'].min())) < FEW:
            found.append(f'{few} examples are their own baseline: it is too high')
    if any(comparison.beats_baseline(row) is False for row in comparison.rows):
        found.append(f'{NOT_ABOVE} the mean score is not above the baseline')
    if any(BEYOND in column.show(row).spread for column in shown(comparison) for row in comparison.rows):
        low, high = comparison.metric.limits
        limits = f'{low:.0f} to {high:.0f}' if high < np.inf else f'values from {low:.0f}'
        found.append(f'{BEYOND} the interval reaches beyond {limits}, where curves cut it')
    return found


def facts(comparison: Comparison) -> str:
    """One line: task, lengths, examples, metric, aggregation, seeds and training."""
    first = comparison.runs[0]
    tasks = list(dict.fromkeys(row.problem[0] for row in comparison.rows))
    counts = sorted({int(count) for count in first.rows['examples']})
    seeds = {row.seeds for row in comparison.rows}
    listed = compact(next(iter(seeds))) if len(seeds) == 1 else ''
    if max(len(row.seeds) for row in comparison.rows) > 1:
        over = f'seeds {listed}' if listed else 'the seeds of each row'
        spread = f'mean ± 95 % t-interval over {over}, and {comparison.metric.best}imum'
    else:
        spread = f'1 seed ({listed}), so no interval' if listed else '1 seed per row, so no interval'
    found = [
        f'{"task" if len(tasks) == 1 else "tasks"} {", ".join(tasks)}',
        f'trained on {_trained(comparison)}',
        f'evaluated at {compact(comparison.lengths)}',
        *([f'by the later evaluation {comparison.evaluation}'] if comparison.evaluation else []),
        f'{compact(counts)} examples per length',
        f'{comparison.metric.title}, averaged over the lengths of a column',
        spread,
        *_corpus(comparison.runs),
    ]
    for name, key in FACTS.items():
        found += [
            f'{name} {"varies" if full in comparison.varying else first.setting(full)}'
            for full in first.config
            if full == key or full.endswith(f'.{key}')
        ]
    if 'model.causal' in first.config and 'model.causal' not in comparison.varying:
        found.append('causal attention' if first.config['model.causal'] else 'attention in both directions')
    return '; '.join(found)


def _trained(comparison: Comparison) -> str:
    spans = [span(trained) for trained in comparison.trained]
    return f'length{"" if len(spans) == 1 and spans[0].isdigit() else "s"} {" or ".join(spans)}'


def _corpus(runs: Sequence[Run]) -> list[str]:
    """Size and split of the data of tasks that read some."""
    found = []
    for run in runs:
        train, test = (run.summary.get(f'data_{split}_bytes') for split in ('train', 'test'))
        if isinstance(train, int) and isinstance(test, int):
            found.append(f'data of {train + test:,} bytes, {train:,} to train and {test:,} to test')
    different = list(dict.fromkeys(found))
    return ['data of different sizes'] if len(different) > 1 else different


def scores(runs: Sequence[Run]) -> dict[str, float | None]:
    """The runs of a workdir in four numbers, in the metric of their task and averaged over all members: the mean over
    the evaluated lengths up to the longest trained one ('in_range') and beyond ('score'), the longest length solved,
    and this over the longest trained; None without any."""
    run, *_ = runs = [run for run in runs if run.rows]
    metric, trained = run.metric, run.trained[1]
    values = np.concatenate([run.grid(metric.column) for run in runs]).mean(0) * metric.scale
    beyond = np.array(run.lengths) > trained
    solved = longest(run.lengths, values) if metric.best == 'max' else None
    return {
        'in_range': None if beyond.all() else float(values[~beyond].mean()),
        'score': float(values[beyond].mean()) if beyond.any() else None,
        'longest': solved,
        'longest_share': None if solved is None else solved / trained,
    }


def summarise(runs: Sequence[Run]) -> str:
    """The runs of a workdir on one screen. Exact match has the interval over its examples: they are independent, the
    symbols of an answer are not. Over several lengths the interval is at most too wide."""
    left_out, runs = [run for run in runs if not run.rows], [run for run in runs if run.rows]
    if not runs:
        raise UserError(
            f'{left_out[0].path} holds no results ({left_out[0].status}) - without its extrapolation.csv the same '
            'train.py command evaluates it again'
        )
    comparison, run = of_runs(runs), runs[0]
    lost = [f'left out {unfinished(left_out)}'] if left_out else []
    if len(runs) > 1 or len(run.seeds) > 1:
        return '\n'.join([text(comparison), *lost])
    measured = one_per_column(run.metric)
    headers = ['lengths', *(metric.header for metric in measured)]
    headers.append('baseline' if run.metric.has_baseline else 'baseline accuracy')
    lines = []
    for over in ranges(run.lengths, run.trained):
        inside = over.inside(run.lengths, run.trained)
        count = int(run.grid('examples')[0, inside].sum())
        cells = [metric.show(run.grid(metric.column)[0, inside].mean() * metric.scale, count) for metric in measured]
        lines.append([over.name, *cells, number(run.grid('baseline')[0, inside].mean())])
    if comparison.beats_baseline(comparison.rows[0]) is False:
        lines[-1][1 + measured.index(run.metric)] += f' {NOT_ABOVE}'
    note = 'in brackets: 95 % interval over the examples of this one run (Wilson), whole answers right or not'
    return '\n'.join([*_ruled([headers, *lines], left=1), '', *_solved(run), note, *notes(comparison), *lost])


def _solved(run: Run) -> list[str]:
    """The longest length solved, in a line; under a loss there is none."""
    if run.metric.best == 'min':
        return []
    solved, share = (scores([run])[name] for name in ('longest', 'longest_share'))
    found = 'none' if share is None else f'{solved}, {share:.3g} times the longest trained one'
    return [f'longest length with {run.metric.title} above {SOLVED}: {found}']
