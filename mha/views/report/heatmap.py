"""Heatmap of a table of scores, such as tasks across and schemes down. The same table gives the same bytes."""

import math

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mha.training.metrics import number
from mha.views.report.pivot import Pivot
from mha.views.report.plots import GREY, STYLE, wrap

COLOURS = colormaps['cividis']
"""Readable with every colour vision, and in grey."""
CELL_WIDTH, CELL_HEIGHT = 0.78, 0.36
"""Inches."""
WIDEST = 30
"""Largest width in characters of a label."""


def figure(table: Pivot, title: str = '') -> Figure:
    """Means of the cells as colours, with their numbers, and a `title` below. A combination without a score, as without
    a finished run, is a hatched cell."""
    scores = table.scores()
    down, across = ([wrap(', '.join(labels), WIDEST) for labels in each] for each in (table.rows, table.columns))
    finite = scores[np.isfinite(scores)]
    shares = ((finite >= 0) & (finite <= 1)).all()
    norm = Normalize(0, 1) if shares else Normalize(finite.min(), finite.max())
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(CELL_WIDTH * len(across), CELL_HEIGHT * len(down)))
        axes = drawing.add_axes((0, 0, 1, 1))
        axes.set_facecolor('none')
        axes.imshow(scores, COLOURS, norm, aspect='auto')
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_yticks(range(len(down)), down)
        axes.set_xticks(range(len(across)), across, rotation=40, ha='left', rotation_mode='anchor')
        axes.xaxis.tick_top()
        axes.set_ylabel(', '.join(table.row_keys))
        axes.set_xlabel(', '.join(table.column_keys) + (f'\n{title}' if title else ''))
        for (row, column), score in np.ndenumerate(scores):
            if math.isnan(score):
                corner = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch='////', edgecolor=GREY, linewidth=0))
                continue
            dark = float(np.dot(COLOURS(norm(score))[:3], (0.299, 0.587, 0.114))) < 0.5
            axes.text(
                column, row, number(score), color='#fafafa' if dark else 'black', ha='center', va='center', fontsize=9
            )
    return drawing
