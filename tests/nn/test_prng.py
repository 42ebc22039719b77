"""The cheap generator behind the functions of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.nn import prng

COUNT = 2**20


def key(seed=0):
    return prng.cheap(jax.random.key(seed))


def signs(*keys):
    """Rows of +1 and -1, one of each key, from its highest bit. float32 holds their sums exactly."""
    bits = np.stack([np.asarray(jax.random.bits(key, (COUNT,))) >> 31 for key in keys])
    return 2 * bits.astype(np.float32) - 1


def test_streams_are_those_of_flax():
    ours, flax = prng.streams(jax.random.key(3)), nnx.Rngs(jax.random.key(3))
    for name in 'params', 'params', 'dropout', 'params':
        one, other = (jax.random.key_data(getattr(rngs, name)()) for rngs in (ours, flax))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('width', [8, 16, 32, 64])
def test_every_bit_is_fair(width):
    with jax.enable_x64(width == 64):
        bits = np.asarray(jax.random.bits(key(), (COUNT,), f'uint{width}'))
    assert bits.dtype == f'uint{width}'
    for bit in range(width):
        assert abs((bits >> bit & 1).mean() - 0.5) < 5 * 0.5 / COUNT**0.5


@pytest.mark.parametrize('lag', [1, 2, 3, 8, 64, 256, 1344, 4096])
def test_entries_are_independent(lag):
    (row,) = signs(key())
    assert abs((row[:-lag] * row[lag:]).mean()) < 5 / (COUNT - lag) ** 0.5
    triples = row[: -2 * lag] * row[lag:-lag] * row[2 * lag :]
    assert abs(triples.mean()) < 5 / len(triples) ** 0.5


def test_keys_are_independent():
    """Of seeds, of what is folded into them and of what they are split into, at the same entries and at following
    ones."""
    keys = [jax.random.fold_in(key(seed), step) for seed in range(3) for step in range(4)]
    keys += [*jax.random.split(key(), 4), key(0), key(1)]
    rows = signs(*keys)
    for shift in range(3):
        correlation = rows @ np.roll(rows, shift, axis=1).T / COUNT
        if shift == 0:
            np.fill_diagonal(correlation, 0)
        assert np.abs(correlation).max() < 5.5 / COUNT**0.5


def test_following_keys_give_independent_numbers():
    """The first number of each of many keys, folded or split: as independent as the numbers of one key."""
    folded = jax.vmap(lambda step: jax.random.bits(jax.random.fold_in(key(), step)))(jnp.arange(2**16))
    split = jax.vmap(jax.random.bits)(jax.random.split(key(), 2**16))
    for bits in (folded, split):
        row = 2.0 * np.asarray(bits >> 31) - 1
        assert abs(row.mean()) < 5 / 2**8
        for lag in (1, 2, 64):
            assert abs((row[:-lag] * row[lag:]).mean()) < 5 / 2**8


def test_serves_as_any_key():
    """Drawn under jit and vmap, in any shape; and uniform and normal numbers have their moments."""
    keys = jax.random.split(key(), 3)
    together = jax.jit(jax.vmap(lambda k: jax.random.bits(k, (2, 5))))(keys)
    np.testing.assert_array_equal(together, [jax.random.bits(k, (2, 5)) for k in keys])
    normal = np.asarray(jax.random.normal(key(), (COUNT,)))
    np.testing.assert_allclose([normal.mean(), normal.var(), (normal**4).mean()], [0, 1, 3], atol=0.03)
    assert jax.random.key_data(key(0)).tolist() != jax.random.key_data(key(1)).tolist()


@pytest.mark.parametrize('make', [key, jax.random.key])
def test_rows(make):
    """An example's key does not depend on how many there are."""
    data = jax.random.key_data(prng.rows(make(0), 64))
    assert len(np.unique(data, axis=0)) == 64
    np.testing.assert_array_equal(data[:5], jax.random.key_data(prng.rows(make(0), 5)))


@pytest.mark.parametrize('make', [key, jax.random.key])
def test_shuffle(make):
    """Every order of three numbers is as likely."""
    orders = jax.vmap(lambda k: prng.shuffle(k, 3))(jax.random.split(make(0), 6000))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # chi-square of 5 degrees of freedom: 0.1 %
