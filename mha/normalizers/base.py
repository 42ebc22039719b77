"""Base class of normalizers: how the logits of a query become the weights of its keys."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from mha.positions.base import Coords, Dims


class Normalizer(nnx.Module):
    """Base class of normalizers. Subclasses set `form` and define what it asks for.

    * 'softmax': a softmax over the visible keys and, if `level` gives one, over a further key with this logit and a
      value of zero, a sink.
    * 'pointwise': the weight of a key depends on its own logit, to which `level` is added: `weigh`.
    * 'rows': `weights` reads whole rows of logits, so that tiled cores cannot run.
    """

    form: Literal['softmax', 'pointwise', 'rows'] = 'rows'
    causal_only = False
    """Whether the normalizer is defined for causal attention only."""

    def __init__(self, dims: Dims, *, rngs: nnx.Rngs):
        pass

    def level(self, coords: Coords) -> Float[Array, '#B #T #H'] | None:
        """Number per query and head; see `form`."""
        return None

    def weigh(self, logits: Float[Array, '*shape']) -> Float[Array, '*shape']:
        """Weights of a pointwise normalizer."""
        raise NotImplementedError

    def weights(
        self, logits: Float[Array, 'B H T S'], mask: Bool[Array, '#B #H T S'], level: Float[Array, '#B #T #H'] | None
    ) -> Float[Array, 'B H T S']:
        """Attention weights. Those of hidden keys are 0, and those of a query without visible keys arbitrary."""
        raise NotImplementedError

    def keep(self, heads: tuple[int, ...]) -> None:
        """Removes the parameters of all heads but these, numbered as now."""

    @property
    def name(self) -> str:
        """Name of the normalizer in specs."""
        return type(self).__module__.rpartition('.')[2]


def rowwise(level: Float[Array, '#B #T #H'] | None) -> Float[Array, '#B #H #T 1']:
    """`level` beside logits; 0 if there is none."""
    return jnp.zeros((1, 1, 1, 1)) if level is None else level.swapaxes(1, 2)[..., None]
