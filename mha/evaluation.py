"""Range evaluation: accuracy and loss per length, inside and beyond the trained lengths, beside what a predictor that
never looks at the input would get."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha import buckets
from mha.tasks import Task
from mha.training import logits_of, losses

Row = dict[str, float | int]

EVALUATION = 2
"""What the evaluation's seed is folded with: a run may have the same seed."""

LOGITS_IN_MEMORY = 2**23
"""Attention logits per head computed at a time: long sequences are evaluated a few at a time."""


def evaluate(
    graphdef: nnx.GraphDef,
    params: Any,
    task: Task,
    *,
    lengths: Sequence[int],
    examples: int,
    batch_size: int,
    programs: int,
    seed: int,
) -> Iterator[Row]:
    """One row per length: length, accuracy, exact_match, loss (nats), baseline, examples.

    The `examples` of a length depend on `seed` and the length alone: all schemes and runs meet the same ones.
    `baseline` is the accuracy of the most frequent class, per output position where the task allows, computed from
    these examples. Dropout is off; schemes that draw positions draw once per batch. Compiles at most `programs`
    programs."""
    chosen = buckets.choose(lengths, task.num_tokens, programs)
    for length in lengths:
        max_length = next(bucket for bucket in chosen if bucket >= length)
        fits = max(1, min(batch_size, LOGITS_IN_MEMORY // task.num_tokens(max_length) ** 2))
        size = max(size for size in range(1, fits + 1) if examples % size == 0)
        sums = _measure(
            graphdef, params, task, length, seed, max_length=max_length, batches=examples // size, size=size
        )
        sums = jax.tree.map(np.asarray, sums)
        yield {
            'length': length,
            'accuracy': float(sums['correct'] / sums['symbols']),
            'exact_match': float(sums['exact'] / examples),
            'loss': float(sums['loss'] / sums['scored']),
            'baseline': float(sums['classes'].max(-1).sum() / sums['symbols']),
            'examples': examples,
        }


@functools.partial(jax.jit, static_argnames=('graphdef', 'max_length', 'batches', 'size'))
def _measure(graphdef, params, task, length, seed, *, max_length, batches, size):
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    data_key, position_key = jax.random.split(jax.random.fold_in(key, length))
    keys = jax.random.split(data_key, (batches, size))

    def measure_batch(inputs):
        keys, position = inputs
        batch = task.examples(keys, length, max_length)
        logits = logits_of(graphdef, params, batch, train=False, position=position)
        right = (logits.argmax(-1) == batch.targets) & batch.metric_mask
        classes = jax.nn.one_hot(batch.targets, task.num_classes) * batch.metric_mask[..., None]
        return {
            'correct': right.sum(),
            'symbols': batch.metric_mask.sum(),
            'exact': (right == batch.metric_mask).all(-1).sum(),
            'loss': jnp.sum(losses(logits, batch), where=batch.loss_mask),
            'scored': batch.loss_mask.sum(),
            'classes': classes.sum((0, 1) if not task.baseline_per_position else 0),
        }

    # One batch after the other, not vectorised: memory stays that of one batch.
    sums = jax.lax.map(measure_batch, (keys, jax.random.split(position_key, batches)))
    return jax.tree.map(lambda x: x.sum(0), sums)


def scores(rows: Sequence[Row], trained: int) -> dict[str, float | None]:
    """Mean accuracy over the evaluated lengths up to `trained` ('in_range') and beyond ('score'); None without any."""
    inside = [row['accuracy'] for row in rows if row['length'] <= trained]
    beyond = [row['accuracy'] for row in rows if row['length'] > trained]
    return {
        'in_range': float(np.mean(inside)) if inside else None,
        'score': float(np.mean(beyond)) if beyond else None,
    }
