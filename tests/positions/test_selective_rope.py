"""Rotation by angles accumulated over tokens, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from tests.positions.cases import causal_cases
from tests.positions.conftest import BATCH, LENGTH


def turned(x, angle):
    u, w = np.split(x, 2, axis=-1)
    return np.concatenate([u * np.cos(angle) - w * np.sin(angle), u * np.sin(angle) + w * np.cos(angle)], -1)


@causal_cases
@pytest.mark.parametrize('gate', [False, True])
def test_weights(gate, case):
    scheme = case.make(f'selective_rope(rank=3, gate={gate})')
    x, heads = case.draw('x', BATCH, LENGTH, 24), case.heads
    parts = x.reshape(BATCH, LENGTH, heads, -1)
    x = (parts / np.sqrt((parts**2).sum(-1, keepdims=True) + 1e-6)).reshape(x.shape)
    down, up, taps = (np.asarray(p[...], np.float64) for p in (scheme.down, scheme.up, scheme.taps))
    phi, mixed = x @ down @ up, np.zeros((BATCH, LENGTH, heads * 4))
    for t, tap in np.ndindex(LENGTH, 4):
        if t - 3 + tap >= 0:
            mixed[:, t] += phi[:, t - 3 + tap] * taps[tap]
    phi = mixed.reshape(BATCH, LENGTH, heads, 4)
    if gate:
        kernel, bias = (np.asarray(p[...], np.float64) for p in (scheme.gate.kernel, scheme.gate.bias))
        phi = phi / (1 + np.exp(-(x @ kernel + bias)))[..., None]
    angle = np.cumsum(phi, axis=1) * 500_000.0 ** (-np.arange(4) / 4)
    case.check(scheme, case.dot(turned(case.q, angle), turned(case.k, angle)), atol=3e-5)


@causal_cases
@pytest.mark.parametrize('start', ['small', 'sigmoid'])
def test_scalar_form(start, case):
    scheme = case.make(f'selective_rope(scalar=True, start={start!r})')
    z = case.draw('x', BATCH, LENGTH, 24) @ np.asarray(scheme.omega.kernel[...], np.float64)
    z = z + np.asarray(scheme.omega.bias[...], np.float64)
    omega = np.logaddexp(z, 0) if start == 'small' else 1 / (1 + np.exp(-z / 16))
    angle = (np.cumsum(omega, 1) - omega)[:, :, None] * np.exp(np.asarray(scheme.log_theta[...], np.float64))
    case.check(scheme, case.dot(turned(case.q, angle), turned(case.k, angle)), atol=5e-5)


@pytest.mark.parametrize(('start', 'omega'), [('small', 1e-3), ('sigmoid', 0.5)])
def test_increments_of_the_scalar_form_at_the_start(start, omega):
    dims = Dims(24, 4, 8, 32, causal=True)
    scheme = positions.make(f'selective_rope(scalar=True, start={start!r})', dims, rngs=nnx.Rngs(0))
    found = scheme.angles(jnp.ones((1, 5, 24)), 1 + jnp.arange(5)[None])[0, :, 0, 0]
    np.testing.assert_allclose(found, omega * np.arange(5), rtol=1e-4)


def test_padding_on_the_left_changes_no_angle():
    dims, rng = Dims(24, 4, 8, 32, causal=True), np.random.default_rng(0)
    scheme = positions.make('selective_rope', dims, rngs=nnx.Rngs(0))
    x, q = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((1, 6, 24), (1, 6, 4, 8)))
    whole = Coords(q_pos=jnp.arange(6)[None], k_pos=jnp.arange(6)[None], visible=jnp.arange(6)[None], x=x)
    rest = Coords(q_pos=jnp.arange(5)[None], k_pos=jnp.arange(5)[None], visible=1 + jnp.arange(5)[None], x=x[:, 1:])
    np.testing.assert_allclose(scheme.qk(q, q, whole)[0][:, 1:], scheme.qk(q[:, 1:], q[:, 1:], rest)[0], atol=1e-6)
