"""The position protocol: the six places where position can enter a Transformer.

Every hook defaults to "no effect"; a scheme overrides only what it uses. Hooks take *coordinates*, which may be
random, interpolated or packed; masks are about *slots* of the array and live in `mha.masks`.

Order within one attention layer, with K the head dimension before `qk` widens anything:

    q, k   = qk(q, k, coords)
    logits = q . k / sqrt(K) + bias(q_pos, k_pos) + content(q, k, q_pos, k_pos)
    A      = softmax(where(mask, logits, -inf))       or  weights(logits, mask, q, coords)
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

HOOKS = ('remap', 'embed', 'qk', 'bias', 'content', 'weights')


@dataclasses.dataclass(frozen=True)
class Dims:
    """What a scheme may know of its model: widths, the longest sequence in tokens, and the direction."""

    dim: int
    heads: int
    head_dim: int
    max_len: int
    causal: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coords:
    """What a per-layer hook may need of one attention call."""

    q_pos: Num[Array, '#B T']
    k_pos: Num[Array, '#B S']
    visible: Num[Array, '#B T']
    """Number of keys that each query may see."""
    x: Float[Array, 'B T D']
    """The layer's input, of which the queries are a projection."""


class Position(nnx.Module):
    """A position scheme. Subclasses override the hooks they use and nothing else."""

    first_only = False
    """Whether `remap` takes slot numbers, so that no other remap may come before it."""
    per_example = False
    """Whether `remap` wants a row of `pos` for every example, even where all rows are equal."""

    def __init__(self, dims: Dims, *, rngs: nnx.Rngs):
        pass

    def remap(
        self,
        pos: Num[Array, '#B T'],
        *,
        valid: Bool[Array, '#B T'] | None = None,
        key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> Num[Array, '#B T']:
        """Replaces coordinates, once per forward pass. `valid` marks real tokens, whose new coordinates must not
        depend on how much padding follows them; `key` is for schemes that draw."""
        return pos

    def embed(self, x: Float[Array, 'B T D'], pos: Num[Array, '#B T']) -> Float[Array, 'B T D']:
        """Adds to the token embeddings, once per forward pass."""
        return x

    def qk(
        self, q: Float[Array, 'B T H K'], k: Float[Array, 'B S H K'], coords: Coords
    ) -> tuple[Float[Array, 'B T H W'], Float[Array, 'B S H W']]:
        """Transforms queries and keys in every layer; may append channels (the logits' scale stays 1/sqrt(K))."""
        return q, k

    def bias(self, q_pos: Num[Array, '#B Q'], k_pos: Num[Array, '#B P']) -> Float[Array, '#B H Q P'] | None:
        """Logits from positions alone, added after the scale. Pure in the parameters and the positions: the bias of
        a tile is that tile of the full bias."""
        return None

    def content(
        self,
        q: Float[Array, 'B Q H K'],
        k: Float[Array, 'B P H K'],
        q_pos: Num[Array, '#B Q'],
        k_pos: Num[Array, '#B P'],
    ) -> Float[Array, 'B H Q P'] | None:
        """Logits from content and offset, added after the scale."""
        return None

    def weights(
        self,
        logits: Float[Array, 'B H T S'],
        mask: Bool[Array, '#B #H T S'],
        q: Float[Array, 'B T H K'],
        coords: Coords,
    ) -> Float[Array, 'B H T S']:
        """Attention weights from whole rows of unmasked logits, in place of the softmax. A scheme that overrides it
        cannot run on a tiled core."""
        raise NotImplementedError

    def extent(self, length: int) -> int:
        """How many coordinates 0, 1, .. `length` tokens can meet after `remap`. Raises `ValueError` where the scheme
        cannot represent so many: the check that runs before any training does."""
        return length

    def overrides(self, hook: str) -> bool:
        """Whether the scheme does anything in `hook`."""
        return getattr(type(self), hook) is not getattr(Position, hook)


def angles(pos: Num[Array, '#B T'], frequencies: Sequence[float]) -> Float[Array, '#B T F']:
    """p f for every position and frequency, in float32: bfloat16 keeps whole numbers only to 256."""
    return pos.astype(jnp.float32)[:, :, None] * np.asarray(frequencies, np.float32)[None, None]


def frequencies(width: int, theta: float) -> tuple[float, ...]:
    """The width/2 frequencies theta^(-2m/width) of the sinusoidal family, in float64."""
    if theta <= 0:
        raise ValueError(f'theta must be above 0, not {theta}')
    return tuple(float(theta) ** (-2 * m / width) for m in range(width // 2))


class OffsetBias(Position):
    """A scheme whose bias is a function of the offset D = p_i - p_j alone (query minus key: the past is D > 0)."""

    def offset_bias(self, offset: Num[Array, '*shape']) -> Float[Array, 'H *shape']:
        raise NotImplementedError

    def bias(self, q_pos: Num[Array, '#B Q'], k_pos: Num[Array, '#B P']) -> Float[Array, '#B H Q P']:
        return jnp.moveaxis(self.offset_bias(q_pos[:, :, None] - k_pos[:, None, :]), 0, 1)
