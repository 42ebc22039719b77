"""Metrics of a range evaluation, each defined once: its column in result files, its value, its direction, how it is
shown. The evaluator, the summary of a run, tables, curves and `compare.py --metric` read `METRICS`: another metric is
another entry there, and what it counts another sum. Reports read this file, so jax is imported by `count` alone."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

Z95 = 1.959964
"""The normal quantile of a 95 % interval."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson confidence interval (95 %) of a success rate from `count` independent trials (Wilson, 1927); unlike the
    normal approximation, it is right near 0 and 1."""
    rate, z2 = successes / count, Z95**2 / count
    centre, half = (rate + z2 / 2) / (1 + z2), math.sqrt(z2 * (rate * (1 - rate) + z2 / 4)) / (1 + z2)
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One way to measure a model at a length."""

    name: str
    """How tasks, summaries and `--metric` name it."""
    title: str
    header: str
    """Its short title, above a column."""
    column: str
    """Where result files hold its value, before `scale`."""
    value: Callable[[Mapping[str, Any]], Any]
    """Its value from the sums of `count`."""
    best: Literal['max', 'min'] = 'max'
    limits: tuple[float, float] = (0.0, 1.0)
    scale: float = 1.0
    per_example: bool = False
    """Whether each example is one independent trial, right or wrong, so that Wilson's interval holds."""
    has_baseline: bool = False
    """Whether the `baseline` column is a value of this metric."""
    of_language: bool = False
    """Whether only language models have it, whose question depends on the direction: next bytes, or hidden ones."""

    def of(self, row: Mapping[str, Any]) -> float:
        """Its value in a row of results."""
        return float(row[self.column]) * self.scale

    def show(self, value: float, examples: int) -> str:
        """A value as people read it, with its interval over so many examples where it has one."""
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
"""Columns of a result, behind the seed. New metrics come before `baseline`; readers go by name."""


def one_per_column(own: Metric) -> list[Metric]:
    """The metrics, in the order of their columns; where several share one, `own` or the first of them."""
    columns: dict[str, Metric] = {}
    for metric in METRICS.values():
        columns.setdefault(metric.column, metric)
    return list((columns | {own.column: own}).values())


def row(length: int, sums: Mapping[str, Any]) -> dict[str, float | int]:
    """The results at a length: `COLUMNS`."""
    values = {metric.column: float(metric.value(sums)) for metric in METRICS.values()}
    baseline = float(sums['classes'].max(-1).sum() / sums['symbols'].sum())
    return {'length': length, **values, 'baseline': baseline, 'examples': int(sums['examples'])}


def count(logits: Any, batch: Any, task: Any) -> dict[str, Any]:
    """Sums over a batch of examples, inside jit: what every value and the baseline are computed from. `correct` and
    `symbols` are per answer position, `classes` per class, and per token where the task's baseline may know it."""
    import jax
    import jax.numpy as jnp

    from mha.training.step import losses

    right = (logits.argmax(-1) == batch.targets) & batch.metric_mask
    at = jnp.cumsum(batch.metric_mask, -1) - 1

    def per_position(counted):
        return jnp.zeros(at.shape[-1], int).at[at].add(counted)

    classes = jax.nn.one_hot(batch.targets, task.num_classes, dtype=int) * batch.metric_mask[..., None]
    return {
        'examples': jnp.array(len(logits)),
        'correct': per_position(right),
        'symbols': per_position(batch.metric_mask),
        'exact': (right == batch.metric_mask).all(-1).sum(),
        'loss': jnp.sum(losses(logits, batch), where=batch.loss_mask),
        'scored': batch.loss_mask.sum(),
        'classes': classes.sum((0, 1) if not task.baseline_per_position else 0),
    }
