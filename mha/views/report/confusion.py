"""Confusion matrix: how often examples of each true class are given each predicted class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Int
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mha import spec
from mha.machine import files
from mha.run import fields
from mha.run.population import SETTINGS
from mha.views.report import plots
from mha.views.report.heatmap import COLOURS

CELL = 0.22
"""Inches; also the distance of two labels."""
LARGEST = 40.0
"""Inches of the largest picture. More classes have smaller cells and no labels."""


def draw(table: Path, path: Path) -> None:
    """Draws the counts in the file `table` at the longest length, over all seeds, as shares of each true class. Members
    of a population that differ in other settings than the seed have separate matrices."""
    rows = fields.read_table(table, fields.CONFUSION)
    longest = max(row['length'] for row in rows)
    rows = [row for row in rows if row['length'] == longest]
    classes = sorted({row[name] for row in rows for name in ('true', 'predicted')})
    matrices: dict[str, np.ndarray] = {}
    for row in rows:
        name = ''.join(f'{key}={value}, ' for key, value in row.items() if key in SETTINGS and key != 'seed')
        counts = matrices.setdefault(name, np.zeros((len(classes), len(classes)), int))
        counts[classes.index(row['true']), classes.index(row['predicted'])] += row['count']
    titled = {
        f'{name}length {longest}: {counts.trace() / counts.sum():.1%} of {counts.sum():,} examples are right': counts
        for name, counts in matrices.items()
    }
    files.write(path, plots.as_svg(figure(titled, classes)))


def figure(matrices: Mapping[str, Int[np.ndarray, 'C C']], classes: Sequence[str]) -> Figure:
    """Matrices by title, of the shares of the predicted classes (columns) in each true class (rows). Zeros are left
    blank."""
    side = min(max(CELL * len(classes), 2.0), LARGEST)
    labels = [spec.visible(name)[:40] for name in classes] if CELL * len(classes) <= LARGEST else []
    with matplotlib.rc_context(plots.STYLE):
        drawing = Figure(figsize=(side, side))
        for number, (title, counts) in enumerate(matrices.items()):
            shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            axes = drawing.add_axes((0, -number * (1 + 1.2 / side), 1, 1))
            image = axes.imshow(np.ma.masked_equal(shares, 0), COLOURS, LogNorm(0.001, 1))
            axes.set_xticks(range(len(labels)), labels, rotation=90)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_xlabel('predicted class')
            axes.set_ylabel('true class')
            axes.set_title(title, loc='left')
            if not number:
                scale = drawing.add_axes((1 + 0.3 / side, 0, 0.15 / side, 2 / side))
                bar = drawing.colorbar(image, cax=scale, label='share of the true class')
                bar.set_ticks([0.001, 0.01, 0.1, 1], labels=['0.001', '0.01', '0.1', '1'])  # not the markup of TeX
    return drawing
