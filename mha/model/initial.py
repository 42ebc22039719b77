"""Initial values of embeddings and linear layers by spec: `'default'`, `'haiku'`, `'gpt2'`.

           embeddings                            scale of x    kernels                                      biases
default    N(0, 1 / D)                           sqrt(D)       N(0, 1 / fan_in) cut at two deviations and   0
                                                               scaled so that its variance is 1 / fan_in
haiku      N(0, std^2) cut at two deviations     sqrt(D)       N(0, 1 / fan_in) cut at two deviations       0
gpt2       N(0, std^2)                           1             N(0, std^2); those that add to the residual   0
                                                               stream N(0, std^2 / (2 layers))

The input x of the first layer is the token embedding times the scale. Cutting a normal distribution at two standard
deviations multiplies its standard deviation by .88. `haiku` is the default of the library of that name, and the
initialisation in the released code of Ruoss et al. (2023, arXiv:2305.16843): at width 64, x has standard deviation .14
there, and 1 with `default`. `gpt2` is that of Radford et al. (2019) as in the library transformers, where learned
position embeddings have the same standard deviation as tokens: `learned(init_std=0.02)`, the default.
"""

import math
from typing import Annotated, NamedTuple

import jax
from jax.nn.initializers import Initializer

from mha import arguments, spec
from mha.arguments import above, at_most

KEPT = 0.8796256610342398
"""Standard deviation of a standard normal that is cut at two."""

Std = Annotated[float, above(0), at_most(1000)]
"""Standard deviation."""


class Initial(NamedTuple):
    """Initialisers of a model, and the factor of its token embeddings."""

    embedding: Initializer
    scale: float
    kernel: Initializer
    residual: Initializer
    """Kernels of the last layers of attention and feed-forward layers, which add to the residual stream."""


def default(dim: int, layers: int) -> Initial:
    kernel = jax.nn.initializers.lecun_normal()
    return Initial(jax.nn.initializers.normal(dim**-0.5), math.sqrt(dim), kernel, kernel)


def haiku(dim: int, layers: int, std: Std = 0.02) -> Initial:
    kernel = jax.nn.initializers.variance_scaling(KEPT**2, 'fan_in', 'truncated_normal')
    return Initial(jax.nn.initializers.truncated_normal(std), math.sqrt(dim), kernel, kernel)


def gpt2(dim: int, layers: int, std: Std = 0.02) -> Initial:
    normal = jax.nn.initializers.normal
    return Initial(normal(std), 1.0, normal(std), normal(std * (2 * layers) ** -0.5))


INITIALS = {initial.__name__: initial for initial in (default, haiku, gpt2)}


def make(text: str, dim: int, layers: int) -> Initial:
    """The initialisers of a spec, for a model of width `dim`. Mistakes are `UserError`s."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'init {text!r}: initial values do not compose')
    return arguments.build(INITIALS[spec.choose(call.name, INITIALS, 'init')], call, 'init', dim, layers)
