"""Head mixing, one file each: attention in which the maps of several heads, or several maps of a head, meet. A name is
that of its file; 'none' is plain attention.

`make('talking_heads', dims, layer, rngs=rngs)` builds a mixing from its spec.
"""

import sys

from flax import nnx

from mha import arguments, spec
from mha.mixing.base import Mixing
from mha.positions.base import Dims

__all__ = ['Mixing', 'kind', 'make', 'names']
WHAT = 'mixing of heads'


def names() -> tuple[str, ...]:
    """Names of all mixings: those of the files beside this one."""
    return spec.names(sys.modules[__name__])


def kind(text: str) -> type[Mixing]:
    """Class of a spec. Raises `UserError` with the choices."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'{WHAT} {text!r}: a layer has one, not {1 + len(more)}')
    if spec.choose(call.name, ('none', *names()), WHAT) == 'none':
        return Mixing
    return spec.load(sys.modules[__name__], call.name, Mixing, WHAT)


@arguments.checked
def make(text: str, dims: Dims, layer: int, *, rngs: nnx.Rngs) -> Mixing:
    """Mixing that a spec describes. Raises `UserError` with the choices."""
    (call,) = spec.parse(text)
    return arguments.build(kind(text), call, WHAT, dims, layer, rngs=rngs)
