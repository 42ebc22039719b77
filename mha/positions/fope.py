"""Fourier position embedding (Hua et al., 2025, arXiv:2412.17739): rotary embedding by sums of frequencies.

    w_m = theta^(-2m/K); those below 2 pi / N are left out, and M remain;   N = trained length
    cos'_n = sum_m cos(p w_m) C[h, m, n],   sin'_n = sum_m sin(p w_m) S[h, m, n],   n < M' = min(M, K/4)
    (u_n, w_n) <- (u_n cos'_n - w_n sin'_n, u_n sin'_n + w_n cos'_n)

The other K/2 - M' pairs of channels have no position. A wave that has not completed a turn in training is no use beyond
it, and other layers mix frequencies anyway, so that a channel gets a whole series of them.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Base, Length, Spread
from mha.positions.base import Rotary, angles, frequencies


class Fope(Rotary):
    """Series of frequencies in each channel, learned and shared by all layers, as published. C and S start as the
    identity (with M > M', every M/M'-th frequency) plus normal numbers of Xavier's variance times `gain`^2. `length` is
    N, by default the longest sequence in training and evaluation, so set it to the trained length. `released=True`
    turns the pairs without position by (u - w, u + w), as the released code does, which doubles their products. The
    rotations do not keep the length of vectors, and q . k depends on more than offsets once C is not diagonal."""

    def __init__(
        self,
        dims,
        length: Length | None = None,
        theta: Base = 10000.0,
        gain: Spread = 0.3,
        released: bool = False,
        *,
        rngs,
    ):
        super().__init__(dims, rngs=rngs)
        lowest = 2 * math.pi / (length or dims.max_len)
        self.waves = tuple(f for f in frequencies(self.width, theta) if f >= lowest)
        self.turning, self.released = min(len(self.waves), self.width // 4), released
        if not self.turning:
            raise ValueError(f'no frequency completes a turn within {length or dims.max_len} positions - set length')
        shape = dims.heads, len(self.waves), self.turning
        start = jnp.eye(len(self.waves))[:, :: len(self.waves) // self.turning][:, : self.turning][None]
        std = gain * math.sqrt(2 / (shape[1] + shape[2]))
        self.cosines = nnx.Param(start + std * jax.random.normal(rngs.params(), shape))
        self.sines = nnx.Param(start + std * jax.random.normal(rngs.params(), shape))

    def turn(self, x, pos):
        angle = angles(pos, self.waves)
        cos = jnp.einsum('btm,hmn->bthn', jnp.cos(angle), self.cosines[...])
        sin = jnp.einsum('btm,hmn->bthn', jnp.sin(angle), self.sines[...])
        free, one = [(0, 0)] * 3 + [(0, self.width // 2 - self.turning)], 1.0 if self.released else 0.0
        cos, sin = jnp.pad(cos, free, constant_values=1.0), jnp.pad(sin, free, constant_values=one)
        u, w = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        return jnp.concatenate([u * cos - w * sin, u * sin + w * cos], axis=-1).astype(x.dtype)
