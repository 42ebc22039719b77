"""Attention cores, one file each: different ways to compute attention.

`make` parses a spec into an object that says what the core supports. `attend` applies the per-layer hooks of a position
scheme and runs a core. `dense` is the specification against which all other softmax cores are tested.
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mha import arguments, spec
from mha.cores import dense
from mha.cores.base import PLAIN, Core, Variant
from mha.nn.masks import MaskLike, as_mask
from mha.nn.products import hideable
from mha.normalizers.softmax import Softmax
from mha.positions.base import Coords, Position

__all__ = ['Core', 'Variant', 'attend', 'dense', 'make', 'names']

LONG = 256
"""Number of keys from which on `auto` uses a tiled core. On two CPU cores, `blockwise` is faster from there on, forward
and backward (docs/results/attention-cpu.md). Not measured on a GPU."""


def names() -> tuple[str, ...]:
    """Names of all cores except `auto`."""
    return spec.names(sys.modules[__name__])


@arguments.checked
def make(core: str | Core) -> Core:
    """Core that a spec describes, such as `'linear(features="performer")'`. Raises `UserError` with the choices."""
    if isinstance(core, Core):
        return core
    what = 'attention core'
    call, *more = spec.parse(core)
    if more:
        raise spec.UserError(f'{what} {core!r}: one core computes a layer, not {1 + len(more)}')
    name = spec.choose(call.name, ('auto', *names()), what)
    kind = Auto if name == 'auto' else spec.load(sys.modules[__name__], name, Core, what)
    return arguments.build(kind, call, what)


@dataclasses.dataclass(frozen=True)
class Auto(Core):
    """Choice of a core: `dense` for short sequences and for what works on whole rows of logits, otherwise `flash` on a
    GPU and `blockwise` elsewhere. `flash` itself falls back to `blockwise` if it cannot run."""

    def choose(self, position: Position, keys: int, variant: Variant = PLAIN) -> Core:
        if keys < LONG or variant.whole_rows(position):
            return make('dense')
        return make('flash' if jax.default_backend() == 'gpu' else 'blockwise')

    def attend(self, q, k, v, *, position, variant=PLAIN, **call):
        return self.choose(position, k.shape[1], variant).attend(q, k, v, position=position, variant=variant, **call)

    def quadratic(self, position, keys, variant=PLAIN):
        return self.choose(position, keys, variant).quadratic(position, keys, variant)


def attend(
    q: Float[Array, 'B T H K'],
    k: Float[Array, 'B S H K'],
    v: Float[Array, 'B S H V'],
    *,
    position: Position,
    coords: Coords,
    mask: MaskLike = None,
    core: str | Core = 'auto',
    variant: Variant = PLAIN,
    dropout_rate: float = 0.0,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, 'B T H V']:
    """Attention under a position scheme and a mask. A query that sees no key gets zeros. Hidden keys and values have no
    influence, even if they are NaN."""
    check_shapes(q, k, v, coords)
    if position.overrides('weights') and not isinstance(variant.normalizer, Softmax):
        raise spec.UserError(
            f'position scheme {position.name!r} replaces the softmax, and so does the normalizer '
            f'{variant.normalizer.name!r} - choose one of them'
        )
    mask, scale = as_mask(mask), q.shape[-1] ** -0.5
    mask.check(q.shape[1], k.shape[1])
    if q.size == 0 or k.size == 0:
        return jnp.zeros((*q.shape[:3], v.shape[-1]), v.dtype)
    q, k = position.qk(q, k, coords)
    call: dict[str, Any] = dict(variant=variant, dropout_rate=dropout_rate, rngs=rngs)
    return make(core).attend(q, *hideable(k, v), position=position, coords=coords, mask=mask, scale=scale, **call)


def check_shapes(q: Array, k: Array, v: Array, coords: Coords) -> None:
    """Raises `ValueError` if the shapes of queries, keys, values and coordinates do not match."""
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4 or q.shape[::2] != k.shape[::2] or q.shape[3] != k.shape[3]:
        raise ValueError(f'queries {q.shape} and keys {k.shape} must be [B, T, H, K] and [B, S, H, K]')
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(f'keys {k.shape} and values {v.shape} must be [B, S, H, K] and [B, S, H, V]')
    for name, pos, x, of in (('q_pos', coords.q_pos, q, 'queries'), ('k_pos', coords.k_pos, k, 'keys')):
        if pos.shape[1:] != x.shape[1:2] or pos.shape[0] not in (1, len(x)):
            raise ValueError(f'{name} holds coordinates {pos.shape} for {of} of {x.shape[:2]}')
