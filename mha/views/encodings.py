"""Pictures of the position schemes of a trained model: a row of panels for each, from `mha.probes.encodings`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import markupsafe
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mha.machine import files
from mha.probes import Encoding
from mha.views.report import plots
from mha.views.report.plots import GREY, INK, STYLE

Pictures = list[tuple[str, list[markupsafe.Markup]]]
Panel = Callable[[Axes, Encoding], None]
WIDTH, HEIGHT = 4.2, 3.2
"""Inches of a panel."""
MOST_HEADS = 8
"""Largest number of heads that the legend names."""


def figure(found: Sequence[Encoding]) -> Figure:
    """Figure with the parts that each scheme has. A dashed line marks the trained length. Dotted lines are biases
    before training."""
    rows = [[(panel, one) for panel in _panels(one)] for one in found]
    columns = max(map(len, rows))
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(WIDTH * columns, HEIGHT * len(rows)), layout='constrained')
        grid = drawing.subplots(len(rows), columns, squeeze=False)
        for row, panels in zip(grid, rows, strict=True):
            for axes, drawn in zip(row, [*panels, *[None] * (columns - len(panels))], strict=True):
                if drawn is None:
                    axes.set_visible(False)
                    continue
                panel, one = drawn
                panel(axes, one)
            row[0].set_title(_name(panels[0][1]), loc='left', fontweight='bold')
    return drawing


def svg(found: Sequence[Encoding]) -> str:
    """The same as SVG."""
    with matplotlib.rc_context(STYLE):
        return plots.as_svg(figure(found))


def write(folder: Path, runs: Mapping[str, Sequence[Encoding]]) -> tuple[list[Path], Pictures]:
    """Writes `positions.svg` of the first of one or two runs, and `positions_against.svg` of the second. Returns the
    paths, and `pictures` for a page, with the names of the runs if there are two."""
    paths = [folder / f'{name}.svg' for name in ('positions', 'positions_against')]
    shown = []
    for path, (run, found) in zip(paths, runs.items(), strict=False):
        files.write(path, svg(found))
        shown += [(f'{run}: {name}' if len(runs) > 1 else name, panels) for name, panels in pictures(found)]
    for path in paths[len(runs) :]:  # of an earlier probe
        path.unlink(missing_ok=True)
    return paths[: len(runs)], shown


def pictures(found: Sequence[Encoding]) -> Pictures:
    """The same for a page: name of each scheme, and its panels as one SVG each, in the colours of the page."""
    with matplotlib.rc_context(STYLE):
        return [
            (f'{one.scheme}, {_layers(one)}', [plots.inline(_alone(panel, one)) for panel in _panels(one)])
            for one in found
        ]


def _alone(panel: Panel, one: Encoding) -> str:
    drawing = Figure(figsize=(WIDTH, HEIGHT), layout='constrained')
    panel(drawing.subplots(), one)
    return plots.as_svg(drawing)


def _panels(one: Encoding) -> list[Panel]:
    return [panel for panel, shows in PANELS.items() if shows(one)] or [_nothing]


def _name(one: Encoding) -> str:
    return f'{plots.wrap(one.scheme, 40)}\n{_layers(one)}'


def _layers(one: Encoding) -> str:
    layers = f'layer {one.layers[0]}' if len(one.layers) == 1 else f'layers {one.layers[0]}-{one.layers[-1]}'
    return f'{one.stack}, {layers}'


def _nothing(axes: Axes, one: Encoding) -> None:
    axes.text(0, 0.5, 'acts on attention weights alone' if one.scheme != 'none' else 'no positions')
    axes.set_axis_off()


def _coordinates(axes: Axes, one: Encoding) -> None:
    axes.plot(one.coordinates, color=INK, linewidth=1.6)
    axes.set(xlabel='slot', ylabel='coordinate')
    _mark(axes, one)


def _embedding(axes: Axes, one: Encoding) -> None:
    assert one.embedding is not None
    _image(axes, one.embedding, 'RdBu_r', float(np.abs(one.embedding).max()))
    axes.set(xlabel='dimension', ylabel='position')
    axes.axhline(one.trained - 0.5, color=INK, linewidth=0.8, linestyle='--')


def _similarity(axes: Axes, one: Encoding) -> None:
    assert one.similarity is not None
    _image(axes, one.similarity, 'RdBu_r', 1.0)
    axes.set(xlabel='position', ylabel='cosine similarity to position')
    axes.axhline(one.trained - 0.5, color=INK, linewidth=0.8, linestyle='--')
    _mark(axes, one, one.trained - 0.5)


def _image(axes: Axes, values: np.ndarray, colours: str, most: float) -> None:
    image = axes.imshow(values, cmap=colours, vmin=-most, vmax=most, aspect='auto', interpolation='none')
    image.set_rasterized(True)
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def _bias(axes: Axes, one: Encoding) -> None:
    assert one.bias is not None
    assert one.initial_bias is not None
    _heads(axes, one.bias)
    if not np.allclose(one.bias, one.initial_bias):
        _heads(axes, one.initial_bias, linestyle=':', named=False)
    axes.set(xlabel='offset, query minus key', ylabel='bias')
    _mark(axes, one)


def _logits(axes: Axes, one: Encoding) -> None:
    assert one.logits is not None
    _heads(axes, one.logits)
    axes.set(xlabel='offset, query minus key', ylabel='logit of equal contents')
    _mark(axes, one)


def _heads(axes: Axes, lines: np.ndarray, linestyle: str = '-', named: bool = True) -> None:
    """Line per head; a single one if all are equal."""
    if np.allclose(lines, lines[:1]):
        axes.plot(lines[0], color=INK, linewidth=1.4, linestyle=linestyle)
        return
    colours = matplotlib.colormaps['viridis'](np.linspace(0.25, 0.85, len(lines)))
    for head, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        label = f'head {head}' if named and len(lines) <= MOST_HEADS else None
        axes.plot(line, color=colour, linewidth=1.4, linestyle=linestyle, label=label)
    if named and len(lines) <= MOST_HEADS:
        axes.legend(frameon=False, fontsize=8)


def _wavelengths(axes: Axes, one: Encoding) -> None:
    assert one.wavelengths is not None
    axes.semilogy(one.wavelengths, 'o', color=INK, markersize=4)
    axes.yaxis.set_major_formatter('{x:g}')
    axes.axhline(one.trained, color=GREY, linewidth=0.8, linestyle='--')
    axes.annotate('trained length', (0, one.trained), xytext=(0, 3), textcoords='offset points', color=GREY)
    axes.set(xlabel='frequency', ylabel='positions per turn')
    axes.yaxis.set_major_formatter('{x:,g}')


def _mark(axes: Axes, one: Encoding, at: float | None = None) -> None:
    axes.axvline(one.trained if at is None else at, color=GREY, linewidth=0.8, linestyle='--')


PANELS: dict[Panel, Callable[[Encoding], bool]] = {
    _coordinates: lambda one: bool((one.coordinates != np.arange(one.coordinates.size)).any()),
    _embedding: lambda one: one.embedding is not None,
    _similarity: lambda one: one.similarity is not None,
    _bias: lambda one: one.bias is not None,
    _logits: lambda one: one.logits is not None and not _only_bias(one),
    _wavelengths: lambda one: one.wavelengths is not None,
}
"""Panels, and whether a scheme has what they show."""


def _only_bias(one: Encoding) -> bool:
    """Whether logits and biases differ by a constant, so that only the bias depends on position."""
    if one.logits is None or one.bias is None:
        return False
    rest = one.logits - one.bias
    return bool(np.ptp(rest) <= 1e-4 * max(np.ptp(one.bias), 1))
