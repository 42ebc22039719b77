"""DeBERTa's disentangled attention (He et al., 2020, arXiv:2006.03654).

    logits_ij = [q_i . k_j + q_i . Kr[delta(i, j)] + k_j . Qr[delta(j, i)]] / sqrt(3K)
    delta(i, j) = clip(p_i - p_j + k, 0, 2k - 1),   Kr = P W_kr,   Qr = P W_qr,   P [2k, D]

Content attends to position and position to content. Each query and key is multiplied once with all 2k rows; the
products are then gathered by offset.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Width, at_most
from mha.positions.base import Position


class Deberta(Position):
    """Disentangled attention with exact offsets up to `k`; all larger offsets share a row. With `log_buckets` = N, as
    in DeBERTa-v2, offsets up to N/2 are exact, those up to `k` share rows logarithmically, and P has 2N rows; v2 uses
    N=256, k=512. `p2c_index='released'` reads Qr[delta(i, j)], as the published code does. Fractional offsets are
    rounded. The scheme has projections of its own. Projections shared with the layer's queries and keys, and the norm
    and dropout of P, as in v2 and v3, are left out. Published with one table P for all layers but separate projections
    in every layer; `position_per_layer=True` gives each layer both."""

    directed = True

    def __init__(
        self,
        dims,
        k: Width = 512,
        log_buckets: Annotated[int, at_most(2**10)] | None = None,
        p2c_index: Literal['paper', 'released'] = 'paper',
        *,
        rngs,
    ):
        self.span = k if log_buckets is None else log_buckets
        self.half = k if log_buckets is None else log_buckets // 2
        if log_buckets is not None and (log_buckets < 4 or log_buckets % 2 or k < self.half + 2):
            raise ValueError(f'log_buckets must be even, at least 4 and below {2 * k - 2} for k={k}, not {log_buckets}')
        self.ends = () if log_buckets is None else bucket_ends(self.half, k - 1)
        self.p2c_index, self.head_dim = p2c_index, dims.head_dim
        shape = (dims.dim, dims.heads, dims.head_dim)
        self.table = nnx.Param(0.02 * jax.random.normal(rngs.params(), (2 * self.span, dims.dim)))
        self.w_kr = nnx.Param(dims.dim**-0.5 * jax.random.normal(rngs.params(), shape))
        self.w_qr = nnx.Param(dims.dim**-0.5 * jax.random.normal(rngs.params(), shape))

    def qk(self, q, k, coords):
        return (q.astype(jnp.float32) * 3**-0.5).astype(q.dtype), k

    def content(self, q, k, q_pos, k_pos):
        offset = q_pos[:, None, :, None] - k_pos[:, None, None, :]
        back = offset if self.p2c_index == 'released' else -offset
        c2p = jnp.take_along_axis(self.columns(q, self.w_kr), self.row(offset), axis=3)
        p2c = jnp.take_along_axis(self.columns(k, self.w_qr), self.row(back).swapaxes(2, 3), axis=3)
        return (c2p + 3**-0.5 * p2c.swapaxes(2, 3)) * self.head_dim**-0.5  # the factor 3^-1/2 of q is applied in `qk`

    def columns(self, x, w):
        """Products [B, H, T, rows] of x [B, T, H, K] with all rows of P w."""
        rows = jnp.einsum('cd,dhk->chk', self.table[...], w[...])
        return jnp.einsum('bthk,chk->bhtc', x[..., : self.head_dim].astype(jnp.float32), rows)

    def row(self, offset):
        """Row delta of the table for each offset."""
        offset = jnp.round(offset).astype(jnp.int32)
        distance = jnp.abs(offset)
        if self.ends:
            shared = self.half + 1 + jnp.searchsorted(jnp.asarray(self.ends), distance).astype(jnp.int32)
            distance = jnp.where(distance <= self.half, distance, shared)
        return jnp.clip(jnp.sign(offset) * distance + self.span, 0, 2 * self.span - 1)


def bucket_ends(half: int, last: int) -> tuple[int, ...]:
    """Largest distance of each shared bucket s = 1, 2, .., half - 1: floor(half (last / half)^(s / (half - 1))).
    Computed in integers, because a float logarithm rounds some boundaries to the wrong side."""
    ends, distance = [], half
    for s in range(1, half):
        # n <= half (last / half)^(s / (half - 1))   <=>   n^(half - 1) <= half^(half - 1 - s) last^s
        while (distance + 1) ** (half - 1) <= half ** (half - 1 - s) * last**s:
            distance += 1
        ends.append(distance)
    return tuple(ends)
