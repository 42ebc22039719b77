"""Initial values of embeddings and linear layers by spec: `'default'`, `'haiku'`.

           embeddings, before their scale sqrt(D)    kernels                                      biases
default    N(0, 1 / D)                               N(0, 1 / fan_in) cut at two deviations and   0
                                                     scaled so that its variance is 1 / fan_in
haiku      N(0, std^2) cut at two deviations         N(0, 1 / fan_in) cut at two deviations       0

Cutting a normal distribution at two standard deviations multiplies its standard deviation by .88. `haiku` is the
default of the library of that name, and the initialisation in the released code of Ruoss et al. (2023,
arXiv:2305.16843): at width 64, scaled token embeddings have standard deviation .14 there, and 1 with `default`.
"""

from typing import NamedTuple

import jax
from jax.nn.initializers import Initializer

from mha import spec

KEPT = 0.8796256610342398
"""Standard deviation of a standard normal that is cut at two."""


class Initial(NamedTuple):
    """Initialisers of a model."""

    embedding: Initializer
    kernel: Initializer


def default(dim: int) -> Initial:
    return Initial(jax.nn.initializers.normal(dim**-0.5), jax.nn.initializers.lecun_normal())


def haiku(dim: int, std: float = 0.02) -> Initial:
    if std <= 0:
        raise ValueError(f'std must be above 0, not {std}')
    kernel = jax.nn.initializers.variance_scaling(KEPT**2, 'fan_in', 'truncated_normal')
    return Initial(jax.nn.initializers.truncated_normal(std), kernel)


INITIALS = {initial.__name__: initial for initial in (default, haiku)}


def make(text: str, dim: int) -> Initial:
    """The initialisers of a spec, for a model of width `dim`. Mistakes are `UserError`s."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'init {text!r}: initial values do not compose')
    return spec.build(INITIALS[spec.choose(call.name, INITIALS, 'init')], call, 'init', dim)
