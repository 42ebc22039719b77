"""FIRE against equation (8) of Li et al. (2023) and our signed form, in float64 with explicit loops over pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError


def make(text, causal=False, heads=4):
    return positions.make(text, Dims(24, heads, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


def share(scheme, p, s, length):
    """z of a query at p and a key at s: the published ratio, and in an encoder its mirror image for later keys."""
    c, limit = abs(float(scheme.c[...])), abs(float(scheme.l[...]) * length)
    z = np.log(c * abs(p - s) + 1) / (np.log(c * max(p, s, abs(p - s), limit) + 1) + 1e-6)
    return z if p >= s else -z


def network(scheme, z):
    w1, b1, w2, b2 = (
        np.asarray(param[...], np.float64)
        for layer in (scheme.hidden, scheme.out)
        for param in (layer.kernel, layer.bias)
    )
    return np.maximum(z * w1[0] + b1, 0) @ w2 + b2


def oracle(scheme, pos, length=512.0):
    out = np.zeros((scheme.out.kernel.shape[1], len(pos), len(pos)))
    for i, p in enumerate(pos):
        for j, s in enumerate(pos):
            out[:, i, j] = network(scheme, share(scheme, float(p), float(s), length))
    return out


@pytest.mark.parametrize(
    'settings', [dict(), dict(width=5, init_length=30.0), dict(init_length=1.0, signed=True)], ids=str
)
def test_weights(settings, case):
    scheme = case.make(f'fire({", ".join(f"{key}={value}" for key, value in settings.items())})')
    assert scheme.hidden.kernel.shape == (1, settings.get('width', 32))
    case.check(scheme, case.dot() + oracle(scheme, case.pos, settings.get('init_length', 512.0)))


def test_the_published_causal_form(case):
    """Without a maximum over keys and without a sign, for they see no later keys."""
    scheme = dataclasses.replace(case, causal=True).make('fire(init_length=20.0)')
    c, limit = abs(float(scheme.c[...])), abs(20 * float(scheme.l[...]))
    p = case.pos.astype(np.float64)
    z = np.log(c * np.maximum(case.offset, 0) + 1) / (np.log(c * np.maximum(p, limit) + 1) + 1e-6)[:, None]
    found = scheme.bias(jnp.asarray(case.pos)[None], jnp.asarray(case.pos)[None])[0]
    past = case.offset >= 0
    expected = np.moveaxis(network(scheme, z[..., None]), -1, 0)
    np.testing.assert_allclose(np.asarray(found)[:, past], expected[:, past], atol=1e-5)
    assert np.isfinite(found).all()


def test_shares_are_bounded_and_reach_their_bounds():
    """Read off with a network that passes z on: relu(z) - relu(-z)."""
    scheme = make('fire(width=2, init_length=100.0)')
    for layer, kernel in ((scheme.hidden, [[1.0, -1.0]]), (scheme.out, np.repeat([[1.0], [-1.0]], 4, 1))):
        layer.kernel[...], layer.bias[...] = jnp.asarray(kernel, jnp.float32), jnp.zeros_like(layer.bias[...])
    pos = jnp.array([[0, 1, 50, 100, 101, 10_000, 1_000_000]])
    z = np.asarray(scheme.bias(pos, pos))[0, 0]
    np.testing.assert_allclose(z, -z.T, atol=1e-6)
    assert np.abs(z).max() <= 1
    np.testing.assert_allclose(z[3:, 0], 1, atol=1e-5)
    below = np.asarray(scheme.bias(jnp.array([[0]]), -pos))[0, 0, 0]
    np.testing.assert_allclose(below, z[:, 0], atol=1e-6)
    assert np.all(np.diff(z[:, 0]) > -1e-6)
    assert z[2, 1] == pytest.approx(np.log(5.9) / np.log(11), rel=1e-4)


@pytest.mark.parametrize('causal', [False, True])
def test_gradients_are_finite(causal):
    graph, params = nnx.split(make('fire', causal), nnx.Param)
    for c, share in ((0.1, 1.0), (0.0, 1.0), (-0.5, 0.0)):
        params['c'][...], params['l'][...] = jnp.float32(c), jnp.float32(share)
        for pos in (jnp.array([[0, 0, 3, 1_000_000]]), jnp.zeros((1, 4)), jnp.array([[-1, -1, 0, 1]])):
            gradients = jax.grad(lambda params, pos: (nnx.merge(graph, params).bias(pos, pos) ** 2).sum())(params, pos)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_parameters():
    """33 H + 64 + 2, and the values that they start at."""
    scheme = make('fire', heads=6)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(scheme))) == 33 * 6 + 64 + 2
    assert float(scheme.c[...]) == pytest.approx(0.1)
    assert float(scheme.l[...]) == 1
    bends = -np.asarray(scheme.hidden.bias[...]) / np.asarray(scheme.hidden.kernel[...])[0]
    assert np.sum((bends > 0) & (bends < 1)) > 3


def test_published_initial_values():
    """Weights and biases uniform in +-1/sqrt(fan_in), as those of torch's linear layers."""
    scheme = make("fire(width=400, init='uniform')", heads=100)
    for layer, high in ((scheme.hidden, 1.0), (scheme.out, 400**-0.5)):
        for param in (layer.kernel, layer.bias):
            values = np.asarray(param[...])
            assert np.std(values) == pytest.approx(high / 3**0.5, rel=0.15)
            assert 0.9 * high < np.abs(values).max() <= high


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('fire(signed=False)', 'signed=False cannot tell left from right in a bidirectional model'),
        ('fire(width=0)', 'width must be at least 1'),
        ('fire(init_length=0.0)', 'init_length must be above 0'),
        ('fire(init_c=0.0)', 'init_c must not be 0'),
        ("fire(init='torch')", "init must be 'normal' or 'uniform'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)


def test_a_causal_model_needs_no_sign(case):
    """z is the same where it counts."""
    causal = dataclasses.replace(case, causal=True)
    pos = jnp.asarray(case.pos)[None]
    past = case.offset >= 0
    one, two = (np.asarray(causal.make(text).bias(pos, pos)) for text in ('fire', 'fire(signed=True)'))
    np.testing.assert_array_equal(one[:, :, past], two[:, :, past])
    assert np.abs(one - two).max() > 1e-3
