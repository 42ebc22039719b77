"""Binary addition (context-sensitive; Delétang et al., 2023, arXiv:2207.02098), lowest bits first.

    001+01101 -> 01011.        11+1 -> 001.

4 + 22 = 26 and 3 + 1 = 4. The answer ends in the terminator 2 and is filled up with zeros.
`addition(base=2)` is for causal models, highest digits first.
"""

import jax.numpy as jnp

from mha.tasks import _binary
from mha.tasks.base import Task


class BinaryAddition(Task):
    """Two positive numbers with a 2 between them in, the sum out. `mask_loss=True` excludes symbols after the
    terminator from the loss, too. Inputs of length 1 and 2 are a single number, which is the answer."""

    inputs = num_classes = 3
    level = 'context-sensitive'
    alphabet, answers = '01+', '01.'
    terminator = _binary.END

    def __init__(self, mask_loss: bool = False, *, causal: bool = False):
        super().__init__(causal=causal)
        self.mask_loss = mask_loss

    def output_length(self, length):
        return length + 1

    def sample(self, key, length, max_length):
        x, n, m = _binary.operands(key, length, max_length)
        return x, _binary.terminated(_binary.carried(jnp.pad(n + m, (0, 1))), length)
