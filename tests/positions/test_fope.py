"""Series of frequencies in each channel, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError


@pytest.mark.parametrize('released', [False, True])
def test_weights(released, case):
    scheme = case.make(f'fope(length=100, theta=1e3, released={released})')
    waves = np.array([1e3 ** (-m / 4) for m in range(4)])
    waves = waves[waves >= 2 * np.pi / 100]
    turning = min(len(waves), 2)
    angle = case.pos[:, None] * waves
    cos, sin = (
        np.einsum('tm,hmn->thn', f(angle), np.asarray(c[...], np.float64))
        for f, c in ((np.cos, scheme.cosines), (np.sin, scheme.sines))
    )

    def turned(x):
        out = x.copy()
        for n in range(4):
            u, w = x[..., n], x[..., n + 4]
            c, s = (cos[:, :, n], sin[:, :, n]) if n < turning else (1.0, float(released))
            out[..., n], out[..., n + 4] = u * c - w * s, u * s + w * c
        return out

    case.check(scheme, case.dot(turned(case.q), turned(case.k)), atol=5e-5)


def make(text):
    return positions.make(text, Dims(24, 4, 8, 100), rngs=nnx.Rngs(0))


def test_with_identity_it_is_rope_with_fewer_frequencies():
    scheme, q = make('fope(theta=100, gain=0)'), jax.random.normal(jax.random.key(0), (1, 9, 4, 8))
    at = jnp.arange(9)[None]
    found = np.asarray(scheme.turn(q, at))
    rope = np.asarray(make('rope(theta=100)').turn(q, at))
    np.testing.assert_allclose(found[..., [0, 4]], rope[..., [0, 4]], atol=1e-6)
    np.testing.assert_array_equal(found[..., [2, 3, 6, 7]], np.asarray(q)[..., [2, 3, 6, 7]])


def test_the_released_code_doubles_free_channels():
    q = jax.random.normal(jax.random.key(0), (1, 9, 4, 8))
    free = [2, 3, 6, 7]
    found = np.asarray(make('fope(theta=100, released=True)').turn(q, jnp.arange(9)[None]))[..., free]
    np.testing.assert_allclose((found * found).sum(-1), 2 * (np.asarray(q)[..., free] ** 2).sum(-1), rtol=1e-5)


def test_no_frequency_left():
    with pytest.raises(UserError, match='no frequency completes a turn within 3 positions - set length'):
        make('fope(length=3)')
