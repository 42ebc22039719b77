"""Base class of attention cores: a spec describes a core, and the core says what it supports."""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from mha.nn.masks import Mask
from mha.positions.base import Coords, Position


@dataclasses.dataclass(frozen=True)
class Core:
    """Base class of attention cores. The fields are the arguments of the spec. Cores are hashable, so that programs and
    layers can hold them as constants. Subclasses define `attend` and override the attributes and methods that
    differ."""

    has_map = True
    """Whether the core computes softmax attention, with the weights of `dense.weights`."""
    cacheable = True
    """Whether new queries can meet keys and values from a cache."""

    def attend(
        self,
        q: Float[Array, 'B T H W'],
        k: Float[Array, 'B S H W'],
        v: Float[Array, 'B S H V'],
        *,
        position: Position,
        coords: Coords,
        mask: Mask,
        scale: float,
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, 'B T H V']:
        """Output A v + values(A), with dropout on the attention weights A if `rngs` are given. `q` and `k` have passed
        the scheme's `qk` and are not empty. Values are finite; a NaN in a key may stand for one in its value
        (`hideable`)."""
        raise NotImplementedError

    def quadratic(self, position: Position, keys: int) -> bool:
        """Whether a call holds the logits of all pairs in memory."""
        return False
