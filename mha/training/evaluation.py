"""Range evaluation: accuracy and loss per length, inside and beyond the trained lengths, beside what a predictor that
never looks at the input would get."""

import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from mha.cores import blockwise
from mha.machine import parallel
from mha.tasks import Task
from mha.training import buckets, metrics
from mha.training.step import Purpose, logits_of

Row = dict[str, float | int]

PAIRS_IN_MEMORY = 2**23
"""Attention logits per head of a batch whose model holds them all: long sequences are evaluated a few at a time."""
TOKENS_IN_MEMORY = 2**17
"""Tokens of a batch whose model does not."""
PAIRS_PER_DISPATCH = 2**29
"""Attention logits per head between two steps of the progress bar: a few seconds on a CPU."""


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Lengths whose examples are padded alike and measured by one program."""

    max_length: int
    size: int
    """Examples of a batch."""
    batches: int
    """Of a dispatch."""
    layout: parallel.Layout | None
    """Of a batch; None on one device."""
    watched: bool
    """Whether the program tells of its progress."""


class Evaluator:
    """Range evaluation of models that differ in their parameters alone; `params` are those of one, or their shapes.

    The `examples` of a length depend on `seed` and the length alone: all schemes and runs meet the same ones.
    `baseline` is the accuracy of the most frequent class, per output position where the task allows, computed from
    these examples. Dropout is off; schemes that draw positions draw for every example, from its number and the run's
    seed alone. Compiles at most `programs` programs. `quadratic` says whether the model holds the attention logits of
    all pairs of so many tokens: batches are as large as memory allows, at most `batch_size`, and go over the devices of
    `layout` where these divide them; else one device works. The progress bar moves within long examples, too: they pass
    `layers` layers of attention."""

    def __init__(
        self,
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
    ):
        self.graphdef, self.task, self.lengths, self.examples = graphdef, task, lengths, examples
        self.seed, self.layers, self.layout = seed, layers, layout
        self.shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        self.buckets = []
        for max_length in buckets.choose(lengths, task.num_tokens, programs):
            padded = task.num_tokens(max_length)
            fits = PAIRS_IN_MEMORY // padded**2 if quadratic(padded) else TOKENS_IN_MEMORY // padded
            size = _divisor(examples, min(batch_size, fits))
            batches = _divisor(examples // size, PAIRS_PER_DISPATCH // (size * padded**2))
            watched = padded**2 > PAIRS_PER_DISPATCH and not quadratic(padded)
            self.buckets.append(Bucket(max_length, size, batches, self._dividing(size), watched))
        self.watcher: Callable[[int], None] = lambda queries: None
        """Called with the number of queries that a layer is done with, where a bucket is watched."""
        self.drawing: concurrent.futures.Future | None = None
        self.measuring: dict[Bucket, concurrent.futures.Future] = {}

    def compile(self) -> None:
        """Begins to compile the programs, one after the other, while this thread goes on."""
        if self.drawing is not None:
            return
        thread = concurrent.futures.ThreadPoolExecutor(1)
        self.drawing = thread.submit(self._draw)
        for bucket in self.buckets:
            self.measuring[bucket] = thread.submit(self._measure, bucket)

    def __call__(self, params: Any, name: str = 'evaluate', run_seed: int = 0) -> tuple[list[Row], list[Row]]:
        """One row per length: `metrics.COLUMNS`. And one per position of its answers, the first counted symbol being
        position 1: length, position, accuracy, count (the examples whose answer is as long), low, high (the 95 %
        interval over them). `name` stands before the progress bar; `run_seed`
        is that of random positions."""
        self.compile()
        place = functools.cache(functools.partial(_place, (params, self.task)))
        rows, positions = [], []
        tokens = self.examples * sum(map(self.task.num_tokens, self.lengths))
        with parallel.progress(total=tokens, unit=' tokens', unit_scale=True, desc=name) as bar:
            for length in self.lengths:
                sums = self._sums(length, run_seed, place, bar)
                rows.append(metrics.row(length, sums))
                for at, (correct, count) in enumerate(zip(sums['correct'], sums['symbols'], strict=True), 1):
                    if count:
                        row = {'length': length, 'position': at, 'accuracy': float(correct / count)}
                        low, high = metrics.wilson(int(correct), int(count))
                        positions.append(row | {'count': int(count), 'low': low, 'high': high})
                bar.set_postfix_str(f'length {length}, accuracy {rows[-1]["accuracy"]:.3f}')
        return rows, positions

    def _sums(self, length: int, run_seed: int, place: Callable[..., Any], bar: tqdm) -> dict[str, np.ndarray]:
        """What is counted over the examples of a length; `place(layout)` are the parameters and the task there."""
        bucket = next(bucket for bucket in self.buckets if bucket.max_length >= length)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), Purpose.EVALUATION), length)
        data_key, position_key = jax.random.split(key)
        _, task = place(self._dividing(self.examples))
        assert self.drawing is not None
        drawn = self.drawing.result()(task, _data(data_key), np.int32(length))
        dispatches = self.examples // bucket.size // bucket.batches
        keys = _data(jax.random.split(jax.random.fold_in(position_key, run_seed), self.examples))
        groups = _grouped((jax.device_get(drawn), keys), dispatches, bucket.batches, bucket.size)
        found = []
        for batches in groups:
            end = bar.n + bucket.batches * bucket.size * self.task.num_tokens(length)
            share = self.task.num_tokens(length) / self.task.num_tokens(bucket.max_length) / self.layers

            def move(queries, end=end, share=share):
                bar.update(min(queries * share, end - bar.n))

            self.watcher = move
            sums = self.measuring[bucket].result()(*place(bucket.layout), batches)
            found.append(jax.device_get(sums))
            bar.update(end - bar.n)
        return jax.tree.map(lambda *parts: np.sum(parts, axis=0), *found)

    def _dividing(self, batch_size: int) -> parallel.Layout | None:
        return self.layout if self.layout is not None and self.layout.divides(batch_size) else None

    def _draw(self):
        """The program that draws the examples of any length, padded to the longest."""
        draw = functools.partial(_draw, examples=self.examples, max_length=self.buckets[-1].max_length)
        return _compiled(draw, self._dividing(self.examples), self.task, _data(jax.random.key(0)), np.int32(0))

    def _measure(self, bucket: Bucket):
        """The program that measures the examples of a bucket's lengths."""
        draw = functools.partial(_draw, examples=self.examples, max_length=self.buckets[-1].max_length, layout=None)
        key = _data(jax.random.key(0))
        examples = jax.eval_shape(draw, self.task, key, np.int32(0)), key[None]
        batches = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((bucket.size, bucket.batches, x.shape[1]), x.dtype), examples
        )
        measure = functools.partial(_measure, self.graphdef, max_length=bucket.max_length)
        watching = (
            blockwise.watched(lambda queries: self.watcher(queries)) if bucket.watched else contextlib.nullcontext()
        )
        with watching:
            return _compiled(measure, bucket.layout, self.shapes, self.task, batches)


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`; 1 at least."""
    return next(divisor for divisor in range(max(min(limit, number), 1), 0, -1) if number % divisor == 0)


def _grouped(examples, dispatches, batches, size):
    """The examples [N, T] of each dispatch: [size, batches, T]."""
    groups = jax.tree.map(lambda x: x.reshape(dispatches, batches, size, -1).swapaxes(1, 2), examples)
    return [jax.tree.map(lambda x, i=i: x[i], groups) for i in range(dispatches)]


def _place(tree, layout):
    return jax.tree.map(jnp.asarray, tree) if layout is None else layout.replicate(tree)


def _data(keys):
    """Of random keys, on the host: arrays there go to the devices of any program."""
    return np.asarray(jax.random.key_data(keys))


def _compiled(function, layout, *arguments):
    """`function(.., layout=layout)` for arguments of these shapes."""
    options = {}
    if layout is not None:
        whole = layout.replicated
        options = dict(in_shardings=whole, out_shardings=whole, compiler_options=layout.compiler_options)
    return jax.jit(functools.partial(function, layout=layout), **options).lower(*arguments).compile()


def _draw(task, key, length, *, examples, max_length, layout):
    """`examples` of `length`."""
    batch = task.examples(jax.random.split(jax.random.wrap_key_data(key), examples), length, max_length)
    return batch if layout is None else layout.split(batch)


def _measure(graphdef, params, task, batches, *, max_length, layout):
    """Sums over batches [B, N, T] of examples and the keys of their positions, one of the N after the other: memory
    stays that of one."""

    def measure(batches, params, task):
        def measure_batch(inputs):
            batch, keys = inputs
            batch = task.cut(batch, max_length)
            logits = logits_of(graphdef, params, batch, train=False, position=jax.random.wrap_key_data(keys))
            return metrics.count(logits, batch, task)

        one_by_one = jax.tree.map(lambda x: x.swapaxes(0, 1), batches)
        return jax.tree.map(lambda x: x.sum(0), jax.lax.map(measure_batch, one_by_one))

    summed = measure if layout is None else layout.summed(measure)
    return summed(batches, params, task)
