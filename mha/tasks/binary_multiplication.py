"""Binary multiplication (context-sensitive; Delétang et al., 2023, arXiv:2207.02098), lowest bits first.

    001*01101 -> 0001101.        11*11 -> 1001.

4 * 22 = 88 and 3 * 3 = 9. The answer ends in the terminator 2 and is filled up with zeros.
"""

import jax
import jax.numpy as jnp

from mha.tasks import _binary
from mha.tasks.base import Task


class BinaryMultiplication(Task):
    """Two positive numbers with a 2 between them in, the product out. `mask_loss=True` excludes symbols after the
    terminator from the loss, too. Inputs of length 1 and 2 are a single number; the answers are 2 and 02."""

    inputs = num_classes = 3
    level = 'context-sensitive'
    alphabet, answers = '01*', '01.'
    terminator = _binary.END

    def __init__(self, mask_loss: bool = False, *, causal: bool = False):
        super().__init__(causal=causal)
        self.mask_loss = mask_loss

    def output_length(self, length):
        return length

    def sample(self, key, length, max_length):
        x, n, m = _binary.operands(key, length, max_length)
        shifted = jnp.pad(m, (max_length, 0))

        def add(i, columns):  # adds n_i * m, shifted by i places
            return columns + n[i] * jax.lax.dynamic_slice(shifted, (max_length - i,), (max_length,))

        columns = jax.lax.fori_loop(0, max_length, add, jnp.zeros_like(n))
        return x, _binary.terminated(_binary.carried(columns), length - 1)
