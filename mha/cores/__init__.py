"""Attention cores: how softmax attention is computed, one file each. `attend` applies a scheme's per-layer hooks and
runs one of them. `dense` is the specification that every other core is tested against."""

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from mha import spec
from mha.cores import dense
from mha.nn.masks import Mask, as_mask
from mha.positions.base import Coords, Position

__all__ = ['attend', 'check', 'dense', 'has_map', 'names', 'quadratic']

LONG = 256
"""Keys from which on 'auto' computes in tiles: on two CPU cores `blockwise` is the faster from there on, forward and
backward (docs/results/attention-cpu.md); not measured on a GPU."""


def names() -> tuple[str, ...]:
    """The cores there are, 'auto' aside."""
    return spec.names(sys.modules[__name__])


def check(core: str) -> str:
    """`core` if it is a core's name, or a spec such as `'linear(features="performer")'`; else a `UserError` that says
    what there is."""
    _find(core)
    return core


def has_map(core: str) -> bool:
    """Whether a core computes softmax attention, whose weights `dense.weights` gives."""
    return _find(core)[0].__module__ != f'{__name__}.linear'


def _find(core: str) -> tuple[Callable[..., Array], dict[str, Any]]:
    """A core's `attend`, and the arguments a person gave it: those that `dense` does not have."""
    what = 'attention core'
    call, *more = spec.parse(core)
    if more:
        raise spec.UserError(f'{what} {core!r}: one core computes a layer, not {1 + len(more)}')
    name = spec.choose(call.name, ('auto', *names()), what)
    run = dense.attend if name == 'auto' else importlib.import_module(f'{__name__}.{name}').attend
    return run, spec.arguments(run, call, what, extra=inspect.signature(dense.attend).parameters)


def _choose(core: str, position: Position, keys: int) -> str:
    """What 'auto' means for a call: the kernel falls back by itself where it cannot run."""
    if core != 'auto':
        return core
    if keys < LONG or position.overrides('weights'):
        return 'dense'
    return 'flash' if jax.default_backend() == 'gpu' else 'blockwise'


def quadratic(core: str, position: Position, keys: int) -> bool:
    """Whether a call holds the logits of all pairs in memory."""
    return _choose(core, position, keys) == 'dense'


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
    """Attention under a position scheme and a mask; `options` go to the core (see its docstring). 'auto' is `dense` for
    short sequences and for schemes that replace the softmax, else the core of the device. A query that may see no key
    gets zeros."""
    run, chosen = _find(_choose(core, position, k.shape[1]))
    scale = q.shape[-1] ** -0.5
    q, k = position.qk(q, k, coords)
    return run(q, k, v, position=position, coords=coords, mask=as_mask(mask), scale=scale, **{**chosen, **options})
