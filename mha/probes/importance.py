"""Importance of heads: what a run loses without them (Michel et al., 2019, arXiv:1905.10650).

    ablations             results without head h, and with head h as the only one of its layer
    gradient_importance   I_h = mean over examples of |dL / dm_h|, where m_h = 1 multiplies the output of head h
    pruning_curve         results as heads are removed one after the other, the least important first
    head_gates            gates that training has closed or left open (Voita et al., 2019, arXiv:1905.09418)

Heads are removed by a mask, which is an argument of the compiled program, so that all heads share it. Models that are
smaller without these heads: `Finished.pruned`.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha.arguments import Count, Seed, at_least, checked
from mha.machine import parallel
from mha.model import heads
from mha.model.heads import Head, Layer
from mha.model.seq2seq import Model
from mha.nn.gates import chance_open, gate
from mha.run.finished import Finished
from mha.spec import UserError, choose
from mha.tasks import Batch
from mha.training.evaluation import PAIRS_IN_MEMORY
from mha.training.step import logits_of, losses

Rows = list[dict[str, Any]]
Lengths = str | Iterable[int]


class Masked:
    """Evaluations of a run without some of its heads. All use the programs and the examples of the first."""

    def __init__(
        self, run: Finished, lengths: Lengths | None = None, examples: int | None = None, seed: int | None = None
    ):
        self.run = run.variant(lengths=lengths, examples=examples)
        self.model = _with_masks(self.run)
        self.heads = of_run(run)
        self.evaluator = self.run.experiment.evaluator_of(self.model, **({} if seed is None else {'seed': seed}))

    def rows(self, removed: Collection[Head], /, **columns: Any) -> Rows:
        """Results without these heads, one row per length; `columns` are put in front."""
        for stack, layer, attention in _layers(self.model):
            mask = [float(Head(stack, layer, number) not in removed) for number in attention.kept]
            attention.head_mask = jnp.array(mask, jnp.float32)
        run_seed = self.run.experiment.members[self.run.member]['seed']
        results = self.evaluator(nnx.to_pure_dict(nnx.state(self.model)), None, run_seed)
        return [{**columns, **row} for row in results.rows]


@checked
def ablations(
    run: Finished,
    *,
    lengths: Lengths | None = None,
    examples: Annotated[int, at_least(1)] | None = None,
    seed: Seed | None = None,
    alone: bool = False,
) -> Rows:
    """Results with each head removed, one row per head and length, and first those of the whole model. Columns:
    `removed`, which is 'none', 'head' or, if heads are also tried `alone`, 'others' for all other heads of the layer;
    `stack`, `layer` and `head`, None for the whole model; then those of an evaluation: `length`, `accuracy`,
    `exact_match`, `loss`, and others. Lengths, `examples` per length and their `seed` are by default those of the run's
    own evaluation."""
    masked = Masked(run, lengths, examples, seed)
    rows = masked.rows((), removed='none', stack=None, layer=None, head=None)
    for head in parallel.progress(iterable=masked.heads, unit=' heads', desc='ablate', leave=False):
        place: dict[str, Any] = dict(stack=head.stack, layer=head.layer, head=head.number)
        rows += masked.rows((head,), removed='head', **place)
        if alone:
            others = [other for other in masked.heads if other[:2] == head[:2] and other != head]
            rows += masked.rows(others, removed='others', **place)
    return rows


@checked
def gradient_importance(
    run: Finished,
    *,
    lengths: Lengths | None = None,
    examples: Annotated[int, at_least(1)] | None = None,
    normalize: bool = True,
    seed: Seed = 0,
) -> Rows:
    """Importance of every head: the mean over examples of |dL / dm|, where the mask m = 1 multiplies the output of the
    head, and L is the mean loss of an example's symbols in nats. With `normalize`, the heads of a layer have together
    the l2 norm 1, as published. One row per length and head: `stack`, `layer`, `head`, `length`, `importance`.

    Examples are those of training, so that heads chosen by their importance can be tested on held-out ones. The lengths
    are by default the evaluated ones up to the longest trained length."""
    task, model = run.experiment.task, _with_masks(run)
    longest = run.experiment.train_lengths[-1]
    trained = [length for length in run.experiment.eval_lengths if length <= longest] or [longest]
    run = run.variant(lengths=trained if lengths is None else lengths, examples=examples)
    lengths, examples = run.experiment.eval_lengths, run.config['eval']['examples']
    found: Rows = []
    for length in lengths:
        key = jax.random.fold_in(jax.random.key(seed), length)
        parts = _gradients(*nnx.split(model), task, key, length, examples=examples, max_length=lengths[-1])
        for (stack, layer, attention), part in zip(_layers(model), jax.device_get(parts), strict=True):
            part = part / max(np.linalg.norm(part), 1e-30) if normalize else part
            place: dict[str, Any] = dict(stack=stack, layer=layer)
            numbered = zip(attention.kept, part.tolist(), strict=True)
            found += [{**place, 'head': head, 'length': length, 'importance': value} for head, value in numbered]
    return found


@functools.partial(jax.jit, static_argnames=('graphdef', 'examples', 'max_length'))
def _gradients(graphdef, state, task, key, length, *, examples, max_length):
    """Mean over examples of the absolute gradients of their losses by the masks of heads, [H] for every layer."""
    masks, rest = nnx.split_state(state, nnx.PathContains('head_mask'), ...)
    batch_key, position_key = jax.random.split(key)
    batch = task.batch(batch_key, examples, length, max_length)

    def loss(masks, batch: Batch, position):
        whole = nnx.to_pure_dict(nnx.merge_state(masks, rest))
        logits = logits_of(graphdef, whole, batch, train=False, position=position[None])
        return jnp.mean(losses(logits, batch), where=batch.loss_mask)

    def of_example(inputs):
        example, position = inputs
        one = jax.tree.map(lambda x: x[None], example)
        return jax.tree.map(jnp.abs, jax.grad(loss)(masks, one, position))

    maps = max(1, len(jax.tree.leaves(masks)))  # gradients keep those of all layers
    in_memory = maps * task.num_tokens(max_length) ** 2
    size = min(examples, max(1, PAIRS_IN_MEMORY // in_memory))
    each = jax.lax.map(of_example, (batch, jax.random.split(position_key, examples)), batch_size=size)
    model = nnx.merge(graphdef, jax.tree.map(lambda x: x.mean(0), each), rest)
    return [layer.attention.head_mask for layer in _layers(model)]


@checked
def removable(curve: Rows, tolerance: float = 0.01) -> Rows:
    """Number of heads that can go at each length before the accuracy falls by more than `tolerance`, from the rows of a
    `pruning_curve`: `length`, `removable`, `heads`, the number of all, and `accuracy`, that of the whole model."""
    found: Rows = []
    for length in dict.fromkeys(row['length'] for row in curve):
        whole, *fewer = (row for row in curve if row['length'] == length)
        kept = itertools.takewhile(lambda row, whole=whole: row['accuracy'] >= whole['accuracy'] - tolerance, fewer)
        left = min((row['heads'] for row in kept), default=whole['heads'])
        found.append(
            {
                'length': length,
                'removable': whole['heads'] - left,
                'heads': whole['heads'],
                'accuracy': whole['accuracy'],
            }
        )
    return found


@checked
def head_gates(run: Finished) -> Rows:
    """Learned gates of a run with `train.head_penalty`, one row per head: `stack`, `layer`, `head`, `gate`, the factor
    on its output, and `chance_open`, the probability that it was open at the end of training. None without gates."""
    rows: Rows = []
    for stack, layer, attention in heads.layers(run.model):
        if attention.head_gates is not None:
            w = attention.head_gates[...]
            place: dict[str, Any] = dict(stack=stack, layer=layer)
            numbered = zip(attention.kept, gate(w).tolist(), chance_open(w).tolist(), strict=True)
            rows += [{**place, 'head': head, 'gate': z, 'chance_open': chance} for head, z, chance in numbered]
    return rows


def _layers(model: Model) -> list[Layer]:
    """Attention layers that have heads."""
    return [layer for layer in heads.layers(model) if layer.attention.num_heads]


def _with_masks(run: Finished) -> Model:
    """Copy of a run's model, with a mask of ones in every layer."""
    model = nnx.merge(*nnx.split(run.model))
    for layer in _layers(model):
        layer.attention.head_mask = jnp.ones(layer.attention.num_heads)
    return model


def of_run(run: Finished) -> list[Head]:
    """Heads of a run's model, in the order of its layers."""
    return [Head(*layer[:2], number) for layer in _layers(run.model) for number in layer.attention.kept]


# --------------------------------------------------------------------------------------------------------------- orders
def _by_gradient(run: Finished, seed: int) -> list[Head]:
    return ranked(gradient_importance(run, seed=seed))


def _by_ablation(run: Finished, seed: int) -> list[Head]:
    longest = run.experiment.train_lengths[-1]
    rows = ablations(run, seed=run.config['eval']['seed'] + 1 + seed)
    return ranked([row for row in rows if row['removed'] == 'head' and row['length'] <= longest], 'loss')


def _by_chance(run: Finished, seed: int) -> list[Head]:
    places = of_run(run)
    return [places[index] for index in np.random.default_rng(seed).permutation(len(places))]


def importance_of(rows: Iterable[Mapping[str, Any]], column: str = 'importance') -> dict[Head, float]:
    """Sum of a column over the rows of each head."""
    sums: dict[Head, float] = {}
    for row in rows:
        head = Head(row['stack'], row['layer'], row['head'])
        sums[head] = sums.get(head, 0.0) + row[column]
    return sums


def ranked(rows: Iterable[Mapping[str, Any]], column: str = 'importance') -> list[Head]:
    """Heads by the sum of a column over their rows, smallest first."""
    sums = importance_of(rows, column)
    return sorted(sums, key=sums.__getitem__)


ORDERS: dict[str, Callable[[Finished, int], list[Head]]] = {
    'importance': _by_gradient,
    'ablation': _by_ablation,
    'random': _by_chance,
}
"""Orders in which heads are removed, each a function of the run and a seed."""


@checked
def pruning_curve(
    run: Finished,
    *,
    order: str | Sequence[Head] = 'importance',
    lengths: Lengths | None = None,
    examples: Annotated[int, at_least(1)] | None = None,
    step: Count = 1,
    seed: Seed = 0,
) -> Rows:
    """Results as `step` heads after the other are removed, until none is left. `order` is 'importance' (by gradient),
    'ablation' (by the loss without the head, at trained lengths), 'random', or all heads in the order in which they go.
    Columns: `heads`, the number of those left; `pruned`, the others as for `model.pruned`; then those of an evaluation.
    `seed` is that of the examples by which heads are chosen, and of the random order."""
    masked = Masked(run, lengths, examples)
    if isinstance(order, str):
        ordered = ORDERS[choose(order, ORDERS, 'order of heads')](run, seed)
    else:
        ordered = [head for given in order for head in masked.heads if head == given]
    if sorted(ordered) != sorted(masked.heads) or (not isinstance(order, str) and len(order) != len(ordered)):
        raise UserError(f'an order of heads names each of the {len(masked.heads)} heads once')
    rows: Rows = []
    counts = [*range(0, len(ordered), step), len(ordered)]
    for count in parallel.progress(iterable=counts, unit=' steps', desc='prune', leave=False):
        removed = ordered[:count]
        rows += masked.rows(removed, heads=len(ordered) - count, pruned=heads.written(removed))
    return rows
