"""Pictures of the position schemes of a trained model: a row of panels for each, from `mha.probes.encodings`."""

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mha.probes import Encoding
from mha.views.report import plots
from mha.views.report.plots import GREY, INK, STYLE

WIDTH, HEIGHT = 4.2, 3.2
"""Inches of a panel."""
MOST_HEADS = 8
"""Largest number of heads that the legend names."""


def figure(found: Sequence[Encoding]) -> Figure:
    """Figure with the parts that each scheme has. A dashed line marks the trained length. Dotted lines are biases
    before training."""
    rows = [[(panel, one) for panel, shows in PANELS.items() if shows(one)] or [(_nothing, one)] for one in found]
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


def _name(one: Encoding) -> str:
    layers = f'layer {one.layers[0]}' if len(one.layers) == 1 else f'layers {one.layers[0]}-{one.layers[-1]}'
    return f'{plots.wrap(one.scheme, 40)}\n{one.stack}, {layers}'


def _nothing(axes: Axes, one: Encoding) -> None:
    axes.text(0, 0.5, 'acts on attention weights alone' if one.scheme != 'none' else 'no positions')
    axes.set_axis_off()


def _coordinates(axes: Axes, one: Encoding) -> None:
    axes.plot(one.coordinates, color=INK, linewidth=1.6)
    axes.set(xlabel='slot', ylabel='coordinate')
    _mark(axes, one)


def _embedding(axes: Axes, one: Encoding) -> None:
    assert one.embedding is not None
    _image(axes, one.embedding, 'RdBu_r', np.abs(one.embedding).max())
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
    colours = matplotlib.colormaps['viridis'](np.linspace(0, 0.9, len(lines)))
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


def _mark(axes: Axes, one: Encoding, at: float | None = None) -> None:
    axes.axvline(one.trained if at is None else at, color=GREY, linewidth=0.8, linestyle='--')


PANELS: dict[Callable[[Axes, Encoding], None], Callable[[Encoding], bool]] = {
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
