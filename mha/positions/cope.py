"""Contextual position encoding (Golovneva et al., 2024, arXiv:2405.18719).

    g_ij = sigmoid(logits_ij),   p_ij = min(g_ij + .. + g_ii, p_max - 1),   logits_ij <- logits_ij + q_i . e[p_ij]

The distance to a key is the number of tokens up to it that the query finds relevant. Between whole distances the logit
is interpolated: (1 - w) q_i . e[floor p] + w q_i . e[ceil p], w = p - floor p.
"""

import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mha.arguments import at_least, at_most
from mha.nn.products import linear_map
from mha.nn.sums import sums_after
from mha.positions.base import Position

CHUNK = 2**21
"""Number of pairs of columns and keys that the backward pass holds at a time."""

FEW = 32
"""Largest number of columns that are added one by one, in one pass over the pairs. Lookups take longer for so few."""


class Cope(Position):
    """Positions that count relevant tokens; causal only. All keys beyond `p_max - 1` relevant tokens share a position.
    `gate='scaled'` computes gates from the scaled logits and their biases, as the published code does; 'raw' removes
    the scale 1/sqrt(K) first, as the paper's text says. `scale=True` divides q_i . e by sqrt(K), too, as the published
    code does by default, where `p_max` is the longest trained sequence + 1. Coordinates are not read. The table starts
    at zero. Published with a separate table in every layer, shared by the heads (`position_per_layer=True`)."""

    directed = True
    causal_only = True

    def __init__(
        self,
        dims,
        p_max: Annotated[int, at_least(2), at_most(2**16)] = 16,
        gate: Literal['scaled', 'raw'] = 'scaled',
        scale: bool = False,
        *,
        rngs,
    ):
        self.p_max, self.gate, self.head_dim = p_max, gate, dims.head_dim
        self.read_scale = dims.head_dim**-0.5 if scale else 1.0
        self.e = nnx.Param(jnp.zeros((p_max, dims.head_dim)))

    def rows(self, logits, mask, q, coords):
        scale = 1.0 if self.gate == 'scaled' else self.head_dim**0.5
        gates = jnp.where(mask, jax.nn.sigmoid(scale * logits), 0)
        p = jax.lax.optimization_barrier(gates + sums_after(gates))  # otherwise XLA sums again for each lookup
        queries = self.read_scale * q[..., : self.head_dim].astype(jnp.float32)
        columns = jnp.einsum('bthk,pk->bhtp', queries, self.e[...])
        return logits + interpolated(columns, p)


@jax.custom_jvp
def interpolated(columns: Float[Array, 'B H T P'], p: Float[Array, 'B H T S']) -> Float[Array, 'B H T S']:
    """Values between the columns floor p and floor p + 1; the last column for larger p."""
    if columns.shape[3] > FEW:
        (low, high), below = _neighbours(columns, p), jnp.floor(p)
        return low + (p - below) * (high - low)
    return columns[..., :1] + _rises(columns, lambda n: jnp.clip(p - n, 0, 1))


def _slope(columns, p):
    if columns.shape[3] > FEW:
        low, high = _neighbours(columns, p)
        return high - low
    return _rises(columns, lambda n: (n <= p) & (p < n + 1))


def _rises(columns, share):
    """Sum of the differences between a column n + 1 and the one before, each times share(n)."""
    rises = columns[..., 1:] - columns[..., :-1]
    return sum(rises[..., n : n + 1] * share(n) for n in range(rises.shape[3]))


def _neighbours(columns, p):
    """Columns on both sides of p; beyond the last, twice the last."""
    below = jnp.minimum(p, columns.shape[3] - 1).astype(jnp.int32)
    return (jnp.take_along_axis(columns, jnp.minimum(below + n, columns.shape[3] - 1), axis=3) for n in (0, 1))


@interpolated.defjvp
def _tangent(primals, tangents):
    (columns, p), (d_columns, d_p) = primals, tangents
    spread = functools.partial(_spread, columns.shape[3])
    return interpolated(columns, p), _slope(columns, p) * d_p + linear_map(interpolated, spread, d_columns, p)


def _spread(count: int, d: Float[Array, 'B H T S'], p: Float[Array, 'B H T S']) -> Float[Array, 'B H T P']:
    """Transpose of `interpolated` in the columns. Each column gets sum_s d max(0, 1 - |p - c|), the last one all of d
    beyond it. A scatter, the transpose of a gather, would take ten times as long on a CPU."""
    c, keys = jnp.arange(count, dtype=p.dtype), p.shape[3]

    def row(pair):
        p, d = pair
        return jnp.maximum(1 - jnp.abs(jnp.minimum(p, count - 1)[None] - c[:, None]), 0) @ d

    rows = p.reshape(-1, keys), d.reshape(-1, keys)
    return jax.lax.map(row, rows, batch_size=max(1, CHUNK // (count * keys))).reshape(*p.shape[:3], count)
