"""SHAPE: one shift per sequence, uniform on {0 .. max_shift}, in training only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.model.encoder import Encoder
from mha.positions import Dims
from mha.spec import UserError

POS = jnp.broadcast_to(jnp.arange(6), (3, 6))


def make(text='shape(max_shift=9)'):
    return positions.make(text, Dims(16, 2, 8, max_len=6), rngs=nnx.Rngs(0))


def test_one_uniform_shift_per_sequence():
    keys = 2000
    remap = jax.jit(jax.vmap(lambda key: make().remap(POS, key=key, train=True)))
    shift = np.asarray(remap(jax.random.split(jax.random.key(0), keys))) - np.asarray(POS)
    assert np.all(shift == shift[..., :1])
    counts = np.bincount(shift[:, :, 0].ravel(), minlength=10)
    assert counts.shape == (10,)
    assert np.abs(counts - 3 * keys / 10).max() < 5 * np.sqrt(3 * keys * 0.1 * 0.9)
    assert np.mean(shift[:, 0] == shift[:, 1]) < 0.15


@pytest.mark.parametrize('pos', [POS, POS + 0.25], ids=['whole', 'real'])
def test_evaluation_starts_at_zero(pos):
    np.testing.assert_array_equal(make().remap(pos), pos)
    shifted = make().remap(pos, key=jax.random.key(1), train=True)
    assert shifted.dtype == pos.dtype
    np.testing.assert_array_equal(shifted - shifted[:, :1], pos - pos[:, :1])


def test_shifts_within_the_longest_sequence():
    """Uniform on {0 .. max_len - T}, where T counts real tokens; 0 for a sequence that is as long or longer."""
    real, keys = jnp.asarray([2, 4, 6]), jax.random.split(jax.random.key(0), 600)
    scheme, valid = make("shape(max_shift='room')"), jnp.arange(6)[None] < real[:, None]
    remap = jax.jit(jax.vmap(lambda key: scheme.remap(POS, valid=valid, key=key, train=True)))
    shifted = np.asarray(remap(keys))
    assert shifted.max() == 5  # padding stays within the table too
    shift = shifted[..., 0]
    for row, most in zip(shift.T, 6 - np.asarray(real), strict=True):
        counts = np.bincount(row, minlength=most + 1)
        assert len(counts) == most + 1
        assert np.abs(counts - 600 / (most + 1)).max() < 5 * np.sqrt(600 / (most + 1))
    longer = jnp.arange(9)[None]
    np.testing.assert_array_equal(scheme.remap(longer, key=keys[0], train=True), longer)
    chain = make("shape(max_shift='room')|learned")
    assert chain.extent(4) == chain.extent(6) == 6
    with pytest.raises(ValueError, match='6 rows for 7 positions'):
        chain.extent(7)


def logits(position, train):
    """Of an encoder without dropout, whose weights are the same whatever the position."""
    encoder = Encoder(
        vocab_size=9, num_classes=3, max_len=8, layers=2, dim=16, heads=2, position=position, mlp='none',
        dropout_rate=0.0, rngs=nnx.Rngs(0),
    )  # fmt: skip
    tokens = jax.random.randint(jax.random.key(1), (4, 8), 0, 9)
    return encoder(tokens, train=train, rngs=nnx.Rngs(3))


def test_a_relative_scheme_ignores_the_shift():
    np.testing.assert_allclose(logits('shape|rope', True), logits('rope', True), atol=1e-5)


def test_an_absolute_scheme_sees_the_shift_in_training_only():
    plain = logits('sincos', True)
    assert np.abs(logits('shape|sincos', True) - plain).max(axis=(1, 2)).min() > 0.1
    np.testing.assert_allclose(logits('shape|sincos', False), plain, atol=1e-6)


def test_a_table_behind_it_holds_every_shift():
    chain = make('shape(max_shift=9)|learned')
    assert chain.extent(6) == 15
    assert np.isfinite(chain.embed(jnp.zeros((3, 6, 16)), POS + 9)).all()


def test_errors():
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make().remap(POS, train=True)
    with pytest.raises(UserError, match='max_shift must be at least 0, not -1'):
        make('shape(max_shift=-1)')
    with pytest.raises(UserError, match='max_shift'):
        make("shape(max_shift='rooms')")
