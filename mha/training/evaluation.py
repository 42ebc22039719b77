"""Range evaluation: accuracy and loss at every length, inside and beyond the trained lengths, next to a baseline that
never reads the input."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from mha.cores import blockwise
from mha.machine import memory, parallel
from mha.spec import UserError
from mha.tasks import Task
from mha.training import buckets, metrics
from mha.training.step import Purpose, logits_of

Row = dict[str, float | int]

PAIRS_IN_MEMORY = 2**23
"""Largest number of attention logits per head in a batch, for models that hold them in memory."""
TOKENS_IN_MEMORY = 2**17
"""Largest number of tokens in a batch, for other models."""
LOGITS_IN_MEMORY = 2**27
"""Largest number of logits of classes in a batch."""
PAIRS_PER_DISPATCH = 2**29
"""Largest number of attention logits per head between two updates of the progress bar: a few seconds on a CPU."""


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Lengths whose examples are padded to the same length and measured by one program."""

    max_length: int
    size: int
    """Number of examples in a batch."""
    batches: int
    """Number of batches in a dispatch."""
    layout: parallel.Layout | None
    """Layout of a batch on devices; None for one device."""
    watched: bool
    """Whether the program reports progress within a batch."""
    tiled: bool
    """Whether attention is computed in tiles, though the model would hold the logits of all pairs."""


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of an evaluation, as rows of files."""

    rows: list[Row]
    """One per length: `metrics.row`."""
    positions: list[Row]
    """One per length and index in the answer: `metrics.position_rows`."""
    confusions: list[Row]
    """One per length, true and predicted class: `metrics.confusion_rows`."""
    too_large: dict[int, int]
    """Lengths that were not evaluated, with the bytes of memory that one example would take."""


class Evaluator:
    """Range evaluation of models that differ only in their parameters. `params` are those of one model, or their
    shapes.

    The `examples` of a length depend only on `seed` and the length, so all schemes and runs see the same ones. The
    baseline is the accuracy of the most frequent class in these examples, per index in the answer if the task allows
    that. Dropout is off. Schemes that draw coordinates draw them for every example, from the number of the example and
    the seed of the run. At most `programs` programs are compiled.

    Batches are as large as memory allows, at most `batch_size`. `quadratic(tokens)` says whether the model holds the
    attention logits of all pairs in memory. A program that would take more memory than is free is compiled again for
    smaller batches and, if not even one example fits, for the model `tiled`, which computes the same function in tiles.
    A length that does not fit then either is left out. A batch is spread over the devices of `layout` if they divide
    it; otherwise one device is used. The progress bar also moves within long examples, for which it needs the number of
    `layers`."""

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
        tiled: nnx.GraphDef | None = None,
        layers: int = 1,
        layout: parallel.Layout | None = None,
    ):
        self.graphdef, self.task, self.lengths, self.examples = graphdef, task, lengths, examples
        self.seed, self.quadratic, self.tiled, self.layers, self.layout = seed, quadratic, tiled, layers, layout
        self.shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        self.buckets = []
        for max_length in buckets.choose(lengths, task.num_tokens, programs):
            self.buckets.append(self._bucket(max_length, batch_size))
        self.watcher: Callable[[int], None] = lambda queries: None
        """Function that is called with the number of queries that a layer has processed, if a bucket is watched."""
        self.compiler = concurrent.futures.ThreadPoolExecutor(1)
        self.drawing: concurrent.futures.Future | None = None
        self.measuring: dict[Bucket, concurrent.futures.Future] = {}
        self.told: set[str] = set()

    def _bucket(self, max_length: int, batch_size: int, tiled: bool = False) -> Bucket:
        """Bucket of lengths up to `max_length`, for batches of at most `batch_size`."""
        padded = self.task.num_tokens(max_length)
        holds_pairs = self.quadratic(padded) and not tiled
        fits = PAIRS_IN_MEMORY // padded**2 if holds_pairs else TOKENS_IN_MEMORY // padded
        fits = min(fits, LOGITS_IN_MEMORY // (padded * self.task.num_classes))
        size = _divisor(self.examples, min(batch_size, fits))
        batches = _divisor(self.examples // size, PAIRS_PER_DISPATCH // (size * padded**2))
        watched = padded**2 > PAIRS_PER_DISPATCH and not holds_pairs
        return Bucket(max_length, size, batches, self._dividing(size), watched, tiled)

    def compile(self) -> None:
        """Starts to compile the programs in another thread."""
        if self.drawing is not None:
            return
        self.drawing = self.compiler.submit(self._draw)
        for bucket in self.buckets:
            self.measuring[bucket] = self.compiler.submit(self._measure, bucket)

    def __call__(self, params: Any, name: str | None = 'evaluate', run_seed: int = 0) -> Results:
        """Results at all lengths. `name` is the label of the progress bar, None for no bar; `run_seed` is the seed of
        random coordinates."""
        self.compile()
        place = functools.cache(functools.partial(_place, (params, self.task)))
        results = Results([], [], [], {})
        tokens = self.examples * sum(map(self.task.num_tokens, self.lengths))
        with parallel.progress(name is not None, total=tokens, unit=' tokens', unit_scale=True, desc=name) as bar:
            for length in self.lengths:
                bucket, needed = self._fitting(length)
                if bucket is None:
                    results.too_large[length] = needed
                    bar.total -= self.examples * self.task.num_tokens(length)
                    self._tell(bar, f'length {length} is not evaluated: one example {_takes(needed)}')
                    continue
                if bucket.tiled:
                    self._tell(
                        bar, f'length {length} is evaluated with core=blockwise: all logits take too much memory'
                    )
                sums = self._sums(length, bucket, run_seed, place, bar)
                results.rows.append(metrics.row(length, sums))
                results.positions.extend(metrics.position_rows(length, sums))
                results.confusions.extend(metrics.confusion_rows(length, sums, self.task.classes))
                bar.set_postfix_str(f'length {length}, accuracy {results.rows[-1]["accuracy"]:.3f}')
        if not results.rows:
            raise UserError(f'no length can be evaluated: one example of length {length} {_takes(needed)}')
        return results

    def _tell(self, bar: tqdm, message: str) -> None:
        """Prints a message once, and not amid the progress bar."""
        if message not in self.told and parallel.first():
            bar.write(f'note: {message}', file=sys.stderr)
        self.told.add(message)

    def _fitting(self, length: int) -> tuple[Bucket | None, int]:
        """Bucket of a length, with the largest batches that fit into free memory, or None if nothing fits; and the
        memory that the last program tried needs."""
        bucket = next((bucket for bucket in self.buckets if bucket.max_length >= length), None)
        needed = 0
        while bucket is not None:
            if bucket not in self.measuring:
                self.measuring[bucket] = self.compiler.submit(self._measure, bucket)
            try:
                needed, free = memory.needed(self.measuring[bucket].result()), memory.free()
            except UserError:
                if bucket.tiled:  # the core in tiles refuses the model
                    break
                raise
            if needed <= free:
                return bucket, needed
            bucket = self._smaller(bucket, free / needed)
        return None, needed

    def _smaller(self, bucket: Bucket, share: float) -> Bucket | None:
        """Bucket of smaller batches that needs about this share of the memory, then one in tiles, then None."""
        if bucket.size > 1:
            fits = max(min(int(bucket.size * share), bucket.size - 1), 1)
            return self._bucket(bucket.max_length, fits, bucket.tiled)
        holds_pairs = self.quadratic(self.task.num_tokens(bucket.max_length)) and not bucket.tiled
        if self.tiled is None or not holds_pairs:
            return None
        return self._bucket(bucket.max_length, self.examples, tiled=True)

    def _sums(self, length: int, bucket: Bucket, run_seed: int, place: Callable[..., Any], bar: tqdm) -> dict[str, Any]:
        """Sums over the examples of a length; `place(layout)` returns the parameters and the task on the devices of a
        layout."""
        key = jax.random.fold_in(jax.random.key(self.seed), Purpose.EVALUATION)
        key = jax.random.fold_in(key, 0 if self.task.same_examples else length)
        data_key, position_key = jax.random.split(key)
        _, task = place(self._dividing(self.examples))
        assert self.drawing is not None
        drawn = self.drawing.result()(task, _data(data_key), np.int32(length))
        dispatches = self.examples // bucket.size // bucket.batches
        keys = _data(jax.random.split(jax.random.fold_in(position_key, run_seed), self.examples))
        groups = _grouped((jax.device_get(drawn), keys), dispatches, bucket.batches, bucket.size)
        parts = []
        for batches in groups:
            end = bar.n + bucket.batches * bucket.size * self.task.num_tokens(length)
            share = self.task.num_tokens(length) / self.task.num_tokens(bucket.max_length) / self.layers

            def move(queries, end=end, share=share):
                bar.update(min(queries * share, end - bar.n))

            self.watcher = move
            sums = self.measuring[bucket].result()(*place(bucket.layout), batches)
            parts.append(jax.device_get(sums))
            bar.update(end - bar.n)
        return jax.tree.map(lambda *leaves: np.sum(leaves, axis=0), *parts)

    def _dividing(self, batch_size: int) -> parallel.Layout | None:
        return self.layout if self.layout is not None and self.layout.divides(batch_size) else None

    def _draw(self):
        """Program that draws the examples of any length, padded to the longest length."""
        draw = functools.partial(_draw, examples=self.examples, max_length=self.buckets[-1].max_length)
        return _compiled(draw, self._dividing(self.examples), self.task, _data(jax.random.key(0)), np.int32(0))

    def _measure(self, bucket: Bucket):
        """Program that measures the examples of all lengths in a bucket."""
        draw = functools.partial(_draw, examples=self.examples, max_length=self.buckets[-1].max_length, layout=None)
        key = _data(jax.random.key(0))
        examples = jax.eval_shape(draw, self.task, key, np.int32(0)), key[None]
        batches = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((bucket.size, bucket.batches, x.shape[1]), x.dtype), examples
        )
        graphdef = self.tiled if bucket.tiled else self.graphdef
        measure = functools.partial(_measure, graphdef, max_length=bucket.max_length)
        watching = (
            blockwise.watched(lambda queries: self.watcher(queries)) if bucket.watched else contextlib.nullcontext()
        )
        with watching:
            return _compiled(measure, bucket.layout, self.shapes, self.task, batches)


def _takes(needed):
    return f'takes {memory.shown(needed)} of memory, more than is free'


def _divisor(number: int, limit: int) -> int:
    """Largest divisor of `number` that is at most `limit`, or 1."""
    return next(divisor for divisor in range(max(min(limit, number), 1), 0, -1) if number % divisor == 0)


def _grouped(examples, dispatches, batches, size):
    """Examples [N, T], divided into dispatches of [size, batches, T]."""
    groups = jax.tree.map(lambda x: x.reshape(dispatches, batches, size, -1).swapaxes(1, 2), examples)
    return [jax.tree.map(lambda x, i=i: x[i], groups) for i in range(dispatches)]


def _place(tree, layout):
    return jax.tree.map(jnp.asarray, tree) if layout is None else layout.replicate(tree)


def _data(keys):
    """Random keys as arrays in host memory, which can be passed to programs on any devices."""
    return np.asarray(jax.random.key_data(keys))


def _compiled(function, layout, *arguments):
    """Compiled program of `function(.., layout=layout)` for arguments of these shapes."""
    options = {}
    if layout is not None:
        whole = layout.replicated
        options = dict(in_shardings=whole, out_shardings=whole, compiler_options=layout.compiler_options)
    return jax.jit(functools.partial(function, layout=layout), **options).lower(*arguments).compile()


def _draw(task, key, length, *, examples, max_length, layout):
    """Batch of `examples` examples of `length`."""
    batch = task.examples(jax.random.split(jax.random.wrap_key_data(key), examples), length, max_length)
    return batch if layout is None else layout.split(batch)


def _measure(graphdef, params, task, batches, *, max_length, layout):
    """Sums over batches [B, N, T] with the keys of their coordinates. The N batches are measured one after the other,
    in the memory of one."""

    def measure(batches, params, task):
        def measure_batch(inputs):
            batch, keys = inputs
            batch = task.cut(batch, max_length)
            position = jax.random.wrap_key_data(keys)
            logits = logits_of(graphdef, params, batch, train=False, position=position, one_length=not task.ragged)
            return metrics.count(logits, batch, task)

        one_by_one = jax.tree.map(lambda x: x.swapaxes(0, 1), batches)
        return jax.tree.map(lambda x: x.sum(0), jax.lax.map(measure_batch, one_by_one))

    summed = measure if layout is None else layout.summed(measure)
    return summed(batches, params, task)
