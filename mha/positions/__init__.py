"""Position schemes, one file each; a scheme's name is its file's name.

`make('randomize(max_position=2048)|rope', dims, rngs=rngs)` builds a scheme from its spec. `|` composes: remaps, embeds
and qk transforms apply left to right, biases add, at most one scheme may replace the softmax.
"""

import dataclasses
import sys

import jax
from flax import nnx

from mha import spec
from mha.positions.base import HOOKS, Coords, Dims, OffsetBias, Position

__all__ = ['HOOKS', 'Chain', 'Coords', 'Dims', 'OffsetBias', 'Position', 'make', 'names', 'per_layer']


def names() -> tuple[str, ...]:
    """The schemes there are: the files beside this one."""
    return spec.names(sys.modules[__name__])


def make(text: str, dims: Dims, *, rngs: nnx.Rngs) -> Position:
    """The scheme that a spec describes. Raises a one-line `ValueError` for a wrong name or argument, or for a scheme
    that cannot represent `dims.max_len` tokens."""
    parts: list[Position] = []
    calls = spec.parse(text)
    for call in calls:
        kind = spec.load(sys.modules[__name__], call.name, Position, 'position scheme')
        part = spec.build(kind, call, 'position scheme', dims, rngs=rngs)
        if part.first_only and any(earlier.overrides('remap') for earlier in parts):
            raise spec.UserError(f'position {text!r}: {call.name!r} takes slot numbers, write it before other remaps')
        parts.append(part)
        if part.overrides('remap'):  # later parts meet its coordinates: a learned table grows with their range
            dims = dataclasses.replace(dims, max_len=checked_extent(part, dims.max_len, str(call)))
    for part, call in zip(parts, calls, strict=True):
        if not part.overrides('remap'):
            checked_extent(part, dims.max_len, str(call))
    return parts[0] if len(parts) == 1 else Chain(parts, text)


def checked_extent(part: Position, length: int, name: str) -> int:
    """`part.extent(length)`, its refusal as a `UserError` that names the scheme."""
    try:
        return part.extent(length)
    except ValueError as error:
        raise spec.UserError(f'position scheme {name!r}: {error}') from error


def per_layer(text: str, layers: int) -> tuple[str, ...]:
    """One spec per layer: `'rope'` -> the same for all, `'rope, none'` -> one each."""
    specs = spec.split(text)
    if len(specs) not in (1, layers):
        raise spec.UserError(
            f'position {text!r} lists {len(specs)} schemes for {layers} layers - give one, or one per layer'
        )
    return tuple(specs * layers if len(specs) == 1 else specs)


class Chain(Position):
    """Schemes composed with `|`."""

    def __init__(self, parts: list[Position], text: str):
        self.parts = nnx.List(parts)
        self.per_example = any(part.per_example for part in parts)
        replacing = [part for part in parts if part.overrides('weights')]
        if len(replacing) > 1:
            raise spec.UserError(
                f'position {text!r}: at most one scheme may replace the softmax, here {len(replacing)} do'
            )

    def overrides(self, hook):
        return any(part.overrides(hook) for part in self.parts)

    def extent(self, length):
        for part in sorted(self.parts, key=lambda part: not part.overrides('remap')):  # remaps act before all else
            length = part.extent(length)
        return length

    def remap(self, pos, *, valid=None, key=None, train=False):
        for index, part in enumerate(self.parts):
            part_key = None if key is None else jax.random.fold_in(key, index)
            pos = part.remap(pos, valid=valid, key=part_key, train=train)
        return pos

    def embed(self, x, pos):
        for part in self.parts:
            x = part.embed(x, pos)
        return x

    def qk(self, q, k, coords):
        for part in self.parts:
            q, k = part.qk(q, k, coords)
        return q, k

    def bias(self, q_pos, k_pos):
        return _sum(part.bias(q_pos, k_pos) for part in self.parts)

    def content(self, q, k, q_pos, k_pos):
        return _sum(part.content(q, k, q_pos, k_pos) for part in self.parts)

    def weights(self, logits, mask, q, coords):
        (part,) = (part for part in self.parts if part.overrides('weights'))
        return part.weights(logits, mask, q, coords)


def _sum(terms):
    terms = [term for term in terms if term is not None]
    return sum(terms[1:], start=terms[0]) if terms else None
