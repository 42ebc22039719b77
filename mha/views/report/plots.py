"""Curves of a metric against length, and of accuracy against the index of a symbol in the answer, as SVG. The same runs
give the same bytes."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import offset_copy

from mha.machine import files
from mha.views.report import statistics
from mha.views.report.comparison import Comparison, Row, of_runs
from mha.views.report.labels import natural
from mha.views.report.runs import Run

# Okabe and Ito's colours that are legible on light and dark backgrounds, and two more. Further lines repeat them with
# other dashes and markers.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#9467bd', '#8c8c1a')
DASHES: tuple[Any, ...] = ('-', (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 1.5, 1, 1.5, 1, 1.5)))
GLYPHS = {'o': '●', 's': '■', '^': '▲', 'D': '◆', 'v': '▼', 'P': '✚'}
"""Markers and their characters in text. Their number differs from that of the dashes, so that pairs of both repeat
late."""
INK, GREY, SHADE, PAPER = '#24292f', '#77808a', '#eef1f4', '#ffffff'
PAGE_COLOURS = {INK: 'var(--ink)', GREY: 'var(--grey)', SHADE: 'var(--shade)', PAPER: 'none'}
MOST_LABELS = 8
"""Largest number of lines with labels at their ends; more lines get a legend."""
MOST_DOTS = 2000
"""Largest number of seeds' dots in a figure; above it, the figure has none."""
WIDEST, HIGHEST = 36, 2
"""Largest width (characters) and height (lines) of a label. The table has long names in full."""
WIDTH, HEIGHT, HIGH, GAP = 6.2, 3.4, 5.0, 1.0
"""Inches: width of a panel, its smallest and largest height, and the gap between panels."""
LINE = 11 / 72
"""Height in inches of one line of a label."""

STYLE: dict[Any, Any] = {
    'svg.hashsalt': 'mha',
    'svg.fonttype': 'none',
    'pdf.fonttype': 42,  # TrueType, as publishers require
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
    """Colour, dashes and marker of the line of each row. Rows that differ only in the panel look alike."""
    names = [_line(comparison, row) for row in comparison.rows]
    order = list(dict.fromkeys(names))
    ranks = [order.index(name) for name in names]
    markers = list(GLYPHS)
    return [
        {
            'color': PALETTE[rank % len(PALETTE)],
            'linestyle': DASHES[rank // len(PALETTE) % len(DASHES)],
            'marker': markers[rank // len(PALETTE) % len(markers)],
        }
        for rank in ranks
    ]


def curves(comparison: Comparison) -> str:
    """Curves of all rows as SVG."""
    return as_svg(figure(comparison))


def run_curve(runs: Sequence[Run], path: Path) -> None:
    """Writes the curves of one directory of runs, with the baseline."""
    files.write(path, curves(of_runs([run for run in runs if run.rows])))


def figure(comparison: Comparison) -> Figure:
    groups = _rows_of_panels(comparison)
    labels = _labels(comparison)
    with matplotlib.rc_context(STYLE):
        heights = []
        for rows in groups.values():
            lines = [labels[_line(comparison, row)].count('\n') + 1 + (row.diverged > 0) for row in rows]
            heights.append(LINE * (sum(lines) + 0.5 * len(lines) + 2))
        drawing, every = panels(heights)
        for axes, (title, rows) in zip(every, groups.items(), strict=True):
            _panel(axes, comparison, title, rows, labels)
    return drawing


def _rows_of_panels(comparison: Comparison) -> dict[str, list[Row]]:
    """Rows of each panel, by its title. Tasks are in the order of the rows, values of other settings in their own."""
    if comparison.panels == 'none':
        return {'': list(comparison.rows)}
    found: dict[str, list[Row]] = {}
    if comparison.panels == 'task':
        for row in comparison.rows:
            found.setdefault(', '.join(row.problem), []).append(row)
        return found
    index = comparison.keys.index(comparison.panels)
    for row in sorted(comparison.rows, key=lambda row: natural(row.labels[index])):
        found.setdefault(comparison.part(row, index), []).append(row)
    return found


def _line(comparison: Comparison, row: Row) -> str:
    """Name of the line of a row in its panel."""
    return comparison.name(row, comparison.panels)


def panels(legends: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Figure with one panel below the other; `legends` are the heights of their legends in inches."""
    rooms = [max(HEIGHT, height) for height in legends]
    top = total = sum(rooms) + GAP * len(rooms)
    drawing, made = Figure(figsize=(8, total)), []
    for room in rooms:
        height = min(room, HIGH)
        made.append(drawing.add_axes((0.125, (top - 0.55 - height) / total, WIDTH / 8, height / total)))
        top -= room + GAP
    return drawing, made


def as_svg(drawing: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    with matplotlib.rc_context(STYLE):
        drawing.savefig(file, format='svg', bbox_inches='tight', pad_inches=0.15, metadata=nothing)
    return file.getvalue()


def inline(svg: str) -> markupsafe.Markup:
    """SVG for use inside a page. Its colours become those of the page, for light and dark mode; its text is already
    escaped."""
    svg = svg[svg.index('<svg') :]
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return markupsafe.Markup(
        re.sub(r'<svg [^>]*?(width="[^"]*")[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 \2>', svg, count=1)
    )


def as_pdf(drawing: Figure) -> bytes:
    file = io.BytesIO()
    nothing = dict.fromkeys(('Creator', 'Producer', 'CreationDate'))
    with matplotlib.rc_context(STYLE):
        drawing.savefig(file, format='pdf', bbox_inches='tight', pad_inches=0.15, metadata=nothing)
    return file.getvalue()


def _panel(axes: Axes, comparison: Comparison, title: str, rows: Sequence[Row], labels: Mapping[str, str]) -> None:
    limits = comparison.metric.limits
    lengths = np.array(comparison.lengths)
    trained = sorted({row.trained for row in rows}, key=lambda each: each[1])
    looks = {_line(comparison, row): style for row, style in zip(comparison.rows, styles(comparison), strict=True)}
    _length_axis(axes, lengths, trained)
    dots = sum(row.values.size for row in comparison.rows)
    ends: list[tuple[str, float, str]] = []
    line: dict[str, Any] = dict(linewidth=2, markersize=4, clip_on=False)
    for index, row in enumerate(rows):
        label, style = labels[_line(comparison, row)], looks[_line(comparison, row)]
        label += f'\n({row.diverged} diverged)' if row.diverged else ''
        mean = row.values.mean(0)
        axes.plot(lengths, mean, **style, **line, label=label, zorder=4 - index / 1000)  # the best row on top
        if len(trained) > 1:
            _mark_trained(axes, lengths, mean, row.trained[1], style['color'])
        if len(row.seeds) > 1:
            low, high = (np.clip(end, *limits) for end in statistics.interval(row.values, comparison.interval))
            axes.fill_between(lengths, low, high, color=style['color'], alpha=0.12, linewidth=0)
        if 1 < len(row.seeds) <= 5 and dots <= MOST_DOTS:
            for seed in row.values:
                axes.plot(lengths, seed, '.', color=style['color'], alpha=0.55, markersize=4, clip_on=False, zorder=2)
        if np.isfinite(mean[-1]):
            ends.append((label, mean[-1], style['color']))
    problems = [problem for problem in dict.fromkeys(row.problem for row in rows) if problem in comparison.baselines]
    for problem in problems:
        baseline = comparison.baselines[problem]
        label = 'baseline' if len(problems) == 1 else wrap(comparison.baseline_label(problem))
        axes.plot(lengths, baseline, color=GREY, linestyle=(0, (4, 3)), linewidth=1.3, label=label, clip_on=False)
        ends.append((label, baseline[-1], GREY))
    axes.set_ylim(*limits if np.isfinite(limits).all() else _range(rows))
    axes.set_ylabel(comparison.metric.title)
    axes.grid(axis='y', color=GREY, alpha=0.2, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)
    axes.set_title(wrap(title, 2 * WIDEST), loc='left', fontweight='bold', pad=20)
    if 0 < len(ends) <= MOST_LABELS + 1 and sum(_height(label) for label, *_ in ends) < _inches(axes):
        _label_ends(axes, comparison.lengths[-1], ends)
    else:
        legend(axes)


def _height(label: str) -> float:
    """Height of a label in inches."""
    return LINE * (1.15 + label.count('\n'))


def _inches(axes: Axes) -> float:
    """Height of a panel in inches."""
    drawing = axes.get_figure(root=True)
    assert drawing is not None
    return axes.get_position().height * drawing.get_figheight()


def legend(axes: Axes) -> None:
    """Draws a legend to the right of the panel, with handles long enough to show dashes and markers."""
    axes.legend(loc='upper left', bbox_to_anchor=(1.02, 1.02), frameon=False, fontsize=9, handlelength=4.2)


def _mark_trained(axes: Axes, lengths: np.ndarray, values: np.ndarray, longest: int, colour: str) -> None:
    """Draws a tick across a curve at its longest trained length, clipped to the evaluated lengths."""
    scale = np.log if axes.get_xscale() == 'log' else np.asarray
    length = np.clip(longest, lengths[0], lengths[-1])
    value = np.interp(scale(length), scale(lengths), values)
    axes.plot(length, value, '|', color=colour, markersize=15, markeredgewidth=2.2, clip_on=False, zorder=5)


def _labels(comparison: Comparison) -> dict[str, str]:
    """Wrapped names of the rows. They have at most two lines, or more if there are many settings or if shorter ones
    would look alike."""
    names = list(dict.fromkeys(_line(comparison, row) for row in comparison.rows))
    sizes = ((WIDEST, HIGHEST), (WIDEST, 4 * HIGHEST), (2 * WIDEST, 4 * HIGHEST))
    for width, highest in sizes[len(comparison.labelled) > 2 :]:
        labels = {name: wrap(name, width, highest) for name in names}
        if len(set(labels.values())) == len(names):
            return labels
    return {name: name for name in names}


def wrap(text: str, width: int = WIDEST, highest: int = HIGHEST) -> str:
    """Text broken after commas and bars. Text that is still too long loses its beginning, because compositions often
    differ at the end."""
    lines = ['']
    for part in re.findall(r'[^,|]+[,|]? ?|[,|] ?', text):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append('')
        lines[-1] += part
    if len(lines) > highest:
        lines = [*lines[: highest - 1], ''.join(lines[highest - 1 :])]
    return '\n'.join(line if len(line) <= width else f'…{line[1 - width :]}' for line in map(str.rstrip, lines))


def _range(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Limits of the vertical axis: the measured values and a margin. Intervals are ignored, because that of two seeds
    may be very wide."""
    values = np.concatenate([row.values.ravel() for row in rows])
    values = values[np.isfinite(values)]
    if not values.size:
        return None, None
    margin = 0.05 * (values.max() - values.min()) or 0.1
    return values.min() - margin, values.max() + margin


def _length_axis(axes: Axes, lengths: np.ndarray, trained: Sequence[tuple[int, int]]) -> None:
    """Draws the axis of lengths, with as many ticks at evaluated lengths as fit. Trained lengths are shaded, or marked
    by a line if there is only one. If rows differ in trained lengths, each curve has its own mark instead."""
    longest = [high for _, high in trained]
    low, high = min(lengths[0], *longest), lengths[-1]
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
    for length in (high, *(n for n in lengths if n in longest), *lengths):
        if all(abs(scale(length) - scale(tick)) > 0.045 * (right - left) for tick in ticks):
            ticks.append(int(length))
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter('{x:.0f}')
    axes.set_xlabel('length')

    transform = offset_copy(axes.get_xaxis_transform(), axes.get_figure(root=True), y=4, units='points')

    def above(x: int | float, text: str) -> None:
        axes.text(x, 1, text, transform=transform, fontsize=8.5, color=GREY)

    if len(trained) > 1:
        above(axes.get_xlim()[0], 'trained up to the tick of each curve')
        return
    first, last = max(axes.get_xlim()[0], trained[0][0]), trained[0][1]
    if last > first:
        axes.axvspan(first, last, color=SHADE, linewidth=0, zorder=-1)
    else:
        axes.axvline(last, color=GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=-1)
    above(first, 'trained lengths' if last > first else 'trained length')


def _label_ends(axes: Axes, x: int, ends: list[tuple[str, float, str]]) -> None:
    """Draws labels at the right ends of the lines, moved apart as little as necessary (least squares)."""
    ends = sorted(ends, key=lambda end: end[1])
    bottom, top = axes.get_ylim()
    from scipy.optimize import isotonic_regression  # takes half a second to import; errors should show before

    names = [name for name, *_ in ends]
    sizes = np.array([_height(name) for name in names])
    gaps = (sizes[1:] + sizes[:-1]) / 2 / _inches(axes)
    wanted = np.array([(value - bottom) / (top - bottom) for _, value, _ in ends])
    steps = np.cumsum([0, *gaps])
    heights = np.clip(isotonic_regression(wanted - steps).x, 0, 1 - steps[-1]) + steps
    for name, (_, value, ink), height in zip(names, ends, heights, strict=True):
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
                'relpos': (0, 0.5),  # ends at the beginning of the label
                'shrinkA': 1,
                'shrinkB': 3,
            },
        )
