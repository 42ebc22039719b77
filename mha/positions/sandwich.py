"""Sandwich (Chi et al., 2023, arXiv:2212.10356): the position-only term of attention with sinusoidal embeddings.

    b[h, i, j] = r_h sum_m cos(D f_m),   D = p_i - p_j,   f_m = 10000^(-2m/dbar),   m = 0 .. dbar/2 - 1,
    r_h = H / (8 h),   h = 1 .. H

The sum is the inner product of the sinusoidal embeddings of p_i and p_j, so dbar extra channels can carry it:

    query: sqrt(K) r_h cos(p_i f),  sqrt(K) r_h sin(p_i f)     key: cos(p_j f),  sin(p_j f)
"""

import jax.numpy as jnp

from mha.arguments import Even
from mha.positions.base import OffsetBias, angles, frequencies


class Sandwich(OffsetBias):
    """Fixed bias that falls roughly with the logarithm of distance. It cannot tell left from right. At D = 0 it is
    dbar/2 r_h, which is large compared with the logits of an untrained model. `as_channels=True` appends dbar channels
    to q and k instead of adding a bias. The logits are the same in float32, but have errors of about 0.1 r_h in
    bfloat16, which rounds the channels."""

    def __init__(self, dims, dbar: Even = 128, as_channels: bool = False, *, rngs):
        self.frequencies, self.as_channels = frequencies(dbar, 10000.0), as_channels
        self.ratios = tuple(dims.heads / (8 * h) for h in range(1, dims.heads + 1))
        self.root = dims.head_dim**0.5

    def overrides(self, hook):
        return hook == ('qk' if self.as_channels else 'bias')

    def offset_bias(self, offset):
        total = jnp.cos(angles(offset.reshape(1, -1), self.frequencies)).sum(-1).reshape(offset.shape)
        return jnp.asarray(self.ratios).reshape(-1, *[1] * offset.ndim) * total[None]

    def bias(self, q_pos, k_pos):
        return None if self.as_channels else super().bias(q_pos, k_pos)

    def qk(self, q, k, coords):
        if not self.as_channels:
            return q, k
        r = self.root * jnp.asarray(self.ratios)[None, None, :, None]
        return widen(q, r * self.waves(coords.q_pos)), widen(k, self.waves(coords.k_pos))

    def waves(self, pos):
        """Channels cos and sin of p f, [#B, T, 1, dbar], in float32."""
        turn = angles(pos, self.frequencies)[:, :, None]
        return jnp.concatenate([jnp.cos(turn), jnp.sin(turn)], axis=-1)


def widen(x, channels):
    """`x` [B, T, H, K] with `channels` [#B, T, #H, W] appended to every head."""
    channels = jnp.broadcast_to(channels, (*x.shape[:-1], channels.shape[-1]))
    return jnp.concatenate([x, channels.astype(x.dtype)], axis=-1)
