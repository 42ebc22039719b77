"""Inverses of unit triangular matrices against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.nn.triangular import unit_lower_inverse


@pytest.mark.parametrize('size', [1, 2, 3, 8, 21])
def test_inverse(size):
    lower = np.tril(np.random.default_rng(size).standard_normal((2, 3, size, size)), -1)
    expected = np.linalg.inv(np.eye(size) + lower)
    np.testing.assert_allclose(unit_lower_inverse(jnp.asarray(lower, jnp.float32)), expected, rtol=2e-4, atol=1e-4)


def test_gradient():
    lower = jnp.tril(jax.random.normal(jax.random.key(0), (5, 5)), -1)
    found = jax.grad(lambda x: (unit_lower_inverse(jnp.tril(x, -1)) ** 2).sum())(lower)
    expected = jax.grad(lambda x: (jnp.linalg.inv(jnp.eye(5) + jnp.tril(x, -1)) ** 2).sum())(lower)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
