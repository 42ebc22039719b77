"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

Each pair of channels (u, w) of q and k turns by the angle p f_m, with f_m = theta^(-2m/R), m = 0 .. R/2 - 1:

    (u, w) <- (u cos - w sin, u sin + w cos),   so that q . k depends on positions through p_i - p_j alone
"""

from typing import Literal

import jax.numpy as jnp

from mha.positions.base import Position, angles, frequencies


class Rope(Position):
    """Rotates the first `fraction` of the channels. `layout` pairs channel m with m + R/2 ('half', as in GPT-NeoX and
    Llama) or 2m with 2m + 1 ('interleaved', as in the paper and GPT-J)."""

    def __init__(
        self,
        dims,
        theta: float = 10000.0,
        fraction: float = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        self.width = round(fraction * dims.head_dim)
        if not 0 < fraction <= 1 or self.width % 2 or self.width == 0:
            raise ValueError(
                f'rotates pairs of channels: fraction={fraction} of head_dim={dims.head_dim} is {self.width} channels, '
                'but it must be an even number above 0'
            )
        self.frequencies, self.layout = frequencies(self.width, theta), layout

    def qk(self, q, k, coords):
        return self.rotate(q, coords.q_pos), self.rotate(k, coords.k_pos)

    def rotate(self, x, pos):
        """x [B, T, H, K] turned by its positions [#B, T]; angles in float32 whatever the compute type."""
        turn = angles(pos, self.frequencies)[:, :, None]
        cos, sin = jnp.cos(turn), jnp.sin(turn)
        turning, rest = x[..., : self.width].astype(jnp.float32), x[..., self.width :]
        pairs = (2, -1) if self.layout == 'half' else (-1, 2)
        axis = -2 if self.layout == 'half' else -1
        u, w = jnp.moveaxis(turning.reshape(*x.shape[:-1], *pairs), axis, 0)
        turned = jnp.stack([u * cos - w * sin, u * sin + w * cos], axis).reshape(turning.shape)
        return jnp.concatenate([turned.astype(x.dtype), rest], axis=-1)
