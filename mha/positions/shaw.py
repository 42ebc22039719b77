"""Relative position representations (Shaw et al., 2018, arXiv:1803.02155).

    logits_ij = q_i . (k_j + a_c) / sqrt(K),   out_i = sum_j A_ij (v_j + a'_c),   c = clip(p_j - p_i, -k, k)

The key term multiplies each query once with the 2k + 1 rows of the table, then gathers. The value term first sums the
weights of all keys that share a row.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Width
from mha.positions.base import Position


class Shaw(Position):
    """Learned key vector per distance up to `k` and, with `values=True`, a value vector, too; all larger distances
    share the last one. `share_heads=False` gives every head its own tables. Fractional distances are rounded. Published
    with separate tables in every layer (`position_per_layer=True`)."""

    directed = True

    def __init__(self, dims, k: Width = 16, values: bool = True, share_heads: bool = True, *, rngs):
        self.k, self.heads, self.head_dim = k, dims.heads, dims.head_dim
        shape = (1 if share_heads else dims.heads, 2 * k + 1, dims.head_dim)
        scale = dims.head_dim**-0.5
        self.key_table = nnx.Param(scale * jax.random.normal(rngs.params(), shape))
        self.value_table = nnx.Param(scale * jax.random.normal(rngs.params(), shape)) if values else None

    def overrides(self, hook):
        return hook == 'content' or (hook == 'values' and self.value_table is not None)

    def content(self, q, k, q_pos, k_pos):
        table = jnp.broadcast_to(self.key_table[...], (self.heads, *self.key_table.shape[1:]))
        columns = jnp.einsum('bqhk,hck->bhqc', q[..., : self.head_dim].astype(jnp.float32), table)
        return self.gather(columns, q_pos, k_pos) / self.head_dim**0.5

    def values(self, weights, q_pos, k_pos):
        if self.value_table is None:
            return None
        table = jnp.broadcast_to(self.value_table[...], (self.heads, *self.value_table.shape[1:]))
        columns = jax.ShapeDtypeStruct((*weights.shape[:3], 2 * self.k + 1), weights.dtype)
        # The sum of the weights of each table row is the transpose of gathering a column for each weight.
        (sums,) = jax.linear_transpose(lambda columns: self.gather(columns, q_pos, k_pos), columns)(weights)
        return jnp.einsum('bhqc,hcv->bqhv', sums, table)

    def gather(self, columns, q_pos, k_pos):
        """Entries [B, H, Q, P] of `columns` [B, H, Q, 2k + 1] at the clipped offset of each pair."""
        offset = jnp.round(k_pos[:, None, None, :] - q_pos[:, None, :, None])
        return jnp.take_along_axis(columns, jnp.clip(offset, -self.k, self.k).astype(jnp.int32) + self.k, axis=3)
