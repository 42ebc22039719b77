"""Metrics of a range evaluation, each defined once in `METRICS`: value, direction, format.

The summary of a run, tables, curves and `compare.py --metric` read `METRICS`. A metric is a function of the columns of
result files. A new one is a new entry and, if necessary, a column in `VALUES` and a sum in `count`. Reports import this
file, so only `count` imports jax.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

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
    title: str = dataclasses.field(compare=False)
    header: str
    """Short title, for the header of a column."""
    of: Callable[[Mapping[str, Any]], Any]
    """Function from the columns of results, numbers or arrays, to the value. Uses no jax."""
    best: Literal['max', 'min'] = 'max'
    limits: tuple[float, float] = (0.0, 1.0)
    per_example: bool = False
    """Whether every example is one independent trial, right or wrong, as Wilson's interval requires."""
    has_baseline: bool = False
    """Whether the column `baseline` is a value of this metric."""
    of_language: bool = False
    """Whether only language models have this metric. Their problem depends on the direction: next or masked bytes."""

    def show(self, value: float, examples: int) -> str:
        """Value as text, with its 95 % interval over `examples` if the metric has one."""
        if not self.per_example or math.isnan(value):
            return number(value)
        low, high = wilson(round(value * examples), examples)
        return f'{number(value)} [{number(low)}, {number(high)}]'


def number(value: float) -> str:
    return f'{value:.3f}'


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            'accuracy',
            title='accuracy per symbol',
            header='accuracy',
            of=lambda row: row['accuracy'],
            has_baseline=True,
        ),
        Metric(
            'exact_match',
            title='exact match of whole answers',
            header='exact match',
            of=lambda row: row['exact_match'],
            per_example=True,
        ),
        Metric(
            'macro_f1',
            title='macro F1, the mean over classes',
            header='macro F1',
            of=lambda row: row.get('macro_f1', np.nan * row['accuracy']),
        ),
        Metric(
            'loss',
            title='loss in nats per symbol',
            header='loss',
            of=lambda row: row['loss'],
            best='min',
            limits=(0.0, math.inf),
        ),
        Metric(
            'bits_per_byte',
            title='loss in bits per byte',
            header='bits per byte',
            of=lambda row: row['loss'] / math.log(2) / _bytes_per_symbol(row),
            best='min',
            limits=(0.0, math.inf),
            of_language=True,
        ),
        Metric(
            'perplexity',
            title='perplexity per symbol',
            header='perplexity',
            of=lambda row: np.exp(row['loss']),
            best='min',
            limits=(1.0, math.inf),
            of_language=True,
        ),
    )
}


def _bytes_per_symbol(row: Mapping[str, Any]) -> Any:
    """Column of the same name; 1 where there is none, because symbols are bytes."""
    values = np.asarray(row.get('bytes_per_symbol', 1.0))
    return np.where(np.isnan(values), 1.0, values)


def macro_f1(confusion: Int[np.ndarray, 'C C']) -> float:
    """Mean of the F1 scores of the classes that occur, as a true or as a predicted one. `confusion` counts examples by
    true class (rows) and predicted class."""
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    occurs = true + predicted > 0
    return float(np.mean(2 * right[occurs] / (true + predicted)[occurs]))


VALUES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    'accuracy': lambda sums: sums['correct'].sum() / sums['symbols'].sum(),
    'exact_match': lambda sums: sums['exact'] / sums['examples'],
    'loss': lambda sums: sums['loss'] / sums['scored'],
    'bytes_per_symbol': lambda sums: sums['bytes'] / sums['scored'],
    'macro_f1': lambda sums: macro_f1(sums['confusion']),
    'baseline': lambda sums: sums['classes'].max(-1).sum() / sums['symbols'].sum(),
    'examples': lambda sums: sums['examples'],
}
"""Columns of a result file after the length, each a function of the sums of `count`."""
OPTIONAL = {'bytes_per_symbol': 'bytes', 'macro_f1': 'confusion'}
"""Columns that only some tasks have, each with the sum that it needs."""
COLUMNS = ('length', *(column for column in VALUES if column not in OPTIONAL))
"""Columns of every result file after the seed. New ones are inserted before `baseline`; readers use names."""
ALL_COLUMNS = ('length', *VALUES)


def row(length: int, sums: Mapping[str, Any]) -> dict[str, float | int]:
    """Result at one length, with the columns `COLUMNS` and those of `OPTIONAL` for which there are sums."""
    values = {name: value(sums) for name, value in VALUES.items() if OPTIONAL.get(name, 'loss') in sums}
    return {'length': length} | {name: int(x) if name == 'examples' else float(x) for name, x in values.items()}


def position_rows(length: int, sums: Mapping[str, Any]) -> list[dict[str, float | int]]:
    """Results at one length for every index in the answer: `position`, from 1; `accuracy` with a 95 % interval `low`,
    `high` over the examples that have such a symbol, `count` of them; `loss` in nats, with `loss_low`, `loss_high`."""
    rows = []
    for index, count in enumerate(map(int, sums['symbols'])):
        if count:
            low, high = wilson(int(sums['correct'][index]), count)
            loss, square = (float(sums[name][index]) / count for name in ('losses', 'squared_losses'))
            half = Z95 * math.sqrt(max(square - loss**2, 0) / max(count - 1, 1))
            row = {'length': length, 'position': index + 1, 'accuracy': float(sums['correct'][index] / count)}
            row |= {'count': count, 'low': low, 'high': high}
            rows.append(row | {'loss': loss, 'loss_low': loss - half, 'loss_high': loss + half})
    return rows


def confusion_rows(length: int, sums: Mapping[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Numbers of examples of one length by `true` and `predicted` class, without zeros; none if examples have more than
    one class."""
    counts = sums.get('confusion', np.zeros((0, 0), int))
    return [
        {
            'length': length,
            'true': classes[true],
            'predicted': classes[predicted],
            'count': int(counts[true, predicted]),
        }
        for true, predicted in np.argwhere(counts)
    ]


def titled(metric: Metric, rows: Mapping[str, Any]) -> Metric:
    """Same metric of the results `rows`. Accuracy is not per symbol if an answer is one class."""
    return dataclasses.replace(metric, title='accuracy') if metric.name == 'accuracy' and one_class(rows) else metric


def one_class(rows: Mapping[str, Any]) -> bool:
    """Whether every answer in the results `rows` is one class."""
    return bool(rows) and bool(np.isfinite(METRICS['macro_f1'].of(rows)).all())


def table_of(own: Metric, rows: Mapping[str, Any]) -> list[Metric]:
    """Metrics in the table of a single run with the metric `own` and the results `rows`."""
    if own.of_language:
        names = ['accuracy', 'loss', 'perplexity', 'bits_per_byte']
    else:
        names = ['accuracy', 'macro_f1' if one_class(rows) else 'exact_match', 'loss']  # of a class, both are equal
    return [METRICS[name] for name in names]


def count(logits: Any, batch: Any, task: Any) -> dict[str, Any]:
    """Sums over a batch of examples, from which all columns are computed; runs inside jit. `correct`, `symbols`,
    `losses` and `squared_losses` have one entry per index in the answer. `classes` has one per class and, if the
    baseline of the task may depend on it, per token."""
    import jax
    import jax.numpy as jnp

    from mha.training.step import losses

    loss = losses(logits, batch)
    right = batch.right(logits.argmax(-1))
    answer_index = jnp.cumsum(batch.metric_mask, -1) - 1

    def per_answer_index(counted):
        return jnp.zeros(answer_index.shape[-1], counted.dtype).at[answer_index].add(counted)

    classes = jax.vmap(batch.right, out_axes=-1)(jnp.arange(task.num_classes)).astype(int)
    counted_loss = jnp.where(batch.metric_mask, loss, 0)
    sums = {
        'examples': jnp.array(len(logits)),
        'correct': per_answer_index(right.astype(int)),
        'symbols': per_answer_index(batch.metric_mask.astype(int)),
        'losses': per_answer_index(counted_loss),
        'squared_losses': per_answer_index(counted_loss**2),
        'exact': (right == batch.metric_mask).all(-1).sum(),
        'loss': jnp.sum(loss, where=batch.loss_mask),
        'scored': batch.loss_mask.sum(),
        'classes': classes.sum((0, 1) if not task.baseline_per_position else 0),
    }
    if task.bytes_per_symbol is not None:
        sums['bytes'] = jnp.sum(jnp.asarray(task.bytes_per_symbol)[batch.targets], where=batch.loss_mask)
    if task.one_class:
        true, predicted = (
            jax.nn.one_hot(x[:, 0], task.num_classes, dtype=int) for x in (batch.targets, logits.argmax(-1))
        )
        sums['confusion'] = true.T @ predicted
    return sums
