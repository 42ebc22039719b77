"""DAPE: data-adaptive positional encoding (Zheng et al., 2024, arXiv:2405.14722).

    logits = s + b + MLP([s, b]),   s = q . k / sqrt(K),   b[h, i, j] = -r1 ln(1 + r2 |D|),   D = p_i - p_j

At every pair (i, j) the MLP reads the H products and the H biases of that pair, 2H numbers, and writes H: one hidden
layer of leaky ReLUs. b, with its own r = softplus(s) in each head, is the paper's best base. DAPE V2 (Zheng et al.,
2024, arXiv:2410.04798) reads those of neighbouring keys, too: each layer is a convolution over `kernel` keys.
"""

import functools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mha.arguments import Width, at_least, at_most
from mha.positions.base import Position, uniform_linear, uniform_start
from mha.spec import UserError

PAIRS = 2**15
"""Number of pairs that are computed at a time, so that their hidden layer fits into the cache of a CPU."""


class Dape(Position):
    """Learned penalty on distance that also depends on the content of the tokens. It cannot tell left from right. The
    MLP sees the products q . k of all heads, after the transforms of other schemes but without their biases. Published
    with separate parameters in every layer (`position_per_layer=True`).

    `kernel=3` is V2. It works on whole rows, tells left from right, and also reads biases of other schemes. Keys that a
    query does not see count as zeros in both layers, so that neither padding nor later tokens matter; the authors' code
    leaves the hidden layer of the first unseen keys as it is, which only differs at the last `kernel // 2` keys.

    `init='uniform'` starts weights and biases of the MLP uniform in +-1/sqrt(fan_in), as the authors' code does. By
    default weights are normal of variance 1/fan_in, and biases 0."""

    mixes_heads = True

    def __init__(
        self,
        dims,
        width: Width = 32,
        init: Literal['normal', 'uniform'] = 'normal',
        kernel: Annotated[int, at_least(1), at_most(1023)] = 1,
        *,
        rngs,
    ):
        if kernel % 2 == 0:
            raise UserError(f'kernel must be odd, not {kernel}')
        self.scale, self.kernel, self.directed = dims.head_dim**-0.5, kernel, kernel > 1

        def start(high):  # parameters whose softplus is uniform on (0, high)
            r = jax.random.uniform(rngs.params(), (dims.heads,), minval=0.01, maxval=high)
            return nnx.Param(jnp.log(jnp.expm1(r)))

        self.s1, self.s2 = start(2.0), start(1.0)
        layer = functools.partial(_layer, kernel=kernel, uniform=init == 'uniform', rngs=rngs)
        self.hidden, self.out = layer(2 * dims.heads, width), layer(width, dims.heads)

    def overrides(self, hook):
        return hook == ('content' if self.kernel == 1 else 'rows')

    def content(self, q, k, q_pos, k_pos):
        if self.kernel > 1:
            return None
        batch, queries = q.shape[:2]
        rows = max(n for n in range(1, queries + 1) if queries % n == 0 and (n == 1 or n * k.shape[1] * batch <= PAIRS))
        tiles = [jnp.moveaxis(x.reshape(len(x), -1, rows, *x.shape[2:]), 1, 0) for x in (q, q_pos)]
        change = jax.checkpoint(lambda tile: self._change(tile[0], k, tile[1], k_pos))
        changes = jax.lax.map(change, tiles)  # [queries / rows, B, H, rows, P]
        return jnp.moveaxis(changes, 0, 2).reshape(batch, -1, queries, k.shape[1])

    def rows(self, logits, mask, q, coords):
        seen = mask.any(1)[..., None]  # [#B, T, S, 1]
        s, b = jnp.moveaxis(logits, 1, 3), jnp.moveaxis(self._base(coords.q_pos, coords.k_pos), 0, 3)
        read = jnp.where(seen, jnp.concatenate([s, jnp.broadcast_to(b, s.shape)], axis=3), 0)
        hidden = jnp.where(seen, jax.nn.leaky_relu(self.hidden(read)), 0)
        return logits + jnp.moveaxis(b + self.out(hidden), 3, 1)

    def _base(self, q_pos, k_pos):
        """Biases b, [H, #B, Q, P]."""
        distance = jnp.abs(q_pos[:, :, None] - k_pos[:, None, :]).astype(jnp.float32)[None]
        r1, r2 = (jax.nn.softplus(s[...])[:, None, None, None] for s in (self.s1, self.s2))
        return -r1 * jnp.log1p(r2 * distance)

    def _change(self, q, k, q_pos, k_pos):
        b = self._base(q_pos, k_pos)
        s = self.scale * jnp.einsum('bqhk,bphk->hbqp', q, k, preferred_element_type=jnp.float32)
        layers: Any = self.hidden, self.out  # with biases
        (inner, bias), (outer, out_bias) = ((layer.kernel[...], layer.bias[..., None, None, None]) for layer in layers)
        of_s, of_b = jnp.split(inner, 2)
        hidden = jax.nn.leaky_relu(_over_heads(of_s, s) + (_over_heads(of_b, b) + bias))
        return (b + _over_heads(outer, hidden) + out_bias).swapaxes(0, 1)


def _layer(fan_in: int, width: int, *, kernel: int, uniform: bool, rngs: nnx.Rngs) -> nnx.Linear | nnx.Conv:
    """Linear layer, or a convolution over `kernel` keys."""
    if kernel == 1:
        return uniform_linear(fan_in, width, rngs) if uniform else nnx.Linear(fan_in, width, rngs=rngs)
    start: dict[str, Any] = dict.fromkeys(('kernel_init', 'bias_init'), uniform_start(kernel * fan_in))
    return nnx.Conv(fan_in, width, (kernel,), **(start if uniform else {}), rngs=rngs)


def _over_heads(kernel: Float[Array, 'H C'], x: Float[Array, 'H *pairs']) -> Float[Array, 'C *pairs']:
    """Linear map of the heads at every pair."""
    return (kernel.T @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])
