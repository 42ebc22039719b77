"""Training: state, update step, and chunks of steps as one program.

Randomness is `fold_in(seed, step)` and the data come from the device, so a resumed run repeats the uninterrupted one
bit for bit, and the stream of data does not depend on the model. One chunk is one dispatch; inside it every step draws
its length and branches to the update that pads to the next bucket.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from mha.curricula import Curriculum
from mha.encoder import Encoder
from mha.tasks import Batch, Task


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a step changes: parameters, the optimizer's state, and the number of steps done."""

    params: Any
    opt_state: Any
    step: Any


def init(model: Encoder, optimizer: optax.GradientTransformation) -> tuple[nnx.GraphDef, State]:
    """A fresh state of `model`, whose parameters become a plain nested dict."""
    graphdef, params = nnx.split(model, nnx.Param)
    params = nnx.to_pure_dict(params)
    return graphdef, State(params, optimizer.init(params), jnp.int32(0))


def logits_of(
    graphdef: nnx.GraphDef,
    params: Any,
    batch: Batch,
    *,
    train: bool,
    position: PRNGKeyArray,
    dropout: PRNGKeyArray | None = None,
) -> Float[Array, 'B #T C']:
    """The model's class logits; a pooled read-out counts for every slot."""
    model = nnx.merge(graphdef, nnx.State(params))
    rngs = nnx.Rngs(position=position) if dropout is None else nnx.Rngs(position=position, dropout=dropout)
    # All examples of a batch share one length: one row of `valid` serves all, so biases are computed once, not B times.
    logits = model(batch.tokens, valid=batch.valid[:1], train=train, rngs=rngs)
    return logits if logits.ndim == 3 else logits[:, None]


def losses(logits: Float[Array, 'B #T C'], batch: Batch) -> Float[Array, 'B T']:
    """Cross-entropy at every slot, in nats."""
    logits = jnp.broadcast_to(logits, (*batch.targets.shape, logits.shape[-1]))
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)


def make_chunk(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    curriculum: Curriculum,
    buckets: Sequence[int],
    batch_size: int,
) -> Callable[[State, Task, PRNGKeyArray, int], tuple[State, dict[str, Array]]]:
    """`chunk(state, task, key, stop)`: updates until step `stop`, each on a batch of one length drawn by `curriculum`;
    returns the new state and the means of loss, accuracy, gradient norm and length over the chunk. `state` is donated.
    It compiles one update per bucket, all within one program that serves chunks of any size."""

    def update(max_length, state, task, length, keys):
        data_key, dropout_key, position_key = keys
        batch = task.batch(data_key, batch_size, length, max_length)

        def loss_fn(params):
            logits = logits_of(graphdef, params, batch, train=True, dropout=dropout_key, position=position_key)
            loss = jnp.sum(losses(logits, batch), where=batch.loss_mask) / batch.loss_mask.sum()
            correct = jnp.sum(logits.argmax(-1) == batch.targets, where=batch.metric_mask)
            return loss, correct / batch.metric_mask.sum()

        (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            'loss': loss,
            'accuracy': accuracy,
            'gradient_norm': optax.tree.norm(grads),
            'length': length.astype(jnp.float32),
        }
        return State(params, opt_state, state.step + 1), metrics

    branches = [lambda *args, bucket=bucket: update(bucket, *args) for bucket in buckets]

    def step(carry):
        state, task, key, sums, stop = carry
        length_key, *keys = jax.random.split(jax.random.fold_in(key, state.step), 4)
        length = curriculum.draw(length_key, state.step)
        branch = jnp.searchsorted(jnp.array(buckets), length)
        state, metrics = jax.lax.switch(branch, branches, state, task, length, keys)
        return state, task, key, jax.tree.map(jnp.add, sums, metrics), stop

    def chunk(state, task, key, stop):
        sums = dict.fromkeys(('loss', 'accuracy', 'gradient_norm', 'length'), jnp.float32(0))
        first = state.step
        carry = (state, task, key, sums, stop)
        state, _, _, sums, _ = jax.lax.while_loop(lambda carry: carry[0].step < carry[-1], step, carry)
        return state, jax.tree.map(lambda total: total / (stop - first), sums)

    return jax.jit(chunk, donate_argnums=0)
