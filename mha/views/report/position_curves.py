"""Accuracy or loss against the index of a symbol in the answer, from a file of `eval.py --per_position`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mha.machine import files
from mha.run import fields
from mha.run.population import SETTINGS
from mha.spec import UserError
from mha.views.report import plots, statistics
from mha.views.report.plots import GREY, LINE, STYLE, WIDEST

MOST_INDICES = 128
"""Largest number of points in the longest line."""


def draw(table: Path, path: Path, loss: bool = False) -> None:
    """Draws the curves in the file `table`, one line per length. Bands are 95 % intervals: over the examples for one
    seed, otherwise over seeds. Long lines are means over neighbouring indices. Members of a population that differ in
    other settings than the seed have separate panels."""
    groups = _positions(table)
    with matplotlib.rc_context(STYLE):
        drawing, panels = plots.panels([LINE * 1.5 * (len(lines) + 2) for lines in groups.values()])
        for axes, (name, lines) in zip(panels, groups.items(), strict=True):
            _panel(axes, name, lines, ('loss', 'loss_low', 'loss_high') if loss else ('accuracy', 'low', 'high'))
            axes.set_ylabel('loss in nats per symbol' if loss else 'accuracy')
            if not loss:
                axes.set_ylim(0, 1)
    files.write(path, plots.as_svg(drawing))


def _positions(table: Path) -> dict[str, dict[int, dict[int, list[Mapping[str, Any]]]]]:
    """Rows of a table, grouped by the settings of members, by length and by index in the answer."""
    groups: dict[str, dict[int, dict[int, list[Mapping[str, Any]]]]] = {}
    for row in fields.read_table(table, fields.POSITIONS):
        name = ', '.join(f'{key}={value}' for key, value in row.items() if key in SETTINGS and key != 'seed')
        lines = groups.setdefault(name, {}).setdefault(row['length'], {})
        lines.setdefault(row['position'], []).append(row)
    if not groups:
        raise UserError(f'{str(table)!r} holds no positions')
    return groups


def _panel(
    axes: Axes, name: str, lines: Mapping[int, Mapping[int, Sequence[Mapping[str, Any]]]], columns: Sequence[str]
) -> None:
    last = max(max(line) for line in lines.values())
    colours = matplotlib.colormaps['viridis'](np.linspace(0, 0.85, len(lines)))  # ordered colours for ordered lengths
    for colour, (length, line) in zip(colours, sorted(lines.items()), strict=True):
        indices, (mean, low, high) = _line(line, columns, -(-last // MOST_INDICES))
        marker = '' if len(indices) > 1 else 'o'
        axes.plot(indices, mean, color=colour, linewidth=1.6, marker=marker, label=f'length {length}', clip_on=False)
        least, most = (0, 1) if columns[0] == 'accuracy' else (0, np.inf)
        band = np.clip(low, least, most), np.clip(high, least, most)
        axes.fill_between(indices, *band, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlim(0.5, last + 0.5)
    axes.set_xlabel('position in the answer')
    axes.grid(axis='y', color=GREY, alpha=0.2, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(plots.wrap(name, 2 * WIDEST), loc='left', fontweight='bold')
    plots.legend(axes)


def _line(
    line: Mapping[int, Sequence[Mapping[str, Any]]], columns: Sequence[str], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices [N] and the mean, low and high values [3, N] at them. Each is the mean over `width` neighbours, whose
    errors are taken as independent."""
    indices = np.array(sorted(line))
    values = np.array([_interval([[float(row[column]) for column in columns] for row in line[i]]) for i in indices]).T
    groups = np.split(np.arange(indices.size), np.flatnonzero(np.diff((indices - 1) // width)) + 1)
    indices = np.array([indices[group].mean() for group in groups])
    mean = np.array([values[0, group].mean() for group in groups])
    below, above = (
        np.array([np.sqrt(np.sum((values[edge, group] - values[0, group]) ** 2)) / group.size for group in groups])
        for edge in (1, 2)
    )
    return indices, np.stack([mean, mean - below, mean + above])


def _interval(rows: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Mean over seeds with its interval; that of the only seed if there is one."""
    if len(rows) == 1:
        value, low, high = rows[0]
        return value, low, high
    values = np.array([value for value, *_ in rows])
    half = statistics.half_width(values)
    return values.mean(), values.mean() - half, values.mean() + half
