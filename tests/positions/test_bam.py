"""Generalised Gaussian of the offset, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims


@pytest.mark.parametrize('location', [False, True])
def test_weights(location, case):
    scheme = case.make(f'bam(location={location})')
    s, beta = (np.asarray(p[...], np.float64)[:, None, None] for p in (scheme.s, scheme.beta))
    mu = 2 * np.sinh(np.asarray(scheme.l[...], np.float64))[:, None, None] if location else 0
    case.check(scheme, case.dot() - np.exp(s) * (np.abs(case.offset - mu) + 1e-5) ** beta, atol=1e-4)


def test_it_starts_as_alibi():
    bam, alibi = (
        positions.make(text, Dims(24, 4, 8, 32), rngs=nnx.Rngs(0)) for text in ('bam', "alibi(variant='symmetric')")
    )
    offsets = jnp.arange(-9, 10)
    np.testing.assert_allclose(bam.offset_bias(offsets), alibi.offset_bias(offsets), atol=1e-4)
