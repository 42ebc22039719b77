import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.nn import prng
from mha.nn.dropout import dropout, kept

COUNT = 2**20


def draw(rate, step):
    key = jax.random.fold_in(prng.cheap(jax.random.key(0)), step)
    return np.asarray(kept(key, jnp.float32(rate), shape=(2**8, COUNT // 2**8)))


@pytest.mark.parametrize('rate', [0.001, 0.1, 0.5, 0.9])
def test_drops_its_share(rate):
    for step in range(3):
        assert abs(draw(rate, step=step).mean() - (1 - rate)) < 5 * (rate * (1 - rate) / COUNT) ** 0.5


def test_examples_are_independent():
    rows = 2.0 * draw(0.5, step=0) - 1
    correlation = rows @ rows.T / rows.shape[1]
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5.5 / rows.shape[1] ** 0.5


def test_keeps_the_mean_and_zeroes_the_rest():
    out = np.asarray(dropout(jnp.ones((64, 128)), 0.25, nnx.Rngs(dropout=0)))
    assert set(np.unique(out)) == {np.float32(0), np.float32(4 / 3)}
    assert out.mean() == pytest.approx(1, abs=0.05)


def test_off():
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, nnx.Rngs(dropout=0)), x)
    np.testing.assert_array_equal(jax.jit(lambda rate: dropout(x, rate, nnx.Rngs(dropout=0)))(0.0), x)
