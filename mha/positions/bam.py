"""BAM: Bayesian attention mechanism (Bianchessi et al., 2025, arXiv:2505.22842), a generalised Gaussian of the offset.

    b[h, i, j] = -e^s[h] (|D - mu[h]| + epsilon)^beta[h],   D = p_i - p_j,   mu = e^l - e^-l

At the start, mu = 0, beta = 1 and e^s are the slopes of ALiBi, so that the bias is ALiBi's up to epsilon.
"""

import jax.numpy as jnp
from flax import nnx

from mha.positions.base import OffsetBias, alibi_slopes

EPSILON = 1e-5
"""Term that keeps powers and their gradients finite at D = mu."""


class Bam(OffsetBias):
    """Learned penalty on the distance from a place mu. beta may become negative: attention then avoids mu. `location`
    learns mu as well. Published with `ssmax`: `'ssmax|bam'`. Without a location, it cannot tell left from right."""

    def __init__(self, dims, location: bool = False, *, rngs):
        self.directed = location
        self.s = nnx.Param(jnp.log(jnp.asarray(alibi_slopes(dims.heads))))
        self.beta = nnx.Param(jnp.ones(dims.heads))
        self.l = nnx.data(nnx.Param(jnp.zeros(dims.heads)) if location else None)

    def offset_bias(self, offset):
        parameters = (self.s, self.beta) if self.l is None else (self.s, self.beta, self.l)
        s, beta, *location = (p[...].reshape(-1, *[1] * offset.ndim) for p in parameters)
        distance = offset.astype(jnp.float32)[None] - sum(2 * jnp.sinh(place) for place in location)
        return -jnp.exp(s + beta * jnp.log(jnp.abs(distance) + EPSILON))
