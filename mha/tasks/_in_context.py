"""Base class of in-context recall (Poli et al., 2024, arXiv:2403.17844): keys with their values in a row, and the value
of every key that has occurred before is asked for."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mha.tasks.base import Batch, Task

Loss = Literal['answers', 'all']
"""Tokens in the loss: those that count in accuracy, or all, as in language modelling."""


class InContext(Task):
    """Stream of keys and values in, the values of keys that occurred before out. There are `keys` key symbols, then
    `values` value symbols, then `others`. Subclasses define `stream`."""

    level = 'retrieval'
    baseline_per_position = False

    def __init__(self, keys: int, values: int, others: tuple[str, ...], loss: Loss, *, causal: bool):
        super().__init__(causal=causal)
        if loss == 'all' and not causal:
            raise ValueError("loss='all' is for causal models, which see no later tokens")
        self.keys, self.values, self.loss = keys, values, loss
        self.alphabet = (*(f'k{i}' for i in range(keys)), *(f'v{i}' for i in range(values)), *others)
        self.inputs = self.num_classes = len(self.alphabet)

    @property
    def chance(self):
        """Accuracy of a uniform guess among the values."""
        return 1 / self.values

    def output_length(self, length):
        return 1

    def stream(
        self, key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int
    ) -> tuple[Int[Array, 'T'], Bool[Array, 'T']]:
        """Symbols of an example, one more than a causal model reads, and which of them count in accuracy."""
        raise NotImplementedError

    def example(self, key, length, max_length):
        if not self.causal:
            return super().example(key, length, max_length)
        symbols, asked = self.stream(key, length, max_length)
        valid = jnp.arange(symbols.size - 1) < self.input_length(length)
        counts = asked[1:] & valid
        scored = valid if self.loss == 'all' else counts
        tokens, targets = jnp.where(valid, symbols[:-1], 0), jnp.where(scored, symbols[1:], 0)
        return Batch(tokens=tokens, valid=valid, targets=targets, loss_mask=scored, metric_mask=counts)
