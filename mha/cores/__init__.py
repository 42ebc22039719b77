"""Attention cores: how softmax attention is computed, one file each. `attend` applies a scheme's per-layer hooks and
runs one of them. `dense` is the specification that every other core is tested against."""

import importlib
import sys
from typing import Any

from jaxtyping import Array, Float

from mha import spec
from mha.cores import dense
from mha.masks import Mask, as_mask
from mha.positions.base import Coords, Position

__all__ = ['attend', 'check', 'dense', 'names']


def names() -> tuple[str, ...]:
    """The cores there are, 'auto' aside."""
    return spec.names(sys.modules[__name__])


def check(core: str) -> str:
    """`core`, if there is such a core; else a `UserError` that lists them."""
    return spec.choose(core, ('auto', *names()), 'attention core')


def attend(
    q: Float[Array, 'B T H K'],
    k: Float[Array, 'B S H K'],
    v: Float[Array, 'B S H V'],
    *,
    position: Position,
    coords: Coords,
    mask: Mask | Array | None = None,
    core: str = 'auto',
    **options: Any,
) -> Float[Array, 'B T H V']:
    """Attention under a position scheme and a mask; `options` go to the core (see its docstring). A query that may see
    no key gets zeros."""
    run = importlib.import_module(f'{__name__}.{"dense" if check(core) == "auto" else core}').attend
    scale = q.shape[-1] ** -0.5
    q, k = position.qk(q, k, coords)
    return run(q, k, v, position=position, coords=coords, mask=as_mask(mask), scale=scale, **options)
