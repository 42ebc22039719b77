"""Table and figure of a study of heads over runs (`mha.probes.study`): means over seeds, by the number of heads."""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mha.probes.study import MEASURES, Rows
from mha.spec import as_text, short
from mha.training.metrics import number
from mha.views.report import plots, statistics, table

WIDTH, HEIGHT = 3.6, 2.7
"""Inches of a panel."""
DRAWN = {
    'accuracy': 'accuracy',
    'removable_share': 'share of heads that can go',
    'close_share': 'share of pairs that are alike',
}
"""Measures with a panel, and its label."""
TABLE = ('accuracy', 'loss', 'removable', 'close_share', 'concentration', 'with_role')


def markdown(rows: Rows, settings: Sequence[str]) -> str:
    """Table in Markdown: means with 95 % t-intervals over seeds. `settings` are the keys in which the runs differ."""
    lines = [
        [task, series, str(heads), str(length), str(len(own)), *(_cell(own, name) for name in TABLE)]
        for (task, series, length), line in _lines(rows, settings)
        for heads, own in line.items()
    ]
    headers = ['task', 'series', 'heads', 'length', 'seeds', *(name.replace('_', ' ') for name in TABLE)]
    notes = [f'* {name.replace("_", " ")}: {MEASURES[name]}' for name in TABLE]
    return '\n'.join([table.markdown(headers, lines, left=2), '', *notes, ''])


def svg(rows: Rows, settings: Sequence[str]) -> str:
    """Figure as SVG: a row of panels per task, a line per series and length, dots for single runs."""
    with matplotlib.rc_context(plots.STYLE):
        return plots.as_svg(_figure(rows, settings))


def _figure(rows: Rows, settings: Sequence[str]) -> Figure:
    lines = dict(_lines(rows, settings))
    tasks, names = list(dict.fromkeys(key[0] for key in lines)), list(dict.fromkeys(key[1] for key in lines))
    drawing = Figure(figsize=(WIDTH * len(DRAWN), HEIGHT * len(tasks)), layout='constrained')
    grid = drawing.subplots(len(tasks), len(DRAWN), squeeze=False)
    for panels, task in zip(grid, tasks, strict=True):
        shown = {key[1:]: line for key, line in lines.items() if key[0] == task}
        lengths = sorted({length for _, length in shown})
        for axes, (measure, label) in zip(panels, DRAWN.items(), strict=True):
            for (series, length), line in shown.items():
                color = plots.PALETTE[names.index(series) % len(plots.PALETTE)]
                style = plots.DASHES[lengths.index(length) % len(plots.DASHES)]
                name = f'{series}, length {length}' if series else f'length {length}'
                values = [[row[measure] for row in own] for own in line.values()]
                axes.plot([*line], [np.mean(each) for each in values], color=color, linestyle=style, label=name)
                for heads, each in zip(line, values, strict=True):
                    axes.plot([heads] * len(each), each, '.', color=color, alpha=0.4, markersize=4)
            ticks = sorted({heads for line in shown.values() for heads in line})
            axes.set_xscale('log', base=2)
            axes.set_xticks(ticks, [str(heads) for heads in ticks])
            axes.set(xlabel='heads in total', ylabel=label)
            axes.grid(axis='y', color=plots.GREY, alpha=0.2, linewidth=0.8)
        panels[0].set_title(plots.wrap(task, 40), loc='left', fontweight='bold')
        plots.legend(panels[-1])
    return drawing


Line = dict[int, list[dict[str, Any]]]
"""Rows of the seeds, by the number of heads."""


def _lines(rows: Rows, settings: Sequence[str]) -> Iterator[tuple[tuple[str, str, int], Line]]:
    """Lines by task, series and length. A series has the same settings but for the number of heads and the seed."""
    found: dict[tuple[str, str, int], Line] = {}
    for row in rows:
        line = found.setdefault((row['task'], _series(row, settings), row['length']), {})
        line.setdefault(row['heads'], []).append(row)
    for key in sorted(found):
        yield key, dict(sorted(found[key].items()))


def _series(row: dict[str, Any], settings: Sequence[str]) -> str:
    if 'model.head_dim' in settings and row['model.head_dim'] is None:
        row = {**row, 'model.head_dim': 'width / heads'}
    labelled = [key for key in settings if key not in ('task', 'model.heads') and row[key] is not None]
    return ', '.join(f'{short(key)}={as_text(row[key])}' for key in labelled)


def _cell(rows: Rows, name: str) -> str:
    cell = statistics.Cell(np.array([row[name] for row in rows], float), 'max', 't')
    return '-' if np.isnan(cell.mean) else f'{number(cell.mean)} {cell.spread}'.rstrip()
