"""Metrics of a range evaluation, each defined once in `METRICS`: value, column in result files, direction, format.

The evaluator, the summary of a run, tables, curves and `compare.py --metric` read `METRICS`. A new metric is a new
entry and, if necessary, a new sum in `count`. Reports import this file, so only `count` imports jax.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

Z95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson confidence interval (95 %) of a success rate from `count` independent trials (Wilson, 1927). Unlike the
    normal approximation, it is accurate near 0 and 1."""
    rate, z2 = successes / count, Z95**2 / count
    centre, half = (rate + z2 / 2) / (1 + z2), math.sqrt(z2 * (rate * (1 - rate) + z2 / 4)) / (1 + z2)
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)


@dataclasses.dataclass(frozen=True)
class Metric:
    """Metric of a model at one length."""

    name: str
    """Name in tasks, summaries and `--metric`."""
    title: str
    header: str
    """Short title, for the header of a column."""
    column: str
    """Column of result files that holds the value before `scale` is applied."""
    value: Callable[[Mapping[str, Any]], Any]
    """Function from the sums of `count` to the value."""
    best: Literal['max', 'min'] = 'max'
    limits: tuple[float, float] = (0.0, 1.0)
    scale: float = 1.0
    per_example: bool = False
    """Whether every example is one independent trial, right or wrong, as Wilson's interval requires."""
    has_baseline: bool = False
    """Whether the column `baseline` is a value of this metric."""
    of_language: bool = False
    """Whether only language models have this metric. Their problem depends on the direction: next or masked bytes."""

    def of(self, row: Mapping[str, Any]) -> float:
        """Value of the metric in a row of results."""
        return float(row[self.column]) * self.scale

    def show(self, value: float, examples: int) -> str:
        """Value as text, with its 95 % interval over `examples` if the metric has one."""
        if not self.per_example or math.isnan(value):
            return number(value)
        low, high = wilson(round(value * examples), examples)
        return f'{number(value)} [{number(low)}, {number(high)}]'


def number(value: float) -> str:
    return f'{value:.3f}'


LOSS = Metric(
    'loss',
    title='loss in nats per symbol',
    header='loss',
    column='loss',
    value=lambda sums: sums['loss'] / sums['scored'],
    best='min',
    limits=(0.0, math.inf),
)
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            'accuracy',
            title='accuracy per symbol',
            header='accuracy',
            column='accuracy',
            value=lambda sums: sums['correct'].sum() / sums['symbols'].sum(),
            has_baseline=True,
        ),
        Metric(
            'exact_match',
            title='exact match of whole answers',
            header='exact match',
            column='exact_match',
            value=lambda sums: sums['exact'] / sums['examples'],
            per_example=True,
        ),
        LOSS,
        dataclasses.replace(
            LOSS,
            name='bits_per_byte',
            title='loss in bits per byte',
            header='bits per byte',
            scale=1 / math.log(2),
            of_language=True,
        ),
    )
}
COLUMNS = ('length', *dict.fromkeys(metric.column for metric in METRICS.values()), 'baseline', 'examples')
"""Columns of a result file after the seed. New metrics are inserted before `baseline`; readers use names."""


def one_per_column(own: Metric) -> list[Metric]:
    """Metrics in the order of their columns. If several share a column, `own` is chosen, or else the first."""
    columns: dict[str, Metric] = {}
    for metric in METRICS.values():
        columns.setdefault(metric.column, metric)
    return list((columns | {own.column: own}).values())


def row(length: int, sums: Mapping[str, Any]) -> dict[str, float | int]:
    """Result at one length, with the columns `COLUMNS`."""
    values = {metric.column: float(metric.value(sums)) for metric in METRICS.values()}
    baseline = float(sums['classes'].max(-1).sum() / sums['symbols'].sum())
    return {'length': length, **values, 'baseline': baseline, 'examples': int(sums['examples'])}


def count(logits: Any, batch: Any, task: Any) -> dict[str, Any]:
    """Sums over a batch of examples, from which all metrics and the baseline are computed; runs inside jit. `correct`
    and `symbols` have one entry per index in the answer. `classes` has one per class and, if the baseline of the task
    may depend on it, per token."""
    import jax
    import jax.numpy as jnp

    from mha.training.step import losses

    right = (logits.argmax(-1) == batch.targets) & batch.metric_mask
    answer_index = jnp.cumsum(batch.metric_mask, -1) - 1

    def per_answer_index(counted):
        return jnp.zeros(answer_index.shape[-1], int).at[answer_index].add(counted)

    classes = jax.nn.one_hot(batch.targets, task.num_classes, dtype=int) * batch.metric_mask[..., None]
    return {
        'examples': jnp.array(len(logits)),
        'correct': per_answer_index(right),
        'symbols': per_answer_index(batch.metric_mask),
        'exact': (right == batch.metric_mask).all(-1).sum(),
        'loss': jnp.sum(losses(logits, batch), where=batch.loss_mask),
        'scored': batch.loss_mask.sum(),
        'classes': classes.sum((0, 1) if not task.baseline_per_position else 0),
    }
