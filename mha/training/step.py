"""Training: state, update step, and chunks of steps as one program for all members of a population.

Randomness is `fold_in(seed, step)` and the data come from the device, so a resumed run repeats the uninterrupted one
bit for bit (but for the order in which a GPU adds), and the stream of data does not depend on the model. The lengths of
the steps depend on the curriculum alone: all seeds meet the same ones, so that members can share a program. One chunk
is one dispatch; inside it every step draws its length and its batch, and branches to the gradients of the batch cut to
the next bucket.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from mha.nn import prng
from mha.tasks import Batch, Task
from mha.training.curricula import Curriculum


class Purpose(enum.IntEnum):
    """What a random key is for: folded into it, so that no two purposes share numbers."""

    WEIGHTS = 0
    """Initial weights, from a member's seed."""
    TRAINING = 1
    """Examples, dropout and positions of training, from a member's seed."""
    EVALUATION = 2
    """Examples of an evaluation, from `eval.seed`; positions also from a member's seed."""
    LENGTHS = 3
    """Lengths of the steps, the same for all runs."""


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over a batch, from which the training metrics follow."""

    loss: Any
    scored: Any
    """Number of symbols that the loss counts."""
    answers: Any
    """Number of symbols that accuracy counts."""
    right: Any
    """Number of right ones among them."""


METRICS: dict[str, Callable[[Sums, Any, Array], Array]] = {
    'loss': lambda sums, grads, length: sums.loss / sums.scored,
    'accuracy': lambda sums, grads, length: sums.right / sums.answers,
    'gradient_norm': lambda sums, grads, length: optax.tree.norm(grads),
    'length': lambda sums, grads, length: length.astype(jnp.float32).mean(),
}
"""Training metrics, from a step's sums, its mean gradients and its lengths; each is logged as the mean over a chunk."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A number of training steps as one program: calling it with `(state, task, keys, stop, varied)` updates every
    member until step `stop` and returns the new state and each member's means [P] of `METRICS` over the chunk.

    The gradients are compiled once per bucket, all within one program that serves chunks of any size."""

    graphdef: nnx.GraphDef
    optimizer: Callable[..., optax.GradientTransformation]
    """`optimizer(learning_rate=..)` builds the optimizer with the numbers that members vary."""
    curriculum: Curriculum
    buckets: Sequence[int]
    """Lengths to pad to, sorted."""
    batch_size: int
    length_per: str = 'batch'
    """'batch' draws one length for all examples of a step, 'example' one for each."""
    microbatches: int = 1
    """Parts that a batch is computed in, one after the other, in the memory of one; the step is that of the whole,
    dropout's draws aside."""
    average: float = 0.0
    """Decay of the running mean of the parameters; 0 keeps none."""
    together: bool = False
    """Whether members train together, vectorised, or in turn."""
    summed: Callable[[Callable], Callable] = lambda function: function
    """Spreads over devices a function of a batch whose results are sums over its examples (`mha.machine.parallel`)."""

    def compiled(self, shardings: Any = None) -> Callable[..., tuple[State, dict[str, Array]]]:
        """The chunk under `jax.jit`, the state donated; `shardings` are those of the state and of the means."""
        return jax.jit(self.__call__, donate_argnums=0, out_shardings=shardings)

    def __call__(
        self, state: State, task: Task, keys: Key[Array, 'P'], stop: Any, varied: Varied
    ) -> tuple[State, dict[str, Array]]:
        member = functools.partial(self.member, task=task, start=state.step, stop=stop)
        inputs = state.params, state.opt_state, state.mean, keys, dict(varied)
        if len(keys) == 1:  # without a loop over one member, steps are a little faster
            new, means = jax.tree.map(lambda x: x[None], member(jax.tree.map(lambda x: x[0], inputs)))
        else:
            new, means = jax.vmap(member)(inputs) if self.together else jax.lax.map(member, inputs)
        return State(*new, step=jnp.maximum(state.step, stop)), means

    def member(self, inputs, *, task, start, stop):
        """One member's steps. All members share the step: loops over steps of their own would run all branches."""
        *learned, key, varied = inputs
        # One branch per bucket holds the model on so many slots, and nothing else: each is compiled apart.
        branches = [self.summed(functools.partial(self.gradients, bucket)) for bucket in self.buckets]

        def next_step(carry):
            params, opt_state, mean, step, totals = carry
            data_key, *keys = jax.random.split(jax.random.fold_in(key, step), 3)
            length = self.lengths(step)
            batch = task.batch(data_key, self.batch_size, length, self.buckets[-1])
            branch = jnp.searchsorted(jnp.array(self.buckets), length.max())
            sums, grads = jax.lax.switch(branch, branches, batch, params, task, keys, varied)
            grads = jax.tree.map(lambda total: total / sums.scored, grads)
            new = self.update(params, opt_state, mean, step, grads, varied)
            metrics = {name: metric(sums, grads, length) for name, metric in METRICS.items()}
            return *new, step + 1, jax.tree.map(jnp.add, totals, metrics)

        totals = dict.fromkeys(METRICS, jnp.float32(0))
        *new, _, totals = jax.lax.while_loop(lambda carry: carry[3] < stop, next_step, (*learned, start, totals))
        return tuple(new), jax.tree.map(lambda total: total / (stop - start), totals)

    def lengths(self, step: Int[Array, '']) -> Int[Array, '*B']:
        """The length of all examples of a step, or of each."""
        key = jax.random.fold_in(jax.random.key(Purpose.LENGTHS), step)
        if self.length_per == 'batch':
            return self.curriculum.draw(key, step)
        return jax.vmap(lambda key: self.curriculum.draw(key, step))(jax.random.split(key, self.batch_size))

    def gradients(self, max_length: int, batch: Batch, params: Any, task: Task, keys: Any, varied: Any):
        """Sums over a batch cut to `max_length`, and gradients of its loss; `keys` of dropout and of positions."""
        dropout_key, position_key = keys
        batch = task.cut(batch, max_length)
        grad = jax.grad(functools.partial(self.loss, position_key=position_key, varied=varied), has_aux=True)
        if self.microbatches == 1:
            return grad(params, batch, dropout_key)[::-1]
        # Every n-th example: then a part draws the same on any number of devices.
        parts = jax.tree.map(lambda x: x.reshape(-1, self.microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
        dropout_keys = jax.random.split(dropout_key, self.microbatches)
        zero = jnp.float32(0)
        start = jax.tree.map(jnp.zeros_like, params), Sums(zero, zero, zero, zero)

        def add(total, part):
            return jax.tree.map(jnp.add, total, grad(params, *part)), None

        return jax.lax.scan(add, start, (parts, dropout_keys))[0][::-1]

    def loss(self, params: Any, batch: Batch, dropout_key: PRNGKeyArray, *, position_key: PRNGKeyArray, varied: Any):
        """The loss summed over a batch, and all sums."""
        logits = logits_of(
            self.graphdef,
            params,
            batch,
            train=True,
            dropout=dropout_key,
            position=position_key,
            dropout_rate=varied.get('dropout_rate'),
            one_length=self.length_per == 'batch',
        )
        right = (logits.argmax(-1) == batch.targets) & batch.metric_mask
        counts = (jnp.sum(x, dtype=jnp.float32) for x in (batch.loss_mask, batch.metric_mask, right))
        loss = jnp.sum(losses(logits, batch), where=batch.loss_mask)
        return loss, Sums(loss, *counts)

    def update(self, params: Any, opt_state: Any, mean: Any, step: Int[Array, ''], grads: Any, varied: Any):
        """Parameters, optimizer's state and running mean after a step with the gradients `grads`."""
        numbers = {name: value for name, value in varied.items() if name != 'dropout_rate'}
        updates, opt_state = self.optimizer(**numbers).update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        if mean is not None:
            # Few steps have a short memory: the first parameters are soon forgotten, whatever the decay.
            decay = jnp.minimum(self.average, (1 + step) / (10 + step))
            mean = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, mean, params)
        return params, opt_state, mean
