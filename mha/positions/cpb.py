"""Continuous position bias (Wang et al., 2021, arXiv:2108.00154): a small network of the offset.

    b[h, i, j] = MLP(f(D))[h],   D = p_i - p_j,   f(D) = sign(D) ln(1 + |D|)   or   f(D) = D

CrossFormer's dynamic position bias reads D itself, the log-spaced one of Swin Transformer V2 (Liu et al., 2021,
arXiv:2111.09883) its logarithm. Both were made for windows of an image; this is their form for sequences.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mha.arguments import Repeats, Width
from mha.positions.base import OffsetBias


class Cpb(OffsetBias):
    """Bias learned as a smooth function of the signed offset. The network has `depth` hidden layers of `width` SiLUs
    (by default a quarter of the model's width). `log=False` reads plain offsets, which grow large far beyond the
    trained lengths. The network runs once per pair of positions, since random or fractional positions may give every
    pair a different offset.

    Swin V2 bounds the bias by 16 sigmoid(.) and CrossFormer normalises the hidden layers; we do neither."""

    directed = True

    def __init__(self, dims, width: Width | None = None, depth: Repeats = 2, log: bool = True, *, rngs):
        width = dims.dim // 4 if width is None else width
        if width < 1:
            raise ValueError(f'a quarter of the model width {dims.dim} is no width - set width')
        self.log = log
        # Without a random bias every unit bends at D = 0, and each side starts as nearly a straight line.
        first = nnx.Linear(1, width, bias_init=jax.nn.initializers.normal(1.0), rngs=rngs)
        self.hidden = nnx.List([first, *(nnx.Linear(width, width, rngs=rngs) for _ in range(depth - 1))])
        self.out = nnx.Linear(width, dims.heads, rngs=rngs)

    def offset_bias(self, offset):
        x = offset.astype(jnp.float32)[..., None]
        x = jnp.sign(x) * jnp.log1p(jnp.abs(x)) if self.log else x
        for layer in self.hidden:
            x = jax.nn.silu(layer(x))
        return jnp.moveaxis(self.out(x), -1, 0)
