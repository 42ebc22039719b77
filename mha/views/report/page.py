"""Files of a report: tables as csv, Markdown and LaTeX, curves.svg, and report.html, which needs no other file.

The page is complete without a script: jinja writes the table, matplotlib the curves. Its script (templates/report.js)
then sorts and filters the table and replaces the curves by figures that answer the pointer and the keyboard, drawn as
SVG (templates/chart.js) from JSON in the page. Both are ours, in plain JavaScript without a build: lines, bands, dots
and a heatmap take 250 lines, while charting libraries add 0.2 to 4 MB to every report, and those that draw on a canvas
have no text to read aloud or to save as vectors.
"""

import dataclasses
import html
import itertools
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mha.machine import files
from mha.spec import UserError, compact
from mha.training.metrics import number
from mha.views import pages
from mha.views.report import latex, plots
from mha.views.report.answer import answer
from mha.views.report.columns import Column, columns, shown
from mha.views.report.comparison import Comparison, Row
from mha.views.report.embedded import page_data
from mha.views.report.left_out import grouped
from mha.views.report.runs import Run
from mha.views.report.table import Section, grid, markdown, notes

TEMPLATES = Path(__file__).with_name('templates')
MOST_TITLES = 3
"""Largest number of tasks in the title of the page; of more, it has the number."""
MOST_TESTS = 200
"""Largest number of paired differences that the page lists."""
ON_REQUEST = {
    'pivot.csv',
    'pivot.tex',
    'pivot.svg',
    'pivot.pdf',
    'pairs.csv',
    'ranks.svg',
    'ranks.pdf',
    'published.csv',
}
"""Files that `write` gets as `more`. Those of an earlier report are removed."""
MARK = r'<meta name="compared" content="([^"]*)">'


def write(
    comparison: Comparison,
    output: Path,
    more: Mapping[str, str | bytes] | None = None,
    sections: Sequence[Section] = (),
    asked: Sequence[str] = (),
) -> list[Path]:
    """Writes the files, and `more` by their names, into the directory `output`, and returns their paths. The page also
    shows `sections`, and the command with the flags `asked` that made these. Raises `UserError` rather than overwrite
    or remove anything but a report of the same runs, or of some of them."""
    drawing = plots.figure(comparison)
    svg = plots.as_svg(drawing)
    contents = {
        'table.csv': as_csv(comparison),
        'seeds.csv': seeds_as_csv(comparison),
        'results.csv': results_as_csv(comparison),
        'table.md': as_markdown(comparison),
        'table.tex': as_latex(comparison),
        **(more or {}),
        'curves.svg': svg,
        'curves.pdf': plots.as_pdf(drawing),
        'report.html': as_html(comparison, svg, output, sections, asked, str((more or {}).get('pivot.svg', ''))),
    }
    try:
        _check_ours(comparison, output, dict.fromkeys((*contents, *sorted(ON_REQUEST))))
        output.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (output / f'{name}.tmp').write_bytes(content.encode() if isinstance(content, str) else content)
        for name in reversed(contents):  # the page first: it names the runs, in case writing fails midway
            os.replace(output / f'{name}.tmp', output / name)
        for name in ON_REQUEST - {*contents}:  # of an earlier question, perhaps interrupted
            (output / name).unlink(missing_ok=True)
            (output / f'{name}.tmp').unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f'cannot write to {str(output)!r}: {error.strerror}') from error
    return [output / name for name in contents]


def as_csv(comparison: Comparison) -> str:
    """Table as csv: one line per row, with unrounded numbers and columns that say what they mean."""
    return files.csv_text([_fields(comparison, row, spread=True) for row in comparison.rows])


def seeds_as_csv(comparison: Comparison) -> str:
    """Results as csv: one line per row and seed."""
    return files.csv_text(
        [
            {'seed': seed, **_fields(comparison, row.only(index), spread=False)}
            for row in comparison.rows
            for index, seed in enumerate(row.seeds)
        ]
    )


def results_as_csv(comparison: Comparison) -> str:
    """Results as csv in long form: one line per row, seed and evaluated length."""
    return files.csv_text(
        [
            {
                **dict(zip(comparison.keys, row.labels, strict=True)),
                'seed': seed,
                'length': length,
                comparison.metric.name: float(row.values[index, at]),
                **{name: float(values[index, at]) for name, values in row.more_values.items()},
            }
            for row in comparison.rows
            for index, seed in enumerate(row.seeds)
            for at, length in enumerate(comparison.lengths)
        ]
    )


def _fields(comparison: Comparison, row: Row, spread: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns(comparison):
        found |= column.fields(row) | (column.spread(row) if spread else {})
    return found


def as_markdown(comparison: Comparison) -> str:
    headers, lines = grid(comparison)
    text = markdown(headers, lines, left=len(comparison.labelled))
    return '\n'.join([text, '', '\n\n'.join(html.escape(note, quote=False) for note in _notes(comparison)), ''])


def as_latex(comparison: Comparison) -> str:
    headers, lines = grid(comparison)
    return latex.table(headers, lines, len(comparison.labelled), [*_notes(comparison), 'needs: booktabs'])


def as_html(
    comparison: Comparison,
    svg: str,
    output: Path,
    sections: Sequence[Section] = (),
    asked: Sequence[str] = (),
    heatmap: str = '',
) -> str:
    tasks = [*dict.fromkeys(row.problem[0] for row in comparison.rows)]
    settings = [key for key in comparison.runs[0].config if key not in comparison.varying and key != 'seed']
    first, *others = notes(comparison)
    answered = answer(comparison)
    return pages.template(TEMPLATES / 'report.html').render(
        comparison=comparison,
        answer=answered,
        columns=_score_first(shown(comparison)),
        problems=[
            (problem, list(rows)) for problem, rows in itertools.groupby(_rows(comparison), lambda row: row.row.problem)
        ],
        dots=_dots_scale(comparison),
        longest=max(len(part) for row in comparison.rows for part in row.labels[comparison.labelled[0]].split('|')) + 1,
        title=', '.join(tasks) if len(tasks) <= MOST_TITLES else f'{len(tasks)} tasks',
        facts=first[0].upper() + first[1:],
        notes=others,
        left_out=grouped(comparison.left_out) if comparison.left_out else None,
        curves=plots.inline(svg),
        heatmap=plots.inline(heatmap) if heatmap else '',
        sections=sections,
        differing=answered.differing,
        tests=answered.differing[:MOST_TESTS],
        varying={key: sorted({run.setting(key) for run in comparison.runs}) for key in comparison.varying},
        differences=_differences(comparison),
        common={key: comparison.runs[0].setting(key) for key in settings},
        command=_command(comparison, output, asked),
        compared=_compared(comparison, output),
        css=pages.own(pages.SHARED / 'page.css', TEMPLATES / 'report.css'),
        script=pages.own(pages.SHARED / 'elements.js', TEMPLATES / 'chart.js', TEMPLATES / 'report.js'),
        data=pages.data(page_data(comparison)),
    )


def _score_first(found: list[Column]) -> list[Column]:
    """Columns with the score before the ranges, so that narrow screens show it."""
    return sorted(found, key=lambda column: ('label', 'score', 'number').index(column.kind))


@dataclasses.dataclass(frozen=True)
class PageRow:
    """Row of the table of the page: the score of each seed as a dot, from 0 to 100, and the baseline on that scale."""

    row: Row
    index: int
    colour: str
    glyph: str
    others: str
    """All labels but the first, for narrow screens."""
    scores: list[str]
    dots: list[float]
    baseline: float | None


def _rows(comparison: Comparison) -> list[PageRow]:
    score, limits = comparison.ranges[-1], comparison.metric.limits
    values = [
        row.values[:, inside].mean(1)
        if (inside := score.inside(comparison.lengths, row.trained)).any()
        else np.empty(0)
        for row in comparison.rows
    ]
    known = np.concatenate([*values, *([limits] if np.isfinite(limits).all() else [])])
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if known.size else (0, 1)

    def place(value: float) -> float:
        return round(float((value - low) / ((high - low) or 1) * 100), 1)

    found = []
    for index, (row, style, each) in enumerate(zip(comparison.rows, plots.styles(comparison), values, strict=True)):
        finite = [value for value in each.tolist() if math.isfinite(value)]
        has_baseline = row.problem in comparison.baselines and finite
        baseline = comparison.baseline(row.problem, score, row.trained) if has_baseline else None
        found.append(
            PageRow(
                row=row,
                index=index,
                colour=style['color'],
                glyph=plots.GLYPHS[style['marker']],
                others=', '.join(
                    f'{comparison.headers[index]} {row.labels[index]}' for index in comparison.labelled[1:]
                ),
                scores=[number(value) for value in finite],
                dots=[place(value) for value in finite],
                baseline=None if baseline is None else place(baseline),
            )
        )
    return found


def _dots_scale(comparison: Comparison) -> str:
    """Limits of the scale of dots."""
    low, high = comparison.metric.limits
    return f'{low:.0f} to {high:.0f}' if math.isfinite(high) else 'the smallest to the largest score'


def _differences(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Path of every run, and the settings in which it differs from the first."""
    first, *others = comparison.runs

    def seeds(run: Run) -> str:
        return f'seed={compact(run.seeds)}'

    found = [(str(first.path), [seeds(first)])]
    for run in others:
        keys = dict.fromkeys((*first.config, *run.config))
        changed = [
            f'{key}={run.setting(key)}' for key in keys if key != 'seed' and first.setting(key) != run.setting(key)
        ]
        found.append((str(run.path), [*changed, seeds(run)]))
    return found


def _notes(comparison: Comparison) -> list[str]:
    return notes(comparison) + ([f'left out {grouped(comparison.left_out)}'] if comparison.left_out else [])


def _compared(comparison: Comparison, output: Path) -> str:
    """Paths of the compared runs relative to the report, so that both may be moved together."""
    return json.dumps(sorted({os.path.relpath(path.resolve(), output.resolve()) for path in _paths(comparison)}))


def _check_ours(comparison: Comparison, output: Path, names: Iterable[str]) -> None:
    """Raises `UserError` if the directory `output` holds other files of these names, or a report of runs that are not
    in this comparison."""
    there = [output / name for name in names if (output / name).exists()]
    page = output / 'report.html'
    if not there:
        return
    marked = re.search(MARK, page.read_text(encoding='utf-8', errors='replace')) if page.is_file() else None
    if not marked:
        raise UserError(
            f'{there[0]} is there already and does not say what it compares - remove it, or choose another --output'
        )
    known = [Path(os.path.normpath(output.resolve() / path)) for path in json.loads(html.unescape(marked[1]))]
    compared = [path.resolve() for path in _paths(comparison)]
    if not all(any(path.is_relative_to(place) for place in compared) for path in known):
        others = ', '.join(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path) for path in known)
        raise UserError(f'{output} holds the comparison of {others} - choose another --output')


def _paths(comparison: Comparison) -> Sequence[Path]:
    return comparison.paths or tuple(run.path for run in comparison.runs)


def _command(comparison: Comparison, output: Path, asked: Sequence[str]) -> str:
    names = (metric.name for metric in (comparison.metric, *comparison.more_metrics))
    metric = [f'--metric={",".join(names)}']
    evaluation = [f'--evaluation={comparison.evaluation}'] if comparison.evaluation else []
    only = [f'--only={condition}' for condition in comparison.only]
    best = [f'--best={comparison.best}'] if comparison.best else []
    interval = [f'--interval={comparison.interval}'] if comparison.interval != 't' else []
    panels = [f'--panels={comparison.panels}'] if comparison.panels != 'task' else []
    flags = [f'--output={output}', *metric, *evaluation, *only, *best, *interval, *panels, *asked]
    return shlex.join(['python', 'compare.py', *map(str, _paths(comparison)), *flags])
