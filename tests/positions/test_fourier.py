"""Learnable Fourier features against Algorithm 1 of Li et al. (2021) in float64, one position at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError


def make(text, dim=24):
    return positions.make(text, Dims(dim, 4, 8, max_len=32), rngs=nnx.Rngs(0))


def oracle(scheme, pos):
    w_r, w1, b1, w2, b2 = (
        np.asarray(param[...], np.float64)
        for param in (scheme.w_r, scheme.hidden.kernel, scheme.hidden.bias, scheme.out.kernel, scheme.out.bias)
    )
    rows = []
    for p in pos:
        r = np.array([math.cos(p * w) for w in w_r] + [math.sin(p * w) for w in w_r]) / math.sqrt(2 * len(w_r))
        y = [0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in r @ w1 + b1]
        rows.append(y @ w2 + b2)
    return np.array(rows)


@pytest.mark.parametrize('settings', [dict(), dict(fourier_dim=6, hidden=5), dict(gamma=10.0)], ids=str)
def test_embedding(settings, case):
    scheme = case.make(f'fourier({", ".join(f"{key}={value}" for key, value in settings.items())})')
    assert scheme.w_r.shape == (settings.get('fourier_dim', 12) // 2,)
    assert scheme.hidden.kernel.shape == (settings.get('fourier_dim', 12), settings.get('hidden', 24))
    x = jnp.asarray(case.draw('x', 2, len(case.pos), 24), jnp.float32)
    expected = np.asarray(x) + oracle(scheme, case.pos)
    # float32 angles of up to 200 radians are off by 1e-5.
    np.testing.assert_allclose(scheme.embed(x, jnp.asarray(case.pos)[None]), expected, atol=3e-5)
    case.check(scheme, case.dot())


def test_fractional_positions_in_bfloat16(case):
    """The embedding is made in float32 and rounded once."""
    scheme, pos = case.make('fourier'), np.array([0.5, 100.125, 1000.5])
    out = scheme.embed(jnp.zeros((1, 3, 24), jnp.bfloat16), jnp.asarray(pos, jnp.float32)[None])
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out[0], np.float64), oracle(scheme, pos), rtol=2**-8, atol=2e-3)


@pytest.mark.parametrize('gamma', [1.0, 20.0])
def test_gamma_is_a_distance(gamma):
    """r(p) . r(p') starts as a Gaussian kernel of that width."""
    w_r = np.asarray(make(f'fourier(fourier_dim=20000, hidden=1, gamma={gamma})').w_r[...], np.float64)
    for d in gamma * np.array([0, 0.5, 1, 2, 3]):
        assert np.cos(d * w_r).mean() == pytest.approx(np.exp(-(d**2) / (2 * gamma**2)), abs=0.03)


def test_gradients_reach_the_frequencies():
    graph, params = nnx.split(make('fourier'), nnx.Param)
    pos = jnp.array([[0, 0, 3, 7]])
    gradients = jax.grad(lambda params: (nnx.merge(graph, params).embed(jnp.zeros((1, 4, 24)), pos) ** 2).sum())(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('fourier(fourier_dim=7)', 'fourier_dim must be even and above 0, not 7'),
        ('fourier(fourier_dim=0)', 'fourier_dim must be even and above 0, not 0'),
        ('fourier(hidden=0)', 'hidden must be at least 1'),
        ('fourier(gamma=0.0)', 'gamma must be above 0'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)


def test_an_odd_half_of_the_width_is_refused():
    with pytest.raises(UserError, match='not 5'):
        make('fourier', dim=10)
