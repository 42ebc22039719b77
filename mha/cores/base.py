"""Attention cores as objects: a spec describes one, and it says what it can do."""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from mha.nn.masks import Mask
from mha.positions.base import Coords, Position


@dataclasses.dataclass(frozen=True)
class Core:
    """A way to compute attention; the fields are the arguments of its spec. Hashable, so that programs and layers keep
    it as a constant. Subclasses define `attend` and correct the claims."""

    has_map = True
    """Whether it computes softmax attention, whose weights `dense.weights` gives."""

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
        """A v + values(A), the attention weights dropped out at `dropout_rate` where `rngs` are given. Queries and keys
        have passed the scheme's `qk`; there is at least one of each. A key that holds NaN stands for one whose value
        does: values are finite."""
        raise NotImplementedError

    def quadratic(self, position: Position, keys: int) -> bool:
        """Whether a call holds the logits of all pairs in memory."""
        return False
