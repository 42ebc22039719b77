"""Attention cores: how attention is computed, one file each, named like its spec. `make` parses a spec once, into an
object that says what it can do; `attend` applies a scheme's per-layer hooks and runs a core. `dense` is the
specification that every other one is tested against."""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mha import spec
from mha.cores import dense
from mha.cores.base import Core
from mha.nn.masks import MaskLike, as_mask
from mha.nn.products import hideable
from mha.positions.base import Coords, Position

__all__ = ['Core', 'attend', 'dense', 'make', 'names']

LONG = 256
"""Keys from which on 'auto' computes in tiles: on two CPU cores `blockwise` is the faster from there on, forward and
backward (docs/results/attention-cpu.md); not measured on a GPU."""


def names() -> tuple[str, ...]:
    """The cores there are, 'auto' aside."""
    return spec.names(sys.modules[__name__])


def make(core: str | Core) -> Core:
    """The core that a spec describes, such as `'linear(features="performer")'`. Raises a `UserError` that says what
    there is."""
    if isinstance(core, Core):
        return core
    what = 'attention core'
    call, *more = spec.parse(core)
    if more:
        raise spec.UserError(f'{what} {core!r}: one core computes a layer, not {1 + len(more)}')
    name = spec.choose(call.name, ('auto', *names()), what)
    kind = Auto if name == 'auto' else spec.load(sys.modules[__name__], name, Core, what)
    return spec.build(kind, call, what)


@dataclasses.dataclass(frozen=True)
class Auto(Core):
    """`dense` for short sequences and for schemes that replace the softmax, else the core of the device: the GPU's
    kernel, which falls back by itself where it cannot run, or `blockwise`."""

    def choose(self, position: Position, keys: int) -> Core:
        if keys < LONG or position.overrides('weights'):
            return make('dense')
        return make('flash' if jax.default_backend() == 'gpu' else 'blockwise')

    def attend(self, q, k, v, *, position, **call):
        return self.choose(position, k.shape[1]).attend(q, k, v, position=position, **call)

    def quadratic(self, position, keys):
        return self.choose(position, keys).quadratic(position, keys)


def attend(
    q: Float[Array, 'B T H K'],
    k: Float[Array, 'B S H K'],
    v: Float[Array, 'B S H V'],
    *,
    position: Position,
    coords: Coords,
    mask: MaskLike = None,
    core: str | Core = 'auto',
    dropout_rate: float = 0.0,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, 'B T H V']:
    """Attention under a position scheme and a mask. A query that may see no key gets zeros; what the mask hides has no
    influence, whatever it holds."""
    check_shapes(q, k, v, coords)
    mask, scale = as_mask(mask), q.shape[-1] ** -0.5
    mask.check(q.shape[1], k.shape[1])
    if q.size == 0 or k.size == 0:
        return jnp.zeros((*q.shape[:3], v.shape[-1]), v.dtype)
    q, k = position.qk(q, k, coords)
    call: dict[str, Any] = dict(dropout_rate=dropout_rate, rngs=rngs)
    return make(core).attend(q, *hideable(k, v), position=position, coords=coords, mask=mask, scale=scale, **call)


def check_shapes(q: Array, k: Array, v: Array, coords: Coords) -> None:
    """Raises `ValueError` where queries, keys, values and coordinates do not belong together."""
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4 or q.shape[::2] != k.shape[::2] or q.shape[3] != k.shape[3]:
        raise ValueError(f'queries {q.shape} and keys {k.shape} must be [B, T, H, K] and [B, S, H, K]')
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(f'keys {k.shape} and values {v.shape} must be [B, S, H, K] and [B, S, H, V]')
    for name, pos, x, of in (('q_pos', coords.q_pos, q, 'queries'), ('k_pos', coords.k_pos, k, 'keys')):
        if pos.shape[1:] != x.shape[1:2] or pos.shape[0] not in (1, len(x)):
            raise ValueError(f'{name} holds coordinates {pos.shape} for {of} of {x.shape[:2]}')
