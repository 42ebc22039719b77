"""Normalisation layers by name.

layer   (x - mean) / std * scale + bias      Ba et al. (2016, arXiv:1607.06450)
rms     x / rms * scale                      Zhang & Sennrich (2019, arXiv:1910.07467)
"""

from typing import Any

from flax import nnx

from mha import spec


def layer(features: int, *, use_bias: bool = True, **options: Any) -> nnx.LayerNorm:
    return nnx.LayerNorm(features, use_bias=use_bias, **options)


def rms(features: int, *, use_bias: bool = True, **options: Any) -> nnx.RMSNorm:
    """RMS norm. It never has a bias, whatever `use_bias` says."""
    return nnx.RMSNorm(features, **options)


NORMS = {norm.__name__: norm for norm in (layer, rms)}


def make(name: str, features: int, **options: Any) -> nnx.Module:
    """Norm called `name` over a last axis of `features` channels. Raises `UserError` for an unknown name."""
    return NORMS[spec.choose(name, NORMS, 'norm')](features, **options)
