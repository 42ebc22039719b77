"""T5's relative position bias (Raffel et al., 2020, arXiv:1910.10683).

    b[h, i, j] = E[bucket(D), h],   D = p_i - p_j

Half of the N buckets hold one distance n each; the other half share the distances up to `max_distance` logarithmically:
n < e: n,   else e + floor(ln(n / e) / ln(max_distance / e) (N - e)), at most N - 1, with e = N / 2.
In bidirectional models, each side has half of the buckets. We scale logits by 1/sqrt(K); T5 does not.
"""

import bisect
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Spread, at_most
from mha.positions.base import OffsetBias


class T5(OffsetBias):
    """Learned bias per head and bucket of distances, shared by all layers as published; constant at large distances. It
    starts at `init_std`; in the original code uniform with standard deviation (2 / (buckets + H))^(1/2), in
    `transformers` at D^(-1/2)."""

    directed = True

    def __init__(
        self,
        dims,
        buckets: Annotated[int, at_most(1024)] = 32,
        max_distance: Annotated[int, at_most(2**31 - 1)] = 128,
        causal: bool | None = None,
        init_std: Spread = 0.02,
        *,
        rngs,
    ):
        self.causal = dims.causal if causal is None else causal
        per_side = buckets if self.causal else buckets // 2
        if per_side < 4 or buckets % 2:
            raise ValueError(f'buckets must be even and at least {4 if self.causal else 8}, not {buckets}')
        if max_distance <= per_side // 2:
            raise ValueError(f'max_distance must be above {per_side // 2} for {buckets} buckets, not {max_distance}')
        self.starts = bucket_starts(per_side, max_distance)
        self.table = nnx.Param(init_std * jax.random.normal(rngs.params(), (buckets, dims.heads)))

    def offset_bias(self, offset):
        return jnp.moveaxis(self.table[...][self.bucket(offset)], -1, 0)

    def bucket(self, offset):
        """Table row of each offset; fractional distances are rounded down."""
        distance = jnp.maximum(offset, 0) if self.causal else jnp.abs(offset)
        row = sum((distance >= start).astype(jnp.int32) for start in self.starts)
        return row if self.causal else row + (offset < 0) * (len(self.starts) + 1)


def bucket_starts(buckets: int, max_distance: int) -> tuple[int, ...]:
    """Smallest distance of each bucket but the first. Computed in integers, because a float logarithm rounds some
    boundaries to the wrong side."""
    exact, rest = buckets // 2, buckets - buckets // 2
    starts = list(range(1, exact + 1))
    for step in range(1, rest):
        # floor(ln(n / e) / ln(max / e) (N - e)) >= step   <=>   n^(N - e) >= max^step e^(N - e - step)
        goal = max_distance**step * exact ** (rest - step)
        starts.append(bisect.bisect_left(range(max_distance), goal, key=lambda n: n**rest))
    return tuple(starts)
