"""The report of a comparison as files: table.csv, table.md, curves.svg and report.html, which needs nothing else."""

import csv
import html
import io
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mha.spec import UserError
from mha.views.report import plots
from mha.views.report.runs import compact, span
from mha.views.report.table import METRICS, Comparison, align, grid, longest, notes, number, unfinished

MARK = r'<meta name="compared" content="([^"]*)">'
PAGE_COLOURS = {plots.INK: 'var(--ink)', plots.GREY: 'var(--grey)', plots.SHADE: 'var(--shade)', plots.PAPER: 'none'}


def write(comparison: Comparison, output: Path) -> list[Path]:
    """Writes the four files into the directory `output` and returns their paths. Raises `UserError` where that would
    overwrite something else than a report of the same runs, or of some of them."""
    svg = plots.curves(comparison)
    files = {
        'table.csv': as_csv(comparison),
        'table.md': as_markdown(comparison),
        'curves.svg': svg,
        'report.html': as_html(comparison, svg, output),
    }
    try:
        _check_ours(comparison, output, files)
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (output / name).write_text(content, encoding='utf-8')
    except OSError as error:
        raise UserError(f'cannot write to {str(output)!r}: {error.strerror}') from error
    return [output / name for name in files]


def as_csv(comparison: Comparison) -> str:
    """One line per row of the table, numbers in full, and what they mean in columns of their own."""
    best, metric = comparison.metric.best, comparison.metric.name
    trained, evaluated = span(comparison.trained), compact(comparison.lengths)
    lines: list[dict[str, Any]] = []
    for row in comparison.rows:
        line: dict[str, Any] = dict(zip(comparison.keys, row.labels, strict=True))
        for over in comparison.ranges:
            cell = comparison.cell(row, over)
            spread = round(cell.half_width, 6) if len(row.seeds) > 1 else ''
            line |= {
                over.key: round(cell.mean, 6),
                f'{over.key}_ci95': spread,
                f'{over.key}_{best}': round(cell.best, 6),
            }
        beats = comparison.beats_baseline(row)
        line |= {'seeds': len(row.seeds), 'parameters': row.parameters, 'beats_baseline': beats}
        if comparison.metric.best == 'max':
            line['longest_solved'] = longest(comparison.lengths, row.values.mean(0))
        lines.append({'task': row.problem[0], **line})
    for problem in comparison.baselines:
        means = {over.key: round(comparison.baseline(problem, over), 6) for over in comparison.ranges}
        lines.append({'task': problem[0], comparison.keys[0]: comparison.baseline_label(problem), **means})
    meaning = {'metric': metric, 'trained_lengths': trained, 'evaluated_lengths': evaluated}
    file = io.StringIO()
    writer = csv.DictWriter(file, [*lines[0], *meaning], lineterminator='\n')
    writer.writeheader()
    writer.writerows(line | meaning for line in lines)
    return file.getvalue()


def as_markdown(comparison: Comparison) -> str:
    headers, lines = grid(comparison)
    left = len(comparison.keys)
    first, *rest = align([[cell.replace('|', r'\|') for cell in line] for line in (headers, *lines)], left)
    rule = ['-' * len(cell) if i < left else '-' * (len(cell) - 1) + ':' for i, cell in enumerate(first)]
    table = [f'| {" | ".join(line)} |' for line in (first, rule, *rest)]
    return '\n'.join([*table, '', '\n\n'.join(_notes(comparison)), ''])


def as_html(comparison: Comparison, svg: str, output: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name('templates')),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters['number'] = number
    styles = plots.styles(comparison)
    ranked = itertools.groupby(zip(styles, comparison.rows, strict=True), key=lambda pair: pair[1].problem)
    first, *others = _notes(comparison)
    return environment.get_template('report.html').render(
        comparison=comparison,
        problems=[(problem, [(style['color'], row) for style, row in rows]) for problem, rows in ranked],
        tasks=', '.join(dict.fromkeys(row.problem[0] for row in comparison.rows)),
        facts=first[0].upper() + first[1:],
        notes=others,
        curves=_inline(svg),
        varying={key: sorted({run.setting(key) for run in comparison.runs}) for key in comparison.varying},
        common={
            key: comparison.runs[0].setting(key)
            for key in comparison.runs[0].config
            if key not in comparison.varying and key != 'seed'
        },
        command=_command(comparison, output),
        compared=_compared(comparison, output),
    )


def _notes(comparison: Comparison) -> list[str]:
    return notes(comparison) + ([f'left out {unfinished(comparison.left_out)}'] if comparison.left_out else [])


def _inline(svg: str) -> markupsafe.Markup:
    """matplotlib has escaped the text inside; colours become the page's, so that they follow light and dark."""
    svg = svg[svg.index('<svg') :]
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return markupsafe.Markup(
        re.sub(r'<svg [^>]*?(width="[^"]*")[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 \2>', svg, count=1)
    )


def _compared(comparison: Comparison, output: Path) -> str:
    """What was compared as seen from the report, so that both may move."""
    paths = comparison.paths or tuple(run.path for run in comparison.runs)
    return json.dumps(sorted({os.path.relpath(path.resolve(), output.resolve()) for path in paths}))


def _check_ours(comparison: Comparison, output: Path, names: Iterable[str]) -> None:
    """Raises `UserError` if the directory `output` holds a report of other runs than these, or somebody's files."""
    there = [output / name for name in names if (output / name).exists()]
    page = output / 'report.html'
    if not there:
        return
    marked = re.search(MARK, page.read_text(encoding='utf-8', errors='replace')) if page.is_file() else None
    if not marked:
        raise UserError(
            f'{there[0]} is there already and does not say what it compares - remove it, or choose another --output'
        )
    known = json.loads(html.unescape(marked[1]))
    if not {*known} <= {*json.loads(_compared(comparison, output))}:
        others = ', '.join(os.path.normpath(output / path) for path in known)
        raise UserError(f'{output} holds the comparison of {others} - choose another --output')


def _command(comparison: Comparison, output: Path) -> str:
    metric = [f'--metric={comparison.metric.column}'] if comparison.metric in METRICS.values() else []
    evaluation = [f'--evaluation={comparison.evaluation}'] if comparison.evaluation else []
    paths = comparison.paths or tuple(run.path for run in comparison.runs)
    return shlex.join(['python', 'compare.py', *map(str, paths), f'--output={output}', *metric, *evaluation])
