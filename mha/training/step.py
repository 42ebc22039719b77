"""Training: state, update step, and chunks of steps as one program for all members of a population.

All randomness comes from `fold_in(seed, step)`, and the data are generated on the device. A resumed run therefore
repeats the uninterrupted one bit for bit (on a GPU up to the order of additions), and the data do not depend on the
model. The length of each step depends only on the curriculum. It is the same for all seeds, so that members can share a
program. A chunk is one dispatch. In it, every step draws a length and a batch, and branches to the gradients of the
batch cut to the next padded length.
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
    """Purpose of a random key. It is folded into the key, so that no two purposes share random numbers."""

    WEIGHTS = 0
    """Initial weights, from a member's seed."""
    TRAINING = 1
    """Examples, dropout and random coordinates in training, from a member's seed."""
    EVALUATION = 2
    """Examples of an evaluation, from `eval.seed`, and random coordinates, also from a member's seed."""
    LENGTHS = 3
    """Lengths of the training steps, the same for all runs."""


Varied = Mapping[str, Float[Array, 'P']]
"""Settings other than the seed in which members differ."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Training state: parameters, state of the optimizer and running mean of the parameters, all with an axis of
    members [P, ..] in front, and the number of completed steps."""

    params: Any
    opt_state: Any
    mean: Any
    """Running mean of the parameters; None without averaging."""
    step: Any

    @property
    def evaluated(self) -> Any:
        """Parameters to evaluate: the running mean if there is one."""
        return self.params if self.mean is None else self.mean


def init(params: Any, optimizer: optax.GradientTransformation, average: float) -> State:
    """Training state before the first step; leaves of `params` [P, ..] have an axis of members."""
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
    """Class logits of the model; a pooled read-out gives one logit vector for all slots. `position` is the random key
    of the coordinates, one for all examples or one per example. `dropout_rate` replaces the rate of the model."""
    model = nnx.merge(graphdef, nnx.State(params))
    options: dict[str, Any] = {} if dropout_rate is None else {'dropout_rate': dropout_rate}
    if position.ndim:
        options['position_key'] = jax.vmap(prng.cheap)(position)
    options |= batch.extra
    streams = {'position': None if position.ndim else position, 'dropout': dropout}
    rngs = nnx.Rngs(**{name: prng.cheap(key) for name, key in streams.items() if key is not None})
    # If all examples have the same length, one row of `valid` is enough: biases are computed once, not B times.
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
    """Number of symbols that count in the loss."""
    answers: Any
    """Number of symbols that count in the accuracy."""
    right: Any
    """Number of correct symbols among them."""


METRICS: dict[str, Callable[[Sums, Any, Array], Array]] = {
    'loss': lambda sums, grads, length: sums.loss / sums.scored,
    'accuracy': lambda sums, grads, length: sums.right / sums.answers,
    'gradient_norm': lambda sums, grads, length: optax.tree.norm(grads),
    'length': lambda sums, grads, length: length.astype(jnp.float32).mean(),
}
"""Training metrics: functions of the sums, mean gradients and lengths of a step. Logged as means over a chunk."""


FAULT = ('loss', 'gradient_norm')
"""Metrics of which a value that is not finite is a fault: the step would leave no finite parameters."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Several training steps as one program. A call with `(state, task, keys, stop, varied)` trains every member until
    step `stop`. It returns the new state and, for each member, the means [P] of `METRICS` over the chunk. `'fault'` has
    the number `step` of the first step with a fault, 0 if there was none, and its loss and gradient norm.

    Gradients are compiled once per padded length. The same program runs chunks of any number of steps."""

    graphdef: nnx.GraphDef
    optimizer: Callable[..., optax.GradientTransformation]
    """Function `optimizer(learning_rate=..)` that builds the optimizer with the settings of a member."""
    curriculum: Curriculum
    buckets: Sequence[int]
    """Padded lengths, sorted."""
    batch_size: int
    length_per: str = 'batch'
    """'batch': one length for all examples of a step; 'example': one length for each."""
    microbatches: int = 1
    """Number of parts of a batch that are computed one after the other to save memory. The result is the same except
    for the draws of dropout."""
    penalty: Callable[[Any], Array] | None = None
    """Function of the parameters that is added to the mean loss; it is not part of the logged one."""
    non_finite: str = 'stop'
    """'skip': steps with a fault change nothing, and only the others count in the means; `'skipped_steps'` is their
    number. 'stop' leaves it to the caller to stop."""
    average: float = 0.0
    """Decay of the running mean of the parameters; 0: no mean."""
    together: bool = False
    """Whether members train together, vectorised, instead of one after the other."""
    summed: Callable[[Callable], Callable] = lambda function: function
    """Wrapper that distributes a function of a batch over devices; its results must be sums over examples
    (`mha.machine.parallel`)."""

    def compiled(self, shardings: Any = None) -> Callable[..., tuple[State, dict[str, Array]]]:
        """Chunk under `jax.jit`, which reuses the memory of the old state. `shardings` are those of the new state and
        the means."""
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
        """Training steps of one member. The step is shared by all members: with a step per member, vectorised loops
        would execute every branch."""
        *learned, key, varied = inputs
        # Only the model is inside the branches, one per padded length, because each branch is compiled separately.
        branches = [self.summed(functools.partial(self.gradients, bucket)) for bucket in self.buckets]

        def next_step(carry):
            *old, step, totals, fault = carry
            params, opt_state, mean = old
            data_key, *keys = jax.random.split(jax.random.fold_in(key, step), 3)
            length = self.lengths(step)
            batch = task.batch(data_key, self.batch_size, length, self.buckets[-1])
            branch = jnp.searchsorted(jnp.array(self.buckets), length.max())
            sums, grads = jax.lax.switch(branch, branches, batch, params, task, keys, varied)
            grads = jax.tree.map(lambda total: total / sums.scored, grads)
            if self.penalty is not None:
                grads = jax.tree.map(jnp.add, grads, jax.grad(self.penalty)(params))
            new = self.update(params, opt_state, mean, step, grads, varied)
            metrics = {name: metric(sums, grads, length) for name, metric in METRICS.items()}
            here = {'step': step + 1, **{name: metrics[name] for name in FAULT}}
            fine = jnp.isfinite(jnp.stack([metrics[name] for name in FAULT])).all()
            fault = _choose(fine | (fault['step'] > 0), fault, here)
            if skip:
                new, metrics = _choose(fine, new, tuple(old)), _choose(fine, metrics, dict.fromkeys(METRICS, 0.0))
                metrics['skipped_steps'] = jnp.float32(~fine)
            return *new, step + 1, jax.tree.map(jnp.add, totals, metrics), fault

        skip, zero = self.non_finite == 'skip', jnp.float32(0)
        totals = dict.fromkeys([*METRICS, *['skipped_steps'] * skip], zero)
        fault = {'step': jnp.int32(0), **dict.fromkeys(FAULT, zero)}
        carry = (*learned, start, totals, fault)
        *new, _, totals, fault = jax.lax.while_loop(lambda carry: carry[3] < stop, next_step, carry)
        skipped = totals.pop('skipped_steps', None)
        count = stop - start if skipped is None else stop - start - skipped
        means = jax.tree.map(lambda total: total / count, totals)
        return tuple(new), {**means, **({'skipped_steps': skipped} if skip else {}), 'fault': fault}

    def lengths(self, step: Int[Array, '']) -> Int[Array, '*B']:
        """Length of a step, one for all examples or one for each."""
        key = jax.random.fold_in(jax.random.key(Purpose.LENGTHS), step)
        if self.length_per == 'batch':
            return self.curriculum.draw(key, step)
        return jax.vmap(lambda key: self.curriculum.draw(key, step))(jax.random.split(key, self.batch_size))

    def gradients(self, max_length: int, batch: Batch, params: Any, task: Task, keys: Any, varied: Any):
        """Sums over a batch cut to `max_length`, and gradients of its loss. `keys` are those of dropout and of random
        coordinates."""
        dropout_key, position_key = keys
        batch = task.cut(batch, max_length)
        one_length = self.length_per == 'batch' and not task.ragged
        loss = functools.partial(self.loss, position_key=position_key, varied=varied, one_length=one_length)
        grad = jax.grad(loss, has_aux=True)
        if self.microbatches == 1:
            return grad(params, batch, dropout_key)[::-1]
        # A part takes every n-th example, so that its random draws do not depend on the number of devices.
        parts = jax.tree.map(lambda x: x.reshape(-1, self.microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
        dropout_keys = jax.random.split(dropout_key, self.microbatches)
        zero = jnp.float32(0)
        start = jax.tree.map(jnp.zeros_like, params), Sums(zero, zero, zero, zero)

        def add(total, part):
            return jax.tree.map(jnp.add, total, grad(params, *part)), None

        return jax.lax.scan(add, start, (parts, dropout_keys))[0][::-1]

    def loss(
        self,
        params: Any,
        batch: Batch,
        dropout_key: PRNGKeyArray,
        *,
        position_key: PRNGKeyArray,
        varied: Any,
        one_length: bool = True,
    ):
        """Loss summed over a batch, and all sums."""
        logits = logits_of(
            self.graphdef,
            params,
            batch,
            train=True,
            dropout=dropout_key,
            position=position_key,
            dropout_rate=varied.get('dropout_rate'),
            one_length=one_length,
        )
        right = batch.right(logits.argmax(-1))
        counts = (jnp.sum(x, dtype=jnp.float32) for x in (batch.loss_mask, batch.metric_mask, right))
        loss = jnp.sum(losses(logits, batch), where=batch.loss_mask)
        return loss, Sums(loss, *counts)

    def update(self, params: Any, opt_state: Any, mean: Any, step: Int[Array, ''], grads: Any, varied: Any):
        """Parameters, state of the optimizer and running mean after a step with gradients `grads`."""
        numbers = {name: value for name, value in varied.items() if name != 'dropout_rate'}
        updates, opt_state = self.optimizer(**numbers).update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        if mean is not None:
            # The decay is smaller in the first steps, so that the initial parameters are soon forgotten.
            decay = jnp.minimum(self.average, (1 + step) / (10 + step))
            mean = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, mean, params)
        return params, opt_state, mean


def _choose(condition: Any, one: Any, other: Any) -> Any:
    """The first of two trees if the condition holds."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)
