"""Training: state, update step, and chunks of steps as one program for all members of a population.

Randomness is `fold_in(seed, step)` and the data come from the device, so a resumed run repeats the uninterrupted one
bit for bit (but for the order in which a GPU adds), and the stream of data does not depend on the model. The lengths of
the steps depend on the curriculum alone: all seeds meet the same ones, so that members can share a program. One chunk
is one dispatch; inside it every step draws its length and its batch, and branches to the gradients of the batch cut to
the next bucket.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key, PRNGKeyArray

from mha.nn import prng
from mha.tasks import Batch, Task
from mha.training.curricula import Curriculum

LENGTHS = 3
"""What the key of the lengths is made from."""

Varied = Mapping[str, Float[Array, 'P']]
"""The numbers in which members differ, seeds aside."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a step changes: parameters, the optimizer's state and a running mean of the parameters, each with an
    axis of members [P, ..] in front, and the number of steps done."""

    params: Any
    opt_state: Any
    mean: Any
    """None without averaging."""
    step: Any

    @property
    def evaluated(self) -> Any:
        """The parameters that count: their mean where one is kept."""
        return self.params if self.mean is None else self.mean


def init(params: Any, optimizer: optax.GradientTransformation, average: float) -> State:
    """The state before the first step; `params` is a nested dict with the axis of members."""
    mean = jax.tree.map(jnp.copy, params) if average else None
    return State(params, jax.vmap(optimizer.init)(params), mean, jnp.int32(0))


def logits_of(
    graphdef: nnx.GraphDef,
    params: Any,
    batch: Batch,
    *,
    train: bool,
    position: Key[Array, '*B'],
    dropout: PRNGKeyArray | None = None,
    dropout_rate: Any = None,
    one_length: bool = True,
) -> Float[Array, 'B #T C']:
    """Class logits of the model; a pooled read-out counts for every slot. `position` is the key of positions, one for
    all examples or one each; `dropout_rate` replaces the model's."""
    model = nnx.merge(graphdef, nnx.State(params))
    options: dict[str, Any] = {} if dropout_rate is None else {'dropout_rate': dropout_rate}
    if position.ndim:
        options['position_key'] = jax.vmap(prng.cheap)(position)
    streams = {'position': None if position.ndim else position, 'dropout': dropout}
    rngs = nnx.Rngs(**{name: prng.cheap(key) for name, key in streams.items() if key is not None})
    # Where all examples share a length, one row of `valid` serves all: biases are computed once, not B times.
    valid = batch.valid[:1] if one_length else batch.valid
    logits = model(batch.tokens, valid=valid, train=train, rngs=rngs, **options)
    return logits if logits.ndim == 3 else logits[:, None]


def losses(logits: Float[Array, 'B #T C'], batch: Batch) -> Float[Array, 'B T']:
    """Cross-entropy at every slot, in nats."""
    logits = jnp.broadcast_to(logits, (*batch.targets.shape, logits.shape[-1]))
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)


def make_chunk(
    graphdef: nnx.GraphDef,
    optimizer: Callable[..., optax.GradientTransformation],
    *,
    curriculum: Curriculum,
    buckets: Sequence[int],
    batch_size: int,
    length_per: str = 'batch',
    microbatches: int = 1,
    average: float = 0.0,
    together: bool = False,
    summed: Callable[[Callable], Callable] = lambda function: function,
    shardings: Any = None,
) -> Callable[[State, Task, Key[Array, 'P'], int, Varied], tuple[State, dict[str, Array]]]:
    """`chunk(state, task, keys, stop, varied)`: updates of every member until step `stop`; returns the new state and
    each member's means [P] of loss, accuracy, gradient norm and length over the chunk. `state` is donated. It compiles
    the gradients once per bucket, all within one program that serves chunks of any size.

    `optimizer(learning_rate=..)` builds the optimizer with what members vary. Each batch is of one length, drawn by
    `curriculum`, or each example of its own. A batch is computed in `microbatches` parts, one after the other, in the
    memory of one; the step is that of the whole, dropout's draws aside. `average` is the decay of the parameters'
    running mean, 0 for none. Members train `together`, vectorised, or in turn. `summed` spreads over devices what is a
    sum over a batch; `shardings` are those of the state and of the means (see `mha.machine.parallel`)."""

    def gradients(max_length, batch, params, task, keys, varied):
        """Sums over a batch cut to `max_length`: ((loss, counts), gradients of the loss), the counts being those of
        symbols that the loss counts, of answers, and of right ones."""
        dropout_key, position_key = keys
        batch = task.cut(batch, max_length)

        def loss_fn(params, batch, dropout_key):
            logits = logits_of(
                graphdef,
                params,
                batch,
                train=True,
                dropout=dropout_key,
                position=position_key,
                dropout_rate=varied.get('dropout_rate'),
                one_length=length_per == 'batch',
            )
            right = (logits.argmax(-1) == batch.targets) & batch.metric_mask
            counts = tuple(jnp.sum(x, dtype=jnp.float32) for x in (batch.loss_mask, batch.metric_mask, right))
            return jnp.sum(losses(logits, batch), where=batch.loss_mask), counts

        grad = jax.value_and_grad(loss_fn, has_aux=True)
        if microbatches == 1:
            return grad(params, batch, dropout_key)
        # Every n-th example: then a part draws the same on any number of devices.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
        dropout_keys = jax.random.split(dropout_key, microbatches)
        zero = jnp.float32(0)
        start = (zero, (zero, zero, zero)), jax.tree.map(jnp.zeros_like, params)

        def add(total, part):
            return jax.tree.map(jnp.add, total, grad(params, *part)), None

        return jax.lax.scan(add, start, (parts, dropout_keys))[0]

    def update(params, opt_state, mean, step, grads, varied):
        numbers = {name: value for name, value in varied.items() if name != 'dropout_rate'}
        updates, opt_state = optimizer(**numbers).update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        if mean is not None:
            # Few steps have a short memory: the first parameters are soon forgotten, whatever the decay.
            decay = jnp.minimum(average, (1 + step) / (10 + step))
            mean = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, mean, params)
        return params, opt_state, mean

    # One branch per bucket holds the model on so many slots, and nothing else: each is compiled apart.
    branches = [summed(functools.partial(gradients, bucket)) for bucket in buckets]

    def lengths(step):
        """Of all examples, or of each."""
        key = jax.random.fold_in(jax.random.key(LENGTHS), step)
        if length_per == 'batch':
            return curriculum.draw(key, step)
        return jax.vmap(lambda key: curriculum.draw(key, step))(jax.random.split(key, batch_size))

    def chunk(state, task, keys, stop, varied):
        def member(inputs):
            """One member's chunk. All share the step: loops over steps of their own would run all branches."""
            params, opt_state, mean, key, varied = inputs

            def next_step(carry):
                params, opt_state, mean, step, sums = carry
                data_key, *keys = jax.random.split(jax.random.fold_in(key, step), 3)
                length = lengths(step)
                batch = task.batch(data_key, batch_size, length, buckets[-1])
                branch = jnp.searchsorted(jnp.array(buckets), length.max())
                (loss, counts), grads = jax.lax.switch(branch, branches, batch, params, task, keys, varied)
                counted, answers, right = counts
                grads = jax.tree.map(lambda total: total / counted, grads)
                new = update(params, opt_state, mean, step, grads, varied)
                metrics = {
                    'loss': loss / counted,
                    'accuracy': right / answers,
                    'gradient_norm': optax.tree.norm(grads),
                    'length': length.astype(jnp.float32).mean(),
                }
                return *new, step + 1, jax.tree.map(jnp.add, sums, metrics)

            sums = dict.fromkeys(('loss', 'accuracy', 'gradient_norm', 'length'), jnp.float32(0))
            start = params, opt_state, mean, state.step, sums
            *new, _, sums = jax.lax.while_loop(lambda carry: carry[3] < stop, next_step, start)
            return tuple(new), jax.tree.map(lambda total: total / (stop - state.step), sums)

        inputs = state.params, state.opt_state, state.mean, keys, dict(varied)
        if len(keys) == 1:  # without a loop over one member, steps are a little faster
            new, means = jax.tree.map(lambda x: x[None], member(jax.tree.map(lambda x: x[0], inputs)))
        else:
            new, means = jax.vmap(member)(inputs) if together else jax.lax.map(member, inputs)
        return State(*new, step=jnp.maximum(state.step, stop)), means

    return jax.jit(chunk, donate_argnums=0, out_shardings=shardings)
