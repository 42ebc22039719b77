"""xPos (Sun et al., 2022, arXiv:2212.10554): rotary embedding whose faster channels decay with distance.

    q <- turned(q) zeta^((p - c)/B),   k <- turned(k) zeta^(-(p - c)/B),   zeta_m = (2m/R + gamma) / (1 + gamma)

The products of channel pair m gain a factor zeta_m^(D/B), D = p_i - p_j; the centre c cancels. Attention to the past
decays, while attention to the future would grow: the scheme is for causal models only.
"""

import math
from typing import Annotated, Literal

import jax.numpy as jnp

from mha.arguments import Base, Part, Reach, above, at_most
from mha.positions.base import Rotary, frequencies


class XPos(Rotary):
    """Rotary embedding with a soft window of about `scale_base` tokens; B = `scale_base`. The centre c is half the
    longest length of the run. The released code uses half the length of the batch, but then rounding would depend on
    padding."""

    causal_only = True

    def __init__(
        self,
        dims,
        scale_base: Reach = 512.0,
        gamma: Annotated[float, above(0), at_most(1000)] = 0.4,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        self.scale_base, self.centre = scale_base, dims.max_len // 2
        self.frequencies = frequencies(self.width, theta)
        logs = [math.log((2 * m / self.width + gamma) / (1 + gamma)) for m in range(self.width // 2)]
        self.log_zeta = tuple(logs + logs) if layout == 'half' else tuple(x for x in logs for _ in range(2))

    def extent(self, length):
        longest = int(80 * self.scale_base / -self.log_zeta[0])  # float32 overflows at e^88
        if length > longest:
            enough = math.ceil(-length * self.log_zeta[0] / 80)
            raise ValueError(
                f'zeta^(D/scale_base) overflows beyond {longest} tokens - for {length}, raise scale_base to {enough}'
            )
        return length

    def qk(self, q, k, coords):
        return self.decayed(q, coords.q_pos, 1), self.decayed(k, coords.k_pos, -1)

    def decayed(self, x, pos, sign):
        power = (sign / self.scale_base) * (pos.astype(jnp.float32) - self.centre)
        zeta = jnp.exp(power[:, :, None, None] * jnp.asarray(self.log_zeta)[None, None, None])
        turned = self.turn(x.astype(jnp.float32), pos)
        turned = jnp.concatenate([turned[..., : self.width] * zeta, turned[..., self.width :]], axis=-1)
        return turned.astype(x.dtype)
