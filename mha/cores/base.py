"""Base class of attention cores: a spec describes a core, and the core says what it supports."""

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mha.mixing.base import Mixing
from mha.nn.masks import Mask
from mha.normalizers.base import Normalizer
from mha.normalizers.softmax import Softmax
from mha.positions.base import BARRED, WHOLE, Coords, Dims, Position
from mha.spec import UserError


@dataclasses.dataclass(frozen=True)
class Variant:
    """Map from logits to weights, the softmax by default, and parameters of the core."""

    normalizer: Normalizer = dataclasses.field(default_factory=lambda: Softmax(Dims(1, 1, 1, 0), rngs=nnx.Rngs()))
    softcap: float = 0.0
    """Bound c of the logits, z <- c tanh(z / c), after all terms and before the mask (Gemma 2; Gemma Team, 2024,
    arXiv:2408.00118); 0 for none."""
    mixing: Mixing | None = None
    """Mixing of the maps of all heads, if there is one."""
    parameters: nnx.Module | None = None
    """Parameters of the core, if it has some (`Core.parameters`)."""

    @property
    def plain(self) -> bool:
        """Whether this is the softmax of the logits."""
        return isinstance(self.normalizer, Softmax) and not self.softcap and self.mixing is None

    def whole_rows(self, position: Position) -> str:
        """Name of the part that works on whole rows of logits, which tiled cores do not have; empty if there is
        none."""
        if position.whole_rows:
            return f'position scheme {position.name!r}'
        if self.mixing is not None and self.mixing.whole_rows:
            return f'mixing {self.mixing.name!r}'
        return f'normalizer {self.normalizer.name!r}' if self.normalizer.form == 'rows' else ''

    def refuse_rows(self, position: Position, core: str) -> None:
        """Raises `UserError` if something works on whole rows."""
        if part := self.whole_rows(position):
            raise UserError(
                f'core={core} sees the attention matrix in tiles, but {part} works on whole rows - set model.core=dense'
            )


PLAIN = Variant()


def capped(logits: Float[Array, '*shape'], softcap: float) -> Float[Array, '*shape']:
    """Logits bounded by `softcap`, unless it is 0. Those of keys that a position scheme hides stay as they are."""
    if not softcap:
        return logits
    free = logits > BARRED  # also false for NaN, in the logits of a hidden key
    return jnp.where(free, softcap * jnp.tanh(jnp.where(free, logits, 0) / softcap), logits)


@dataclasses.dataclass(frozen=True)
class Core:
    """Base class of attention cores. The fields are the arguments of the spec. Cores are hashable, so that programs and
    layers can hold them as constants. Subclasses define `attend` and override the attributes and methods that
    differ."""

    has_map = True
    """Whether the core computes softmax attention, with the weights of `dense.weights`."""
    cacheable = True
    """Whether new queries can meet keys and values from a cache."""

    def parameters(self, dims: Dims, *, rngs: nnx.Rngs) -> nnx.Module | None:
        """Parameters of the core in one layer, which are passed to `attend` in its variant; None if it has none. The
        module has a method `keep`, as normalizers have."""
        return None

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
        variant: Variant = PLAIN,
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, 'B T H V']:
        """Output A v + values(A), with dropout on the attention weights A if `rngs` are given. `q` and `k` have passed
        the scheme's `qk` and are not empty. Values are finite; a NaN in a key may stand for one in its value
        (`hideable`)."""
        raise NotImplementedError

    def refuse_logits(
        self, position: Position, variant: 'Variant', scale: float, width: int, dropout_rate: float
    ) -> None:
        """Raises `UserError` for all that needs logits or weights, which a core without a map does not form."""
        core = type(self).__name__.lower()
        if not variant.plain:
            raise UserError(
                f'the {core} core has no logits: leave out model.normalizer, model.softcap and model.mixing'
            )
        for hook in (*WHOLE, 'bias', 'content', 'values'):
            if position.overrides(hook):
                raise UserError(
                    f'the {core} core forms no logits or weights, but the position scheme has a {hook!r} hook - choose '
                    'another scheme or core'
                )
        if not math.isclose(scale, width**-0.5, rel_tol=1e-5):
            raise UserError(
                f'the {core} core forms no logits, but the position scheme adds to them through channels that it '
                'appends to queries and keys - choose another scheme or core'
            )
        if dropout_rate > 0:
            raise UserError(f'the {core} core forms no weights to drop out - set the attention dropout rate to 0')

    def quadratic(self, position: Position, keys: int, variant: Variant = PLAIN) -> bool:
        """Whether a call holds the logits of all pairs in memory."""
        return False
