"""Critical-difference diagram of mean ranks (Demsar, 2006, Journal of Machine Learning Research 7).

Rows are ranked within each block: a task, or, if there is only one task, a seed. A bar joins rows whose mean ranks over
the blocks differ by less than the critical difference of the Nemenyi test, so that they cannot be told apart.
"""

import dataclasses
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mha.spec import UserError
from mha.views.report import pivot, plots, statistics
from mha.views.report.comparison import Comparison

INCHES_PER_ROW = 0.28


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Rows, best first, by their mean rank over blocks."""

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    blocks: int
    kind: str
    """'tasks' or 'seeds'."""

    @property
    def critical(self) -> float:
        return statistics.critical_difference(len(self.names), self.blocks)


def ranks(comparison: Comparison) -> Ranks:
    """Mean ranks of the rows that have a score in every block. Raises `UserError` for fewer than three rows or fewer
    than two blocks."""
    problems = list(dict.fromkeys(row.problem for row in comparison.rows))
    kind = 'tasks' if len(problems) > 1 else 'seeds'
    found: dict[str, dict[Any, float]] = {}
    for row in comparison.rows:
        values = pivot.scores_of(comparison, row)
        line = found.setdefault(comparison.name(row), {})
        line.update([(row.problem, float(np.mean(values)))] if kind == 'tasks' else zip(row.seeds, values, strict=True))
    every = {block for scores in found.values() for block in scores}
    complete = {name: scores for name, scores in found.items() if scores.keys() == every}
    if len(complete) < 3 or len(every) < 2:
        raise UserError(
            f'ranks need three rows with results for at least two {kind}, all the same; there are {len(complete)} with '
            f'{len(every)}'
        )
    order = list(every)
    table = np.array([[scores[block] for block in order] for scores in complete.values()])
    means = statistics.ranks(table, comparison.metric.best).mean(1)
    best_first = np.argsort(means, kind='stable')
    names = list(complete)
    return Ranks(tuple(names[i] for i in best_first), tuple(means[best_first].tolist()), len(every), kind)


def diagram(comparison: Comparison) -> Figure:
    """Critical-difference diagram."""
    found = ranks(comparison)
    count = len(found.names)
    bars = statistics.groups(found.mean_ranks, found.critical)
    height = INCHES_PER_ROW * ((count + 1) // 2 + len(bars) + 4)
    with rc_context(plots.STYLE):
        drawing = Figure(figsize=(7, height))
        axes = drawing.add_axes((0.05, 0.05, 0.9, 0.9))
        axes.set_xlim(count + 0.2, 0.8)
        axes.set_ylim((count + 1) // 2 + len(bars) + 2, -1.5)
        axes.axis('off')
        axes.plot([1, count], [0, 0], color=plots.INK, lw=1)
        for rank in range(1, count + 1):
            axes.plot([rank, rank], [0, -0.2], color=plots.INK, lw=1)
            axes.text(rank, -0.4, str(rank), ha='center', fontsize=9)
        for number, (first, last) in enumerate(bars):
            at = 0.6 + 0.8 * number
            axes.plot([found.mean_ranks[first], found.mean_ranks[last]], [at, at], color=plots.INK, lw=3)
        below = 0.8 * len(bars) + 1
        for index, (name, rank) in enumerate(zip(found.names, found.mean_ranks, strict=True)):
            left = index >= (count + 1) // 2  # the best are on the right; the outermost are on top on either side
            at = below + (count - 1 - index if left else index)
            edge, beside, align = (count + 0.1, count + 0.14, 'right') if left else (0.9, 0.86, 'left')
            axes.plot([rank, rank, edge], [0, at, at], color=plots.GREY, lw=0.8)
            label = f'{name}  {rank:.2f}' if left else f'{rank:.2f}  {name}'
            axes.text(beside, at, label, ha=align, va='center', fontsize=9)
        told = f'mean rank over {found.blocks} {found.kind}; bars: differences below {found.critical:.2f} (Nemenyi)'
        axes.text((count + 1) / 2, (count + 1) // 2 + below + 0.3, told, ha='center', fontsize=9, color=plots.GREY)
        return drawing
