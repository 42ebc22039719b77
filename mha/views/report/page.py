"""Files of a report: table.csv, seeds.csv, table.md, curves.svg, and report.html, which needs no other file."""

import csv
import html
import io
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mha.spec import UserError
from mha.views.report import plots
from mha.views.report.columns import columns, shown
from mha.views.report.comparison import Comparison, Row, unfinished
from mha.views.report.table import align, grid, notes

MARK = r'<meta name="compared" content="([^"]*)">'
PAGE_COLOURS = {plots.INK: 'var(--ink)', plots.GREY: 'var(--grey)', plots.SHADE: 'var(--shade)', plots.PAPER: 'none'}


def write(comparison: Comparison, output: Path) -> list[Path]:
    """Writes the files into the directory `output` and returns their paths. Raises `UserError` rather than overwrite
    anything but a report of the same runs, or of some of them."""
    svg = plots.curves(comparison)
    files = {
        'table.csv': as_csv(comparison),
        'seeds.csv': seeds_as_csv(comparison),
        'table.md': as_markdown(comparison),
        'curves.svg': svg,
        'report.html': as_html(comparison, svg, output),
    }
    try:
        _check_ours(comparison, output, files)
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (output / f'{name}.tmp').write_text(content, encoding='utf-8')
        for name in reversed(files):  # the page first: it names the runs, in case writing fails midway
            os.replace(output / f'{name}.tmp', output / name)
    except OSError as error:
        raise UserError(f'cannot write to {str(output)!r}: {error.strerror}') from error
    return [output / name for name in files]


def as_csv(comparison: Comparison) -> str:
    """Table as csv: one line per row, with unrounded numbers and columns that say what they mean."""
    return _csv([_fields(comparison, row, spread=True) for row in comparison.rows])


def seeds_as_csv(comparison: Comparison) -> str:
    """Results as csv: one line per row and seed."""
    return _csv(
        [
            {'seed': seed, **_fields(comparison, row.only(index), spread=False)}
            for row in comparison.rows
            for index, seed in enumerate(row.seeds)
        ]
    )


def _fields(comparison: Comparison, row: Row, spread: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns(comparison):
        found |= column.fields(row) | (column.spread(row) if spread else {})
    return found


def _csv(lines: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
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
    styles = plots.styles(comparison)
    ranked = itertools.groupby(zip(styles, comparison.rows, strict=True), key=lambda pair: pair[1].problem)
    settings = [key for key in comparison.runs[0].config if key not in comparison.varying and key != 'seed']
    first, *others = _notes(comparison)
    return environment.get_template('report.html').render(
        comparison=comparison,
        columns=shown(comparison),
        problems=[
            (problem, [(style['color'], plots.GLYPHS[style['marker']], row) for style, row in rows])
            for problem, rows in ranked
        ],
        tasks=', '.join(dict.fromkeys(row.problem[0] for row in comparison.rows)),
        facts=first[0].upper() + first[1:],
        notes=others,
        curves=_inline(svg),
        varying={key: sorted({run.setting(key) for run in comparison.runs}) for key in comparison.varying},
        common={key: comparison.runs[0].setting(key) for key in settings},
        command=_command(comparison, output),
        compared=_compared(comparison, output),
    )


def _notes(comparison: Comparison) -> list[str]:
    return notes(comparison) + ([f'left out {unfinished(comparison.left_out)}'] if comparison.left_out else [])


def _inline(svg: str) -> markupsafe.Markup:
    """SVG for use inside the page. Its colours become those of the page, for light and dark mode; its text is already
    escaped."""
    svg = svg[svg.index('<svg') :]
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return markupsafe.Markup(
        re.sub(r'<svg [^>]*?(width="[^"]*")[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 \2>', svg, count=1)
    )


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


def _command(comparison: Comparison, output: Path) -> str:
    metric = [f'--metric={comparison.metric.name}']
    evaluation = [f'--evaluation={comparison.evaluation}'] if comparison.evaluation else []
    return shlex.join(
        ['python', 'compare.py', *map(str, _paths(comparison)), f'--output={output}', *metric, *evaluation]
    )
