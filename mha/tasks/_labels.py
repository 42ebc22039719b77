"""Tasks whose answer is a label of each input symbol, at that symbol."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from mha.tasks.base import Batch, Task


def labelled(symbols: Int[Array, 'T'], labels: Int[Array, 'T'], length: Int[Array, ''] | int) -> Batch:
    """Example whose first `length` symbols have one label each."""
    valid = jnp.arange(symbols.size) < length
    tokens, targets = jnp.where(valid, symbols, 0), jnp.where(valid, labels, 0)
    return Batch(tokens=tokens, valid=valid, targets=targets, loss_mask=valid, metric_mask=valid)


class Labels(Task):
    """Base class, for which `sample` returns symbols and labels [max_length]."""

    @property
    def vocab_size(self):
        """Number of symbols; there is no placeholder."""
        return self.inputs

    def output_length(self, length):
        return length

    def num_tokens(self, length):
        return length

    def example(self, key, length, max_length):
        return labelled(*self.sample(key, length, max_length), length)
