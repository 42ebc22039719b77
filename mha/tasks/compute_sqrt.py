"""Square root (context-sensitive; Delétang et al., 2023, arXiv:2207.02098), rounded down, highest bits first.

    100101 -> 110        11011 -> 101

The roots of 37 and 27 are 6 and 5. Computed as by hand: every two bits of the number yield one bit of the root.
"""

import jax
import jax.numpy as jnp

from mha.tasks import _binary
from mha.tasks.base import Task


class ComputeSqrt(Task):
    """Positive number in, its root out, both with leading zeros; the root has half as many bits, rounded up."""

    inputs = num_classes = 2
    level = 'context-sensitive'

    def output_length(self, length):
        return (length + 1) // 2

    def sample(self, key, length, max_length):
        x = _binary.positive(key, length, max_length)
        bits = self.output_length(max_length)
        place = jnp.arange(2 * bits) - length % 2  # an odd number of bits begins with half a pair
        pairs = jnp.where(place < 0, 0, x[jnp.clip(place, 0, max_length - 1)]).reshape(bits, 2)
        slot = jnp.arange(bits + 2)

        def step(state, pair):
            """Next bit of the root. With r the root of the bits so far, it is 1 if (2r + 1)^2 = 4r^2 + (4r + 1) does
            not exceed the bits read: if the remainder (four times that of r, plus the new pair) is at least 4r + 1.
            Arrays have the lowest bit first."""
            root, rest = state
            rest = jnp.concatenate([pair[::-1], rest[:-2]])
            less = jnp.concatenate([jnp.array([1, 0]), root[:-2]])
            # A borrow leaves place i if `rest` has a 0 at the highest place up to i where it differs from `less`.
            borrow = jax.lax.cummax(jnp.where(rest == less, 0, 2 * slot + 2 + (rest < less))) % 2
            holds = borrow[-1] == 0
            rest = jnp.where(holds, rest ^ less ^ jnp.roll(borrow, 1), rest)
            return (jnp.roll(root, 1).at[0].set(holds), rest), holds

        zeros = jnp.zeros_like(slot)
        return x, jax.lax.scan(step, (zeros, zeros), pairs)[1].astype(jnp.int32)
