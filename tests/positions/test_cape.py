"""CAPE: the ranges of its draws, read back from what they do to positions 0 .. T - 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError

LENGTH, KEYS = 6, 3000
POS = jnp.broadcast_to(jnp.arange(LENGTH), (2, LENGTH))


def make(text):
    return positions.make(text, Dims(16, 2, 8, max_len=LENGTH), rngs=nnx.Rngs(0))


def draws(text):
    """[KEYS, 2, LENGTH] in float64."""
    remap = jax.jit(jax.vmap(lambda key: make(text).remap(POS, key=key, train=True)))
    return np.asarray(remap(jax.random.split(jax.random.key(0), KEYS)), np.float64)


def assert_uniform(sample, low, high):
    sample = np.sort(sample.ravel())
    assert low <= sample[0] < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < sample[-1] <= high
    expected = np.linspace(low, high, sample.size)
    assert np.abs(sample - expected).max() < 2.5 * (high - low) / np.sqrt(sample.size)


def test_global_shift():
    shift = draws('cape(max_global=7, max_local=0, max_scale=1)') - np.arange(LENGTH)
    np.testing.assert_allclose(shift, np.broadcast_to(shift[..., :1], shift.shape), atol=1e-5)
    assert_uniform(shift[..., 0], -7, 7)
    assert np.abs(np.corrcoef(shift[:, :, 0].T)[0, 1]) < 0.1


def test_local_shift():
    drawn = draws('cape(max_global=0, max_local=0.5, max_scale=1)')
    jitter = drawn - np.arange(LENGTH)
    assert_uniform(jitter, -0.5, 0.5)
    correlation = np.corrcoef(jitter.reshape(KEYS, -1).T)
    assert np.abs(correlation - np.eye(2 * LENGTH)).max() < 0.1
    assert np.all(np.diff(drawn) > 0)


def test_scale():
    drawn = draws('cape(max_global=0, max_local=0, max_scale=2)')
    np.testing.assert_allclose(drawn, drawn[..., 1:2] * np.arange(LENGTH), rtol=1e-6)
    assert_uniform(np.log(drawn[..., 1]), -np.log(2), np.log(2))


def test_shifts_are_scaled_too():
    """(p + g) exp(s): the position 0 goes up to max_global max_scale."""
    drawn = draws('cape(max_global=10, max_local=0, max_scale=2)')
    scale = drawn[..., 1] - drawn[..., 0]
    assert_uniform(drawn[..., 0] / scale, -10, 10)
    assert 15 < drawn[..., 0].max() <= 20


def test_the_defaults():
    drawn = draws('cape')
    assert -5.5 * 1.03 <= drawn.min() < -5
    assert LENGTH - 1 + 5 < drawn.max() <= (LENGTH - 1 + 5.5) * 1.03
    assert make('cape').extent(LENGTH) == 12


@pytest.mark.parametrize('centre', [False, True])
def test_evaluation_draws_nothing(centre):
    valid = jnp.array([[True] * 6, [True] * 3 + [False] * 3])
    out = make(f'cape(centre={centre})').remap(POS, valid=valid)
    assert out.dtype == jnp.float32
    mean = np.array([[2.5], [1.0]]) if centre else np.zeros((2, 1))
    np.testing.assert_array_equal(out, np.arange(LENGTH) - mean)


def test_centred_sequences_are_shifted_around_zero():
    drawn = draws('cape(max_global=0, max_local=0, max_scale=2, centre=True)')
    np.testing.assert_allclose(drawn.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(drawn[..., 0] / drawn[..., 2], 5, rtol=1e-5)


def test_off_is_the_identity():
    np.testing.assert_array_equal(draws('cape(0, 0, 1)')[0], POS)


@pytest.mark.parametrize('centre', [False, True])
def test_padding_does_not_move_real_tokens(centre):
    scheme, key = make(f'cape(centre={centre})'), jax.random.key(5)
    alone = scheme.remap(POS[:, :4], key=key, train=True)
    valid = jnp.broadcast_to(jnp.arange(9) < 4, (2, 9))
    right = scheme.remap(jnp.broadcast_to(jnp.arange(9), (2, 9)), valid=valid, key=key, train=True)
    np.testing.assert_array_equal(right[:, :4], alone)
    left = scheme.remap(jnp.cumsum(valid[:, ::-1], -1) - 1, valid=valid[:, ::-1], key=key, train=True)
    np.testing.assert_array_equal(left[:, 5:], alone)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('cape(max_global=-1)', 'max_global must be from 0 to'),
        ('cape(max_local=-0.5)', 'max_local must be from 0 to'),
        ('cape(max_scale=0.9)', 'max_scale must be at least 1, not 0.9'),
    ],
)
def test_bad_ranges_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        make(text)


def test_a_draw_needs_a_key():
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make('cape').remap(POS, train=True)
