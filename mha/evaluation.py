"""Range evaluation: accuracy and loss per length, inside and beyond the trained lengths, beside what a predictor that
never looks at the input would get."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha import buckets, parallel
from mha.cores import blockwise
from mha.intervals import wilson
from mha.tasks import Task
from mha.training import logits_of, losses

Row = dict[str, float | int]

EVALUATION = 2
"""What the evaluation's seed is folded with: a run may have the same seed."""

PAIRS_IN_MEMORY = 2**23
"""Attention logits per head of a batch whose model holds them all: long sequences are evaluated a few at a time."""
TOKENS_IN_MEMORY = 2**17
"""Tokens of a batch whose model does not."""
PAIRS_PER_DISPATCH = 2**29
"""Attention logits per head between two steps of the progress bar: a few seconds on a CPU."""


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
    quadratic: Callable[[int], bool],
    layers: int = 1,
    layout: parallel.Layout | None = None,
    name: str = 'evaluate',
) -> tuple[list[Row], list[Row]]:
    """One row per length: length, accuracy, exact_match, loss (nats), baseline, examples. And one per position of its
    answers, the first counted symbol being position 1: length, position, accuracy, count (the examples whose answer is
    as long), low, high (the 95 % interval over them).

    The `examples` of a length depend on `seed` and the length alone: all schemes and runs meet the same ones.
    `baseline` is the accuracy of the most frequent class, per output position where the task allows, computed from
    these examples. Dropout is off; schemes that draw positions draw once per batch. Compiles at most `programs`
    programs. `quadratic` says whether the model holds the attention logits of all pairs of so many tokens: batches are
    as large as memory allows, at most `batch_size`, and go over the devices of `layout` where these divide them; else
    one device works. `name` stands before the progress bar, which moves within long examples, too: they pass `layers`
    layers of attention."""
    chosen = buckets.choose(lengths, task.num_tokens, programs)

    @functools.cache
    def model_and_task(layout):
        return (jax.tree.map(jnp.asarray, params), task) if layout is None else layout.replicate((params, task))

    def draw(key, length):
        """Examples on the host, padded to the longest of all lengths: one program makes those of every length."""
        whole = layout if layout is not None and layout.divides(examples) else None
        _, own = model_and_task(whole)
        program = _program(_draw, ('max_length',), whole)
        return jax.device_get(program(own, jax.random.split(key, examples), length, max_length=chosen[-1]))

    rows, positions = [], []
    tokens = examples * sum(map(task.num_tokens, lengths))
    with parallel.progress(total=tokens, unit=' tokens', unit_scale=True, desc=name) as bar:
        for length in lengths:
            max_length = next(bucket for bucket in chosen if bucket >= length)
            padded = task.num_tokens(max_length)
            fits = PAIRS_IN_MEMORY // padded**2 if quadratic(padded) else TOKENS_IN_MEMORY // padded
            size = _divisor(examples, min(batch_size, fits))
            spread = layout if layout is not None and layout.divides(size) else None
            batches = _divisor(examples // size, PAIRS_PER_DISPATCH // (size * padded**2))
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), EVALUATION), length)
            data_key, position_key = jax.random.split(key)
            dispatches = examples // size // batches
            drawn = _grouped(draw(data_key, length), dispatches, batches, size)
            position_keys = jax.random.split(position_key, (dispatches, batches))
            watched = padded**2 > PAIRS_PER_DISPATCH and not quadratic(padded)
            found = []
            for batch, keys in zip(drawn, position_keys, strict=True):
                end = bar.n + batches * size * task.num_tokens(length)
                share = task.num_tokens(length) / padded / layers

                def move(queries, end=end, share=share):
                    bar.update(min(queries * share, end - bar.n))

                measure = _program(_measure, ('graphdef', 'max_length', 'watched'), spread)
                static = dict(max_length=max_length, watched=watched)
                with _watching(move) if watched else contextlib.nullcontext():
                    sums = measure(graphdef, *model_and_task(spread), batch, keys, **static)
                    found.append(jax.device_get(sums))
                bar.update(end - bar.n)
            sums = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *found)
            symbols = sums['symbols'].sum()
            rows.append(
                {
                    'length': length,
                    'accuracy': float(sums['correct'].sum() / symbols),
                    'exact_match': float(sums['exact'] / examples),
                    'loss': float(sums['loss'] / sums['scored']),
                    'baseline': float(sums['classes'].max(-1).sum() / symbols),
                    'examples': examples,
                }
            )
            for at, (correct, count) in enumerate(zip(sums['correct'], sums['symbols'], strict=True), 1):
                if count:
                    row = {'length': length, 'position': at, 'accuracy': float(correct / count), 'count': int(count)}
                    low, high = wilson(int(correct), int(count))
                    positions.append(row | {'low': low, 'high': high})
            bar.set_postfix_str(f'length {length}, accuracy {rows[-1]["accuracy"]:.3f}')
    return rows, positions


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`; 1 at least."""
    return next(divisor for divisor in range(max(min(limit, number), 1), 0, -1) if number % divisor == 0)


@contextlib.contextmanager
def _watching(watcher):
    """Calls `watcher` with the number of queries that a layer is done with, in programs compiled to be watched."""
    blockwise.WATCHERS.append(watcher)
    try:
        yield
    finally:
        blockwise.WATCHERS.remove(watcher)


def _grouped(batch, dispatches, *shape):
    """The examples [N, T] of each dispatch, [*shape, T]."""
    groups = jax.tree.map(lambda x: x.reshape(dispatches, *shape, -1), batch)
    return [jax.tree.map(lambda x, i=i: x[i], groups) for i in range(dispatches)]


@functools.cache
def _program(function, static, layout):
    """`function(.., layout=layout)`, compiled."""
    return jax.jit(
        functools.partial(function, layout=layout),
        static_argnames=static,
        out_shardings=None if layout is None else layout.replicated,
        compiler_options=None if layout is None else layout.compiler_options,
    )


def _draw(task, keys, length, *, max_length, layout):
    """One example per key."""
    batch = task.examples(keys, length, max_length)
    return batch if layout is None else layout.split(batch)


def _measure(graphdef, params, task, batches, position_keys, *, max_length, watched, layout):
    """Sums over batches of examples, one batch after the other: memory stays that of one. A program that is `watched`
    tells of its progress."""

    def measure_batch(batch, position):
        batch = task.cut(batch, max_length)
        logits = logits_of(graphdef, params, batch, train=False, position=position)
        right = (logits.argmax(-1) == batch.targets) & batch.metric_mask
        at = jnp.cumsum(batch.metric_mask, -1) - 1

        def per_position(counted):
            return jnp.zeros(at.shape[-1], int).at[at].add(counted)

        classes = jax.nn.one_hot(batch.targets, task.num_classes) * batch.metric_mask[..., None]
        return {
            'correct': per_position(right),
            'symbols': per_position(batch.metric_mask),
            'exact': (right == batch.metric_mask).all(-1).sum(),
            'loss': jnp.sum(losses(logits, batch), where=batch.loss_mask),
            'scored': batch.loss_mask.sum(),
            'classes': classes.sum((0, 1) if not task.baseline_per_position else 0),
        }

    measure = measure_batch if layout is None else layout.summed(measure_batch)
    sums = jax.lax.map(lambda inputs: measure(*inputs), (batches, position_keys))
    return jax.tree.map(lambda x: x.sum(0), sums)
