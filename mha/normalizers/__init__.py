"""Normalizers, one file each: how the logits of a query become the weights of its keys. A name is that of its file.

`make('sink(kind="query")', dims, rngs=rngs)` builds a normalizer from its spec. Each composes with every position
scheme, except with schemes that replace the softmax themselves.
"""

import sys

from flax import nnx

from mha import arguments, spec
from mha.normalizers.base import Normalizer
from mha.positions.base import Dims

__all__ = ['Normalizer', 'make', 'names']


def names() -> tuple[str, ...]:
    """Names of all normalizers: those of the files beside this one."""
    return spec.names(sys.modules[__name__])


@arguments.checked
def make(text: str, dims: Dims, *, rngs: nnx.Rngs) -> Normalizer:
    """Normalizer that a spec describes. Raises `UserError` with the choices."""
    what = 'normalizer'
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'{what} {text!r}: a layer has one, not {1 + len(more)}')
    kind = spec.load(sys.modules[__name__], call.name, Normalizer, what)
    if kind.causal_only and not dims.causal:
        raise spec.UserError(f'{what} {call.name!r} is defined for causal attention only - set model.causal=True')
    return arguments.build(kind, call, what, dims, rngs=rngs)
