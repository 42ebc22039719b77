"""Multi-token attention (Golovneva et al., 2025, arXiv:2504.00927): weights that depend on several queries and keys.

    z'_ij = sum_(a < c_q, |b| <= c_k / 2) w[a, b] z_(i - a, j + b),   w of each head at first 1 at a = b = 0, else 0
    A = softmax(P z'),   A' = R (the same sum over A, with another w),   P and R mix the heads, at first the identity
    out_h = n_h sigmoid(u . n_h + c),   n_h = RMSNorm(A' v)

Logits of hidden keys count as 0, so that no sum reads a key after its query. A sum reads earlier queries only at keys
that its own query sees, too; under a causal mask this is no restriction, and packed documents stay apart.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from mha.arguments import Bound, at_least, at_most
from mha.mixing.base import Mixing, free


class MultiToken(Mixing):
    """Sums over `queries` queries, the own one and those before it, and over `keys` keys around each key. `after` also
    sums and mixes weights, after the softmax; `heads` mixes heads; `norm` normalises the output of each head and
    multiplies it by a gate. The defaults are those of the paper's language models, which have this attention in every
    fourth layer; here all layers have it. Its first experiments have only the first sum, `queries=2, keys=9`. In a
    bidirectional model, padding must be on the right."""

    whole_rows = True
    cacheable = False

    def __init__(
        self,
        dims,
        layer,
        queries: Annotated[int, at_least(1), at_most(64)] = 6,
        keys: Annotated[int, Bound('odd, from 1 to 63', lambda n: n % 2 == 1 and 0 < n < 64)] = 11,
        after: bool = True,
        heads: bool = True,
        norm: bool = True,
        *,
        rngs,
    ):
        kernel = jnp.zeros((dims.heads, queries, keys)).at[:, 0, keys // 2].set(1)
        identity = jnp.eye(dims.heads)
        self.before = nnx.Param(kernel)
        self.after = nnx.data(nnx.Param(kernel) if after else None)
        self.heads_before = nnx.data(nnx.Param(identity) if heads else None)
        self.heads_after = nnx.data(nnx.Param(identity) if heads and after else None)
        start = jax.nn.initializers.truncated_normal(dims.dim**-0.5, lower=-3.0, upper=3.0)
        self.norm = nnx.data(nnx.RMSNorm(dims.head_dim, epsilon=1e-5, rngs=rngs) if norm else None)
        self.gate = nnx.data(nnx.Linear(dims.head_dim, 1, kernel_init=start, rngs=rngs) if norm else None)

    def logits(self, logits, mask):
        seen = free(logits, mask)
        return jnp.where(seen, self.mixed(logits, seen, self.before, self.heads_before), logits)

    def weights(self, weights, mask):
        if self.after is None:
            return weights
        return jnp.where(mask, self.mixed(weights, mask, self.after, self.heads_after), 0)

    def mixed(self, x, seen, kernel, heads):
        """Sums of logits or weights over queries, keys and heads."""
        x = summed(x, seen, kernel[...])
        return x if heads is None else jnp.einsum('bhts,hg->bgts', jnp.where(seen, x, 0), heads[...])

    def finish(self, out):
        if self.norm is None or self.gate is None:
            return out
        normed = self.norm(out)
        return (normed * jax.nn.sigmoid(self.gate(normed))).astype(out.dtype)


def summed(
    x: Float[Array, 'B H T S'], seen: Bool[Array, '#B #H T S'], kernel: Float[Array, 'H N M']
) -> Float[Array, 'B H T S']:
    """Sums of x[i - a, j + b] kernel[a, M // 2 + b] over the pairs that queries i and i - a both see."""
    (_, rows, columns), (*_, queries, keys) = kernel.shape, x.shape
    zeros, sides = jnp.zeros_like(x), (columns // 2, columns // 2)
    x = jnp.pad(jnp.where(seen, x, 0), [(0, 0), (0, 0), (rows - 1, 0), sides])
    seen = jnp.pad(seen, [(0, 0), (0, 0), (0, 0), sides])

    @jax.checkpoint
    def add(total, tap):  # a loop: a convolution with a kernel per head takes 20 times as long on a CPU
        a, b = tap // columns, tap % columns
        part = jax.lax.dynamic_slice_in_dim(x, rows - 1 - a, queries, 2)
        part, both = (jax.lax.dynamic_slice_in_dim(y, b, keys, 3) for y in (part, seen))
        return total + jnp.where(both, part, 0) * kernel[:, a, b][None, :, None, None], None

    return jax.lax.scan(add, zeros, jnp.arange(rows * columns))[0]
