"""Comparison as text: the table, the notes below it, and a summary of the runs in one directory."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mha.spec import UserError, compact, escaped
from mha.training.metrics import number, table_of
from mha.views.report.columns import BEYOND, NOT_ABOVE, SURVIVORS, shown
from mha.views.report.comparison import SOLVED, Comparison, longest, of_runs, ranges
from mha.views.report.left_out import grouped
from mha.views.report.runs import Run, span

FEW = 100
"""Number of examples below which the baseline is too high, because the most frequent class is frequent by chance."""
ENOUGH = 10
"""Number of seeds below which a bootstrap interval is too narrow."""
FACTS = {'steps': 'steps', 'batch size': 'train.batch_size', 'learning rate': 'learning_rate'}


@dataclasses.dataclass(frozen=True)
class Section:
    """Further table of a report: the first `left` columns are labels."""

    title: str
    headers: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int
    notes: Sequence[str] = ()


def section_text(section: Section) -> str:
    """Section for a terminal, without its title."""
    return '\n'.join([*_ruled([section.headers, *section.lines], section.left), *section.notes])


def grid(comparison: Comparison, best_everywhere: bool = True) -> tuple[list[str], list[list[str]]]:
    """Table as text: headers and lines. The best seed is shown for every range, or only for the score."""
    columns = shown(comparison)
    lines = [
        [column.show(row).text(best_everywhere or column.kind == 'score') for column in columns]
        for row in comparison.rows
    ]
    lines += [[column.baseline(problem) for column in columns] for problem in comparison.baselines]
    return [column.header for column in columns], lines


def text(comparison: Comparison) -> str:
    """Table and notes for a terminal."""
    headers, lines = grid(comparison, best_everywhere=False)
    return '\n'.join([*_ruled([headers, *lines], left=len(comparison.labelled)), '', *notes(comparison)])


def align(lines: Sequence[Sequence[str]], left: int) -> list[list[str]]:
    """Cells padded to the width of their column: the first `left` columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]


def markdown(headers: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """Table in Markdown, whose first `left` columns are labels."""
    first, *rest = align(
        [[html.escape(cell, quote=False).replace('|', r'\|') for cell in line] for line in (headers, *lines)], left
    )
    rule = ['-' * len(cell) if i < left else '-' * (len(cell) - 1) + ':' for i, cell in enumerate(first)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (first, rule, *rest))


def _ruled(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    first, *rest = ('   '.join(line) for line in align(lines, left))
    return [first, '─' * len(first), *(line.rstrip() for line in rest)]


def notes(comparison: Comparison, averaged: str = 'column') -> list[str]:
    """Explanations of the numbers: one line of facts, then the marks that occur in the table. Every `averaged` part of
    the table is a range of lengths."""
    found = [facts(comparison, averaged)]
    if len(comparison.trained) > 1:
        found.append('score: mean of each row over the evaluated lengths beyond its own trained lengths')
    if comparison.baselines:
        found.append('baseline: always the most frequent class of the evaluation data, without reading the input')
        if (few := int(comparison.runs[0].rows['examples'].min())) < FEW:
            found.append(
                f'the baseline is too high, because the most frequent class is chosen on the same {few} examples'
            )
    for source in dict.fromkeys(comparison.follows.values()):
        titles = dict(zip(comparison.keys, comparison.headers, strict=True))
        which = [titles[key] for key, other in comparison.follows.items() if other == source]
        found.append(f'{titles[source]} determines {", ".join(which)} in these runs; table.csv has them')
    if any(comparison.beats_baseline(row) is False for row in comparison.rows):
        found.append(f'{NOT_ABOVE} the mean score is not above the baseline')
    if any(row.diverged for row in comparison.rows):
        found.append(f'{SURVIVORS} the other seeds diverged: what is shown is of those that did not')
    found += made_otherwise(comparison.runs)
    if comparison.interval == 'bootstrap' and any(1 < len(row.seeds) < ENOUGH for row in comparison.rows):
        found.append(f'bootstrap intervals over fewer than about {ENOUGH} seeds are too narrow')
    if any(BEYOND in column.show(row).spread for column in shown(comparison) for row in comparison.rows):
        found.append(f'{BEYOND} the interval reaches beyond the possible values of the metric, where curves cut it')
    return found


def made_otherwise(runs: Sequence[Run]) -> list[str]:
    """Lines about runs that were made with other versions of packages than most, or with code that was changed."""
    paths, found = {run.path: run.environment for run in runs}, []
    known = [environment['versions'] for environment in paths.values() if environment.get('versions')]
    if known:
        usual = max(known, key=known.count)
        others = [each for each in known if each != usual]
        names = [name for name in usual if any(each.get(name) != usual[name] for each in others)]
        differ = [f'{name} {", ".join(sorted({each.get(name, "none") for each in known}))}' for name in names]
        if others:
            found.append(f'{len(others)} of {len(paths)} runs were made with other versions ({"; ".join(differ)})')
    if changed := sum(bool(environment.get('changed')) for environment in paths.values()):
        found.append(f'{changed} of {len(paths)} runs were made with uncommitted changes to the code')
    return [escaped(line) for line in found]


def facts(comparison: Comparison, averaged: str = 'column') -> str:
    """Facts in one line: task, lengths, examples, metric, aggregation, seeds and training."""
    first = comparison.runs[0]
    tasks = list(dict.fromkeys(row.problem[0] for row in comparison.rows))
    counts = sorted({int(count) for count in first.rows['examples']})
    seeds = {row.seeds for row in comparison.rows}
    listed = compact(next(iter(seeds))) if len(seeds) == 1 else ''
    if max(len(row.seeds) for row in comparison.rows) > 1:
        over = f'seeds {listed}' if listed else 'the seeds of each row'
        interval = {'t': 'mean ± 95 % t-interval', 'bootstrap': 'mean and 95 % bootstrap interval'}[comparison.interval]
        spread = f'{interval} over {over}, and {comparison.metric.best}imum'
    else:
        spread = f'1 seed ({listed}), so no interval' if listed else '1 seed per row, so no interval'
    found = [
        f'{"task" if len(tasks) == 1 else "tasks"} {", ".join(tasks)}',
        f'trained on {_trained(comparison)}',
        f'evaluated at {compact(comparison.lengths)}',
        *([f'by the later evaluation {comparison.evaluation}'] if comparison.evaluation else []),
        f'{compact(counts)} examples per length',
        f'{comparison.metric.title}, averaged over the lengths of a {averaged}',
        spread,
        *_corpus(comparison.runs),
    ]
    for name, key in FACTS.items():
        found += [
            f'{name} {"varies" if full in comparison.varying else first.setting(full)}'
            for full in first.config
            if full == key or full.endswith(f'.{key}')
        ]
    if 'model.causal' in first.config and not {'model.causal', 'model.decoder_layers'} & {*comparison.varying}:
        found.append(_attention(first.config))
    return '; '.join(found)


def _attention(config: Mapping[str, Any]) -> str:
    if config.get('model.decoder_layers'):
        return 'encoder in both directions, causal decoder'
    return 'causal attention' if config['model.causal'] else 'attention in both directions'


def _trained(comparison: Comparison) -> str:
    spans = [span(trained) for trained in comparison.trained]
    return f'length{"" if len(spans) == 1 and spans[0].isdigit() else "s"} {" or ".join(spans)}'


def _corpus(runs: Sequence[Run]) -> list[str]:
    """Sizes of the training and test data, for tasks that read data; those of another task in an evaluation are not
    known."""
    found = []
    for run in runs:
        if 'task' in run.others:
            continue
        train, test = (run.summary.get(f'data_{split}_bytes') for split in ('train', 'test'))
        if isinstance(train, int) and isinstance(test, int):
            found.append(f'data of {train + test:,} bytes, {train:,} to train and {test:,} to test')
    different = list(dict.fromkeys(found))
    return ['data of different sizes'] if len(different) > 1 else different


def scores(runs: Sequence[Run]) -> dict[str, float | None]:
    """Summary of the runs in a directory, in the metric of the task, averaged over all members: the mean over the
    evaluated lengths up to the longest trained length ('in_range') and beyond it ('score'), the longest solved length
    ('longest'), and its ratio to the longest trained length ('longest_share'). None for values that do not exist."""
    run, *_ = runs = [run for run in runs if run.rows]
    metric, trained = run.metric, run.trained[1]
    values = np.concatenate([run.values(metric) for run in runs]).mean(0)
    beyond = np.array(run.lengths) > trained
    solved = longest(run.lengths, values) if metric.best == 'max' else None
    return {
        'in_range': None if beyond.all() else float(values[~beyond].mean()),
        'score': float(values[beyond].mean()) if beyond.any() else None,
        'longest': solved,
        'longest_share': None if solved is None else solved / trained,
    }


def summarise(runs: Sequence[Run]) -> str:
    """Table of the runs in one directory. For a single run, exact match has a Wilson interval over examples, because
    whole answers are independent, unlike the symbols of an answer. For a range of several lengths, the interval may be
    too wide but not too narrow."""
    left_out, runs = [run for run in runs if not run.rows], [run for run in runs if run.rows]
    if not runs:
        raise UserError(
            f'{left_out[0].path} holds no results ({left_out[0].status}) - without its extrapolation.csv the same '
            'train.py command evaluates it again'
        )
    comparison, run = of_runs(runs, left_out=left_out), runs[0]
    lost = [f'left out {grouped(left_out)}'] if left_out else []
    if len(runs) > 1 or len(run.seeds) > 1:
        return '\n'.join([text(comparison), *lost])
    measured = table_of(run.metric, run.rows)
    headers = ['lengths', *(metric.header for metric in measured)]
    headers.append('baseline' if run.metric.has_baseline else 'baseline accuracy')
    lines = []
    for over in ranges(run.lengths, run.trained):
        inside = over.inside(run.lengths, run.trained)
        count = int(run.grid('examples')[0, inside].sum())
        cells = [metric.show(run.values(metric)[0, inside].mean(), count) for metric in measured]
        lines.append([over.name, *cells, number(run.grid('baseline')[0, inside].mean())])
    if comparison.beats_baseline(comparison.rows[0]) is False:
        lines[-1][1 + measured.index(run.metric)] += f' {NOT_ABOVE}'
    if comparison.rows[0].diverged:
        lines[-1][1 + measured.index(run.metric)] += f' {SURVIVORS}'
    brackets = 'in brackets: 95 % interval over the examples of this run (Wilson)'
    note = [brackets] if any(metric.per_example for metric in measured) else []
    return '\n'.join([*_ruled([headers, *lines], left=1), '', *_solved(run), *note, *notes(comparison, 'row'), *lost])


def _solved(run: Run) -> list[str]:
    """Line with the longest solved length; no line if the metric is a loss."""
    if run.metric.best == 'min':
        return []
    solved, share = (scores([run])[name] for name in ('longest', 'longest_share'))
    found = 'none' if share is None else f'{solved}, {share:.3g} times the longest trained one'
    return [f'longest length with {run.metric.title} above {SOLVED}: {found}']
