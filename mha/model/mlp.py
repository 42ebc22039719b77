"""Feed-forward layers by spec: `'relu'`, `'swiglu(width=170)'`, `'none'`.

relu, gelu        act(x U) D                Vaswani et al. (2017, arXiv:1706.03762)
gelu_exact        act(x U) D                act(x) = x P(X < x), X ~ N(0, 1); gelu is an approximation by tanh, up to
                                            5e-4 away (Hendrycks & Gimpel, 2016, arXiv:1606.08415)
swiglu, geglu     (act(x G) * (x U)) D      Shazeer (2020, arXiv:2002.05202), act = silu or gelu
none              no feed-forward layer: blocks of attention alone
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float

from mha import arguments, spec
from mha.arguments import Count
from mha.model.initial import Initial
from mha.nn.products import linear

ACTIVATIONS = {
    'relu': jax.nn.relu,
    'gelu': jax.nn.gelu,
    'gelu_exact': functools.partial(jax.nn.gelu, approximate=False),
}
GATED = {'swiglu': jax.nn.silu, 'geglu': jax.nn.gelu}


class Layers(NamedTuple):
    """Parts of a feed-forward layer."""

    activation: Callable[[Array], Array]
    up: nnx.Linear
    down: nnx.Linear
    gate: nnx.Linear | None


def apply(layers: Layers, x: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """Output of the feed-forward layer."""
    activation, up, down, gate = layers
    return down(activation(up(x)) if gate is None else activation(gate(x)) * up(x))


def make(text: str, dim: int, width: int, start: Initial, **options: Any) -> Layers | None:
    """Feed-forward layer that a spec describes; None for 'none'. Its inner width is that of the spec, or else `width`.
    Gated layers take two thirds of `width`, which gives as many parameters as without a gate (Shazeer, 2020). Mistakes
    raise `UserError`."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'mlp {text!r}: feed-forward layers do not compose')
    spec.choose(call.name, (*ACTIVATIONS, *GATED, 'none'), 'mlp')
    if call.name == 'none':
        arguments.build(_none, call, 'mlp')
        return None
    gated = call.name in GATED
    inner = arguments.build(_width, call, 'mlp') or (2 * width // 3 if gated else width)
    up = nnx.Linear(dim, inner, kernel_init=start.kernel, dot_general=linear, **options)
    down = nnx.Linear(inner, dim, kernel_init=start.residual, dot_general=linear, **options)
    gate = nnx.Linear(dim, inner, kernel_init=start.kernel, dot_general=linear, **options) if gated else None
    return Layers({**ACTIVATIONS, **GATED}[call.name], up, down, gate)


def _width(width: Count | None = None) -> int | None:
    return width


def _none() -> None:
    pass
