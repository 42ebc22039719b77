"""NTK-aware rotary embedding (bloc97, 2023; its dynamic form emozilla, 2023; described in Peng et al., 2023,
arXiv:2309.00071).

    f_m = theta'^(-2m/R),   theta' = theta s^(R/(R-2))

The slowest pair of channels is slowed down by s = new length / trained length exactly, the fastest not at all. Dynamic:
s = max(1, c n/L - (c - 1)) for n tokens, with L the trained length and c = `scale`: nothing changes up to L.
"""

from typing import Literal

import jax.numpy as jnp

from mha.arguments import Base, Length, Part, Stretch
from mha.positions.base import Rotary, angles, frequencies


class Ntk(Rotary):
    """Rotary embedding for longer sequences than trained, with or without a short training at the new length. With
    `dynamic=True`, the frequencies decrease as sequences grow beyond `original_length`; there, angles have errors of
    about 1e-7 p radians."""

    example = 'scale=4'

    def __init__(
        self,
        dims,
        scale: Stretch | None = None,
        dynamic: bool = False,
        original_length: Length | None = None,
        theta: Base = 10000.0,
        fraction: Part = 1.0,
        layout: Literal['half', 'interleaved'] = 'half',
        *,
        rngs,
    ):
        super().__init__(dims, fraction, layout, rngs=rngs)
        if self.width == 2:
            raise ValueError('cannot slow down a single pair of channels - turn at least 4 channels')
        if scale is None and not dynamic:
            raise ValueError('needs scale, the new length over the trained one - or dynamic=True and original_length')
        if dynamic == (original_length is None):
            raise ValueError('dynamic=True and original_length, the trained length, go together - give both or neither')
        self.scale = 1.0 if scale is None else float(scale)
        self.original_length = original_length
        self.cacheable = not dynamic  # the layers below saw earlier tokens under the angles of a shorter sequence
        stretch = 1.0 if dynamic else self.scale ** (self.width / (self.width - 2))
        self.frequencies = frequencies(self.width, theta * stretch)

    def qk(self, q, k, coords):
        if self.original_length is None:
            return super().qk(q, k, coords)
        n = coords.length.astype(jnp.float32)
        scale = jnp.maximum(self.scale * n / self.original_length - (self.scale - 1), 1.0)
        return (
            self.rotate(q, self.slowed(coords.q_pos, scale)[:, :, None]),
            self.rotate(k, self.slowed(coords.k_pos, scale)[:, :, None]),
        )

    def slowed(self, pos, scale):
        """Angles p f', f' = f s^(-2m/(R-2)): the exact p f plus p (f' - f), which is zero up to the trained length."""
        exponents = -2 * jnp.arange(self.width // 2) / (self.width - 2)
        change = jnp.asarray(self.frequencies)[None] * jnp.expm1(exponents[None] * jnp.log(scale)[:, None])
        return angles(pos, self.frequencies) + pos.astype(jnp.float32)[:, :, None] * change[:, None]
