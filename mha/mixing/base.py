"""Base class of head mixing: attention in which the maps of several heads, or several maps of a head, meet."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from mha.positions.base import BARRED, Dims
from mha.spec import UserError


class Mixing(nnx.Module):
    """Base class of head mixing; in itself, plain attention. `dims` are those of one map of a head, and `layer` is the
    number of the layer, from 0."""

    maps = 1
    """Number of maps of each head, which divide the channels of queries and keys among them. All read the same
    values."""
    whole_rows = False
    """Whether `logits` and `weights` mix maps of all heads, so that tiled cores cannot run."""
    cacheable = True
    """Whether the maps of a query do not depend on other queries."""

    def __init__(self, dims: Dims, layer: int, *, rngs: nnx.Rngs):
        pass

    def logits(self, logits: Float[Array, 'B H T S'], mask: Bool[Array, '#B #H T S']) -> Float[Array, 'B H T S']:
        """Mixed logits, before the normalizer."""
        return logits

    def weights(self, weights: Float[Array, 'B H T S'], mask: Bool[Array, '#B #H T S']) -> Float[Array, 'B H T S']:
        """Mixed attention weights. Those of hidden keys are 0, before and after."""
        return weights

    def split(
        self, q: Float[Array, 'B T H K'], k: Float[Array, 'B S H K']
    ) -> list[tuple[Float[Array, 'B T H N'], Float[Array, 'B S H N']]]:
        """Queries and keys of each map of the heads."""
        if self.maps == 1:
            return [(q, k)]
        return list(zip(jnp.split(q, self.maps, axis=-1), jnp.split(k, self.maps, axis=-1), strict=True))

    def combine(self, parts: Sequence[Float[Array, '*shape']]) -> Float[Array, '*shape']:
        """Sum of the weights or the outputs of the maps of each head, with a factor for each map."""
        (part,) = parts
        return part

    def finish(self, out: Float[Array, 'B T H V']) -> Float[Array, 'B T H V']:
        """Outputs of heads, as they go into gates and the output projection."""
        return out

    def keep(self, heads: tuple[int, ...]) -> None:
        """Removes the parameters of all heads but these. Raises `UserError` if heads depend on each other."""
        if self.whole_rows:
            raise UserError(f'mixing {self.name!r} mixes heads: none of them can be removed')

    @property
    def name(self) -> str:
        """Name of the mixing in specs."""
        return type(self).__module__.rpartition('.')[2]


def free(logits: Float[Array, 'B H T S'], mask: Bool[Array, '#B #H T S']) -> Bool[Array, 'B H T S']:
    """Mask of the keys that neither the mask nor a position scheme hides."""
    return mask & (logits > BARRED)  # false for NaN, in the logits of a hidden key
