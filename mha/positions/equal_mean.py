"""Equal-mean random positions (Su, 2023, https://kexue.fm/archives/9444): sequences stretched or squeezed at random.

    p_t <- n t / (T - 1),   t = 0 .. T - 1,   n random with mean T, one draw per sequence; in training only

On average the positions are nearly those of an evaluation, 0 .. T - 1. Draws of n far above T show the model the
positions of longer sequences. n has an exponential distribution, or max_position Beta(alpha, beta) with beta such that
its mean is T.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Length, Reach
from mha.positions.base import Position, required

LONGEST = 16  # an exponential number of mean 1 exceeds it once in nine million draws; the cut bounds the positions


class EqualMean(Position):
    """Random real-valued positions for a scheme that is a function of position, not a learned table:
    `'equal_mean|rope'`. The published results use the exponential distribution. `max_position`, usually the longest
    length of the evaluation, selects the beta distribution on [0, max_position]. With `alpha` below 1, more of its mass
    lies at both ends."""

    per_example = True

    def __init__(self, dims, max_position: Length | None = None, alpha: Reach | None = None, *, rngs):
        if alpha is not None and max_position is None:
            raise ValueError(f'alpha={alpha} needs max_position')
        self.max_position, self.alpha = max_position, alpha or 1.0

    def extent(self, length):
        return max(length, LONGEST * length if self.max_position is None else self.max_position) + 1

    def remap(self, pos, *, valid=None, key=None, train=False):
        if not train:
            return pos
        key = required(key)
        real = jnp.ones(pos.shape, bool) if valid is None else jnp.broadcast_to(valid, pos.shape)
        count = jnp.maximum(real.sum(-1, keepdims=True), 1).astype(jnp.float32)
        if self.max_position is None:
            n = count * jnp.minimum(jax.random.exponential(key, count.shape), LONGEST)
        else:
            most = jnp.maximum(count, self.max_position)
            beta = jnp.maximum(self.alpha * (most / count - 1), 1e-6)
            n = most * jax.random.beta(key, self.alpha, beta, count.shape)
        return jnp.where(real, pos, 0) * (n / jnp.maximum(count - 1, 1))
