"""Relative logits that a token asks for (Inkling; Thinking Machines, 2026; code in huggingface/transformers).

    r_i = W x_i per head,   b[h, i, j] = sum_c r_i[h, c] P[c, D] for 0 <= D < E, otherwise 0,   D = p_i - p_j
    logits_ij <- tau_i (logits_ij + b[h, i, j]),   tau_i = 1 + alpha ln(max(1, (p_i + 1) / floor))

The query chooses a mixture of `rank` learned functions of the offset. Beyond the extent E, only content counts.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Length, Reach, Spread, at_least, at_most
from mha.positions.base import Position, first_channels


class Inkling(Position):
    """Learned functions of the offset, mixed by each query: `rank` rows of length `reach` (E), shared by heads. With
    `alpha` above 0, a temperature grows with the position from `floor` on, by default the longest sequence in training
    and evaluation; unlike that of `ssmax`, it scales the bias, too. For encoders we add a second bank for the future
    (D < 0), which is not in the release. Offsets are rounded. The release also normalises queries and keys
    (`qk_norm='rms'`, with the scale 1/K), convolves keys and values, and has E = 512 in its local layers and 1,024 in
    its global ones. Write it before schemes that append channels. Published with separate parameters in every layer
    (`position_per_layer=True`)."""

    directed = True

    def __init__(
        self,
        dims,
        rank: Annotated[int, at_least(1), at_most(1024)] = 16,
        reach: Length = 512,
        floor: Reach | None = None,
        alpha: Spread = 0.0,
        *,
        rngs,
    ):
        self.rank, self.reach, self.alpha, self.head_dim = rank, reach, alpha, dims.head_dim
        self.floor = float(dims.max_len if floor is None else floor)
        self.w = nnx.Param(dims.dim**-0.5 * jax.random.normal(rngs.params(), (dims.dim, dims.heads, rank)))
        sides = 1 if dims.causal else 2
        self.bank = nnx.Param(rank**-0.5 * jax.random.normal(rngs.params(), (rank, sides * reach)))

    def qk(self, q, k, coords):
        first_channels(q, self.head_dim, self.name)
        r = jnp.einsum('btd,dhr->bthr', coords.x.astype(jnp.float32), self.w[...])
        q = jnp.concatenate([q, jnp.broadcast_to(r, (*q.shape[:3], self.rank)).astype(q.dtype)], axis=-1)
        if self.alpha:
            tau = 1 + self.alpha * jnp.log(jnp.maximum((coords.q_pos + 1) / self.floor, 1))
            q = (q * tau[:, :, None, None].astype(jnp.float32)).astype(q.dtype)
        return q, jnp.pad(k, [(0, 0)] * 3 + [(0, self.rank)])

    def content(self, q, k, q_pos, k_pos):
        r = q[..., self.head_dim : self.head_dim + self.rank].astype(jnp.float32)
        offset = jnp.round(q_pos[:, :, None] - k_pos[:, None, :]).astype(jnp.int32)
        lowest = 0 if self.bank.shape[1] == self.reach else -self.reach
        near = (offset >= lowest) & (offset < self.reach)
        index = jnp.where(near, jnp.where(offset < 0, self.reach - 1 - offset, offset), 0)
        functions = jnp.where(near[None], self.bank[...][:, index], 0)
        if len(index) == 1:
            return jnp.einsum('bqhr,rqp->bhqp', r, functions[:, 0])
        return jnp.einsum('bqhr,rbqp->bhqp', r, functions)
