"""Stack manipulation (deterministic context-free; Delétang et al., 2023, arXiv:2207.02098): what is left of a stack?

    0 1 1 0 push1 pop pop -> 1 1 0 .        1 1 0 pop pop pop -> .        1 0 pop push1 push0 -> 0 1 1 .

The input is a stack of bits from bottom to top, then actions; popping an empty stack does nothing. The answer lists
the final stack from top to bottom, ends in the terminator 2, and is filled up with zeros.
"""

import jax
import jax.numpy as jnp

from mha.tasks.base import Task

POP = 2


class StackManipulation(Task):
    """Stack of 1 .. length - 1 bits and actions on it in, the final stack out. `mask_loss=True` excludes symbols after
    the terminator from the loss, too. The input of length 1 is a single bit."""

    inputs, num_classes = 5, 3
    level = 'context-free'
    alphabet, answers = ('0', '1', 'pop', 'push0', 'push1'), '01.'
    terminator = 2

    def __init__(self, mask_loss: bool = False, *, causal: bool = False):
        super().__init__(causal=causal)
        self.mask_loss = mask_loss

    def output_length(self, length):
        return length + 1

    def sample(self, key, length, max_length):
        size_key, bit_key, action_key = jax.random.split(key, 3)
        slot = jnp.arange(max_length)
        size = jax.random.randint(size_key, (), 1, jnp.maximum(length, 2))
        bits = jax.random.randint(bit_key, (max_length,), 0, 2)
        actions = jax.random.randint(action_key, (max_length,), POP, 5)
        x = jnp.where(slot < size, bits, actions)
        # Bits of the initial stack count as pushes. Where the sum of the steps is at its lowest, the stack is empty.
        steps = jnp.where(slot < length, jnp.where(x == POP, -1, 1), 0)
        level = jnp.cumsum(steps)
        height = level - jnp.minimum(jax.lax.cummin(level), 0)
        # A pushed bit stays if the stack is never again lower than with this bit on top.
        stays = (steps == 1) & (height == jax.lax.cummin(height, reverse=True))
        count = height[-1]
        answer_index = jnp.where(stays, count - height, max_length + 1)
        answer = jnp.zeros(max_length + 1, jnp.int32).at[answer_index].set(x % 3, mode='drop')  # 3, 4 push 0, 1
        return x, answer.at[count].set(self.terminator)
