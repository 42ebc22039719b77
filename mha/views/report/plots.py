"""Extrapolation curves: a metric against length, as SVG that is the same, byte for byte, for the same runs."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from mha.views.report.runs import Run
from mha.views.report.table import Comparison, Problem, Row, half_width, of_runs

# Okabe and Ito's colours that read on light and on dark paper, and two more; then again, dashed.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#9467bd', '#8c8c1a')
INK, GREY, SHADE, PAPER = '#24292f', '#77808a', '#eef1f4', '#ffffff'
MOST_LABELS = 8
"""More lines than this get a legend instead of labels at their ends."""
WIDEST, HIGHEST = 36, 2
"""Of a label, in characters and lines: long ones would widen the page. The table has them in full."""

STYLE: dict[Any, Any] = {
    'svg.hashsalt': 'mha',
    'svg.fonttype': 'none',
    'text.parse_math': False,
    'font.size': 10,
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.edgecolor': GREY,
    'axes.linewidth': 0.8,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'xtick.color': GREY,
    'ytick.color': GREY,
    'xtick.labelcolor': INK,
    'ytick.labelcolor': INK,
    'figure.facecolor': PAPER,
    'axes.facecolor': 'none',
}


def styles(comparison: Comparison) -> list[dict[str, Any]]:
    """Of each row's line; rows that differ in nothing but the problem look alike."""
    order = list(dict.fromkeys(_name(comparison, row) for row in comparison.rows))
    places = [order.index(_name(comparison, row)) for row in comparison.rows]
    return [{'color': PALETTE[i % len(PALETTE)], 'linestyle': '--' if i // len(PALETTE) % 2 else '-'} for i in places]


def curves(comparison: Comparison) -> str:
    """All rows, one panel per problem, as SVG."""
    return _svg(figure(comparison))


def run_curve(runs: Sequence[Run], path: Path) -> None:
    """The curves of a workdir beside their baseline."""
    path.write_text(curves(of_runs([run for run in runs if run.rows])), encoding='utf-8')


def figure(comparison: Comparison) -> Figure:
    problems = list(dict.fromkeys(row.problem for row in comparison.rows))
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(8, 4.4 * len(problems)))
        panels = drawing.subplots(len(problems), squeeze=False)[:, 0]
        drawing.subplots_adjust(hspace=0.42)
        for axes, problem in zip(panels, problems, strict=True):
            _panel(axes, comparison, problem)
    return drawing


def _svg(drawing: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    with matplotlib.rc_context(STYLE):
        drawing.savefig(file, format='svg', bbox_inches='tight', pad_inches=0.15, metadata=nothing)
    return file.getvalue()


def _panel(axes: Axes, comparison: Comparison, problem: Problem) -> None:
    bounded = comparison.metric.best == 'max'
    lengths = np.array(comparison.lengths)
    _length_axis(axes, lengths, comparison.trained)
    ends: list[tuple[str, float, str]] = []
    line: dict[str, Any] = dict(linewidth=2, marker='o', markersize=3.5, clip_on=False)
    for index, (row, style) in enumerate(zip(comparison.rows, styles(comparison), strict=True)):
        if row.problem != problem:
            continue
        name, mean, spread = _name(comparison, row), row.values.mean(0), half_width(row.values)
        axes.plot(lengths, mean, **style, **line, label=_wrap(name), zorder=4 - index / 1000)  # the best on top
        if len(row.seeds) > 1:
            low, high = (np.clip(mean + sign * spread, 0, 1 if bounded else None) for sign in (-1, 1))
            axes.fill_between(lengths, low, high, color=style['color'], alpha=0.12, linewidth=0)
        if 1 < len(row.seeds) <= 5:
            for seed in row.values:
                axes.plot(lengths, seed, '.', color=style['color'], alpha=0.55, markersize=4, clip_on=False, zorder=2)
        if np.isfinite(mean[-1]):
            ends.append((name, mean[-1], style['color']))
    if problem in comparison.baselines:
        baseline = comparison.baselines[problem]
        axes.plot(lengths, baseline, color=GREY, linestyle=(0, (4, 3)), linewidth=1.3, label='baseline', clip_on=False)
        ends.append(('baseline', baseline[-1], GREY))
    axes.set_ylim(*(0, 1) if bounded else _range(comparison, problem))
    axes.set_ylabel(comparison.metric.name)
    axes.grid(axis='y', color=GREY, alpha=0.2, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)
    axes.set_title(_wrap(', '.join(problem), 2 * WIDEST), loc='left', fontweight='bold', pad=20)
    if 0 < len(ends) <= MOST_LABELS + 1:
        _label_ends(axes, comparison.lengths[-1], ends)
    else:
        axes.legend(loc='upper left', bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)


def _name(comparison: Comparison, row: Row) -> str:
    """Without what the problem says: that is the panel's title."""
    labels = zip(comparison.keys, comparison.headers, row.labels, strict=True)
    pairs = [(header, label) for key, header, label in labels if key != 'task']
    if len(pairs) == 1 and comparison.keys == ('model.position',):
        return pairs[0][1]
    return ', '.join(f'{header}={label}' for header, label in pairs) or comparison.runs[0].setting('model.position')


def _wrap(text: str, width: int = WIDEST) -> str:
    """Broken behind commas and bars where it can be; cut where it is too long even so, but for its end: compositions
    often differ there."""
    lines = ['']
    for part in re.findall(r'[^,|]+[,|]? ?|[,|] ?', text):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append('')
        lines[-1] += part
    if len(lines) > HIGHEST:
        lines = [*lines[: HIGHEST - 1], ''.join(lines[HIGHEST - 1 :])]
    return '\n'.join(line if len(line) <= width else f'…{line[1 - width :]}' for line in map(str.rstrip, lines))


def _range(comparison: Comparison, problem: Problem) -> tuple[float | None, float | None]:
    """Of what was measured: the interval of two seeds may be many times as wide."""
    values = np.concatenate([row.values.ravel() for row in comparison.rows if row.problem == problem])
    values = values[np.isfinite(values)]
    if not values.size:
        return None, None
    margin = 0.05 * (values.max() - values.min()) or 0.1
    return values.min() - margin, values.max() + margin


def _length_axis(axes: Axes, lengths: np.ndarray, trained: tuple[int, int]) -> None:
    """Ticks at evaluated lengths, as many as fit, and the trained lengths shaded."""
    low, high = min(lengths[0], trained[1]), lengths[-1]
    logarithmic = high > 20 * low
    scale = np.log if logarithmic else np.asarray
    margin = 0.02 * (scale(high) - scale(low)) or 0.1
    left, right = float(scale(low) - margin), float(scale(high) + margin)
    if logarithmic:
        axes.set_xscale('log')
        axes.set_xlim(np.exp(left), np.exp(right))
    else:
        axes.set_xlim(left, right)
    ticks: list[int] = []
    for length in (high, *(n for n in lengths if n == trained[1]), *lengths):
        if all(abs(scale(length) - scale(tick)) > 0.045 * (right - left) for tick in ticks):
            ticks.append(int(length))
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter('{x:.0f}')
    axes.set_xlabel('length')
    first = max(axes.get_xlim()[0], trained[0])
    axes.axvspan(first, max(first, trained[1]), color=SHADE, linewidth=0, zorder=-1)
    axes.text(first, 1.015, 'trained lengths', transform=axes.get_xaxis_transform(), fontsize=8.5, color=GREY)


def _label_ends(axes: Axes, x: int, ends: list[tuple[str, float, str]]) -> None:
    """Names beside the last points, moved apart as little as makes them readable (least squares)."""
    ends = sorted(ends, key=lambda end: end[1])
    bottom, top = axes.get_ylim()
    drawing = axes.get_figure(root=True)
    assert drawing is not None
    from scipy.optimize import isotonic_regression  # half a second, which a mistake need not wait for

    names = [_wrap(name) for name, *_ in ends]
    points = np.array([1.5 + 11 * len(name.splitlines()) for name in names])
    gaps = (points[1:] + points[:-1]) / 2 / 72 / (axes.get_position().height * drawing.get_figheight())
    wanted = np.array([(value - bottom) / (top - bottom) for _, value, _ in ends])
    steps = np.cumsum([0, *gaps])
    at = np.clip(isotonic_regression(wanted - steps).x, 0, 1 - steps[-1]) + steps
    for name, (_, value, ink), height in zip(names, ends, at, strict=True):
        axes.annotate(
            name,
            xy=(x, value),
            xytext=(1.045, height),
            textcoords='axes fraction',
            fontsize=9,
            color=GREY if ink == GREY else INK,
            verticalalignment='center',
            annotation_clip=False,
            arrowprops={
                'arrowstyle': '-',
                'color': ink,
                'linewidth': 1.1,
                'relpos': (0, 0.5),  # to where the label begins
                'shrinkA': 1,
                'shrinkB': 3,
            },
        )
