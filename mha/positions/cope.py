"""Contextual position encoding (Golovneva et al., 2024, arXiv:2405.18719).

    g_ij = sigmoid(logits_ij),   p_ij = min(g_ij + .. + g_ii, p_max - 1),   logits_ij <- logits_ij + q_i . e[p_ij]

The distance to a key is the number of tokens up to it that the query finds relevant. Between whole distances the logit
is interpolated: (1 - w) q_i . e[floor p] + w q_i . e[ceil p], w = p - floor p.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mha.positions.base import Position
from mha.spec import at_least, at_most


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
        p = jnp.minimum(jax.lax.cumsum(gates, axis=3, reverse=True), self.p_max - 1)
        queries = self.read_scale * q[..., : self.head_dim].astype(jnp.float32)
        columns = jnp.einsum('bthk,pk->bhtp', queries, self.e[...])
        below, above = (
            jnp.take_along_axis(columns, whole.astype(jnp.int32), axis=3) for whole in (jnp.floor(p), jnp.ceil(p))
        )
        w = p - jnp.floor(p)
        return logits + (1 - w) * below + w * above
