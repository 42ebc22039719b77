"""Which keys a query may see: masks as composable objects, evaluated tile by tile from slot indices.

Masks are about slots of the array, never about positions: those may be random, packed or interpolated.
`causal() & padding(valid)` sees what both allow.
"""

import dataclasses
from typing import dataclass_transform

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@dataclass_transform(frozen_default=True)
def _mask(cls):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


class Mask:
    """Subclasses define `tile`; arrays they hold may be traced."""

    def tile(self, q: Int[Array, 'Q'], k: Int[Array, 'P']) -> Bool[Array, '#B #H Q P']:
        """True where the query in slot q[i] may see the key in slot k[j]."""
        raise NotImplementedError

    def dense(self, queries: int, keys: int) -> Bool[Array, '#B #H T S']:
        """The whole mask."""
        return self.tile(jnp.arange(queries), jnp.arange(keys))

    def __and__(self, other: 'Mask') -> 'Mask':
        return And(self, other)


@_mask
class And(Mask):
    first: Mask
    second: Mask

    def tile(self, q, k):
        return self.first.tile(q, k) & self.second.tile(q, k)


@_mask
class full(Mask):
    """Every query sees every key."""

    def tile(self, q, k):
        return jnp.ones((1, 1, q.size, k.size), bool)


@_mask
class causal(Mask):
    """A query sees its own slot and those before it."""

    def tile(self, q, k):
        return (q[:, None] >= k[None, :])[None, None]


@_mask
class padding(Mask):
    """Only real tokens are seen as keys: valid [#B, S]."""

    valid: Bool[Array, '#B S']

    def tile(self, q, k):
        seen = self.valid[:, k][:, None, None, :]
        return jnp.broadcast_to(seen, (seen.shape[0], 1, q.size, k.size))


@_mask
class prefix(Mask):
    """The first `length` slots see each other both ways, the rest is causal (prefix LM; Raffel et al., 2020)."""

    length: int | Int[Array, '']

    def tile(self, q, k):
        return ((q[:, None] >= k[None, :]) | (k[None, :] < self.length))[None, None]


@_mask
class segments(Mask):
    """Packed sequences: a query sees keys of its own segment, ids [#B, T]."""

    ids: Int[Array, '#B T']

    def tile(self, q, k):
        return (self.ids[:, q][:, :, None] == self.ids[:, k][:, None, :])[:, None]


@_mask
class window(Mask):
    """A query sees `left` slots before it, itself, and `right` slots after it."""

    left: int = dataclasses.field(metadata={'static': True})
    right: int = dataclasses.field(default=0, metadata={'static': True})

    def tile(self, q, k):
        ahead = k[None, :] - q[:, None]
        return ((ahead >= -self.left) & (ahead <= self.right))[None, None]


@_mask
class explicit(Mask):
    """A boolean array [#B, #H, T, S]."""

    allowed: Bool[Array, '#B #H T S']

    def tile(self, q, k):
        return self.allowed[:, :, q][:, :, :, k]


def as_mask(mask: Mask | Array | None) -> Mask:
    """A mask of any accepted kind as a `Mask`; None allows everything."""
    if mask is None:
        return full()
    return mask if isinstance(mask, Mask) else explicit(mask)
