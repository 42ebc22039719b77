"""What a task is: a generator of examples that runs on the device, inside jit, with a traced length.

A model sees T = length + output_length(length) tokens: the input, then one placeholder per answer symbol, then padding.
Its logits at the placeholders are the answer (Ruoss et al., 2023, arXiv:2305.16843).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PRNGKeyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples in the model's input protocol, all fields [B, T]. Untyped, as fields of a pytree may hold anything."""

    tokens: Any
    valid: Any
    """Real tokens: the input and the placeholders, not the padding."""
    targets: Any
    loss_mask: Any
    """Where the loss counts."""
    metric_mask: Any
    """Where accuracy counts."""


class Task:
    """One task. Subclasses set `inputs` (number of input symbols) and `num_classes`, and define `output_length` and
    `sample`. A task is a pytree whose one child is `data`, so that it can be passed to a jitted function.
    """

    inputs: int
    num_classes: int
    data: Any = ()
    """Arrays that `sample` reads; generated tasks have none."""
    sha256: str = ''
    """Names the data a task reads, for the run's record."""
    baseline_per_position = True
    """Whether the content-blind baseline may know the output position (see `mha.evaluation`)."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)

        def flatten(task):
            return (task.data,), tuple(sorted((k, v) for k, v in vars(task).items() if k != 'data'))

        def unflatten(settings, children):
            task = object.__new__(cls)
            vars(task).update(settings, data=children[0])
            return task

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)

    def __init__(self, *, causal: bool = False):
        self.causal = causal

    @property
    def vocab_size(self) -> int:
        """Input symbols and the placeholder."""
        return self.inputs + 1

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess."""
        return 1 / self.num_classes

    def held_out(self) -> 'Task':
        """The same task on data kept from training; a generated task is its own."""
        return self

    def output_length(self, length):
        """Number of answer symbols for an input of `length`, an int or a traced integer."""
        raise NotImplementedError

    def num_tokens(self, length: int) -> int:
        """Number of tokens the model sees."""
        return length + self.output_length(length)

    def sample(
        self, key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int
    ) -> tuple[Int[Array, 'N'], Int[Array, 'O']]:
        """One example: the input [max_length] and its answer [output_length(max_length)], of which the first `length`
        and `output_length(length)` symbols count."""
        raise NotImplementedError

    def example(self, key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int) -> Batch:
        """One example in the model's input protocol, without a batch axis."""
        symbols, answer = self.sample(key, length, max_length)
        slot = jnp.arange(self.num_tokens(max_length))
        end = length + self.output_length(length)
        is_answer = (slot >= length) & (slot < end)
        read = symbols[jnp.clip(slot, 0, max_length - 1)]
        return Batch(
            tokens=jnp.where(slot < length, read, jnp.where(is_answer, self.inputs, 0)).astype(jnp.int32),
            valid=slot < end,
            targets=jnp.where(is_answer, answer[jnp.clip(slot - length, 0, answer.size - 1)], 0).astype(jnp.int32),
            loss_mask=is_answer,
            metric_mask=is_answer,
        )

    def examples(self, keys: Key[Array, 'B'], length: Int[Array, ''] | int, max_length: int) -> Batch:
        """One example per key, all of the same length."""
        return jax.vmap(lambda key: self.example(key, length, max_length))(keys)

    def batch(self, key: PRNGKeyArray, batch_size: int, length: Int[Array, ''] | int, max_length: int) -> Batch:
        """`batch_size` examples of `length`, padded to the tokens of `max_length`. `batch_size` and `max_length` are
        static, `length` may be traced: one compiled program serves every length up to `max_length`."""
        return self.examples(jax.random.split(key, batch_size), length, max_length)
