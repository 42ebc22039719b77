"""Abacus: places within digit runs against a loop, one shift per batch, and the table that is added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.positions.abacus import places
from mha.spec import UserError

POS = jnp.array([[1, 2, 3, 0, 1, 2, 0, 0], [0, 1, 0, 1, 2, 3, 4, -1]])


def make(text='abacus(max_shift=9, max_position=40)', max_len=8):
    return positions.make(text, Dims(24, 2, 8, max_len=max_len), rngs=nnx.Rngs(0))


def oracle(is_digit):
    out = []
    for digit in is_digit:
        out.append((out[-1] if out else 0) + 1 if digit else 0)
    return out


def test_places_of_a_sum():
    """98282 + 3859172 = 2787472 with the least significant digit first, as in the paper."""
    text = '28289+2719583=2747872'
    expected = [1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(places(jnp.array([c.isdigit() for c in text])), expected)


@pytest.mark.parametrize('share', [0.0, 0.3, 0.8, 1.0])
def test_places_against_a_loop(share):
    is_digit = np.random.default_rng(0).random((3, 4, 30)) < share
    found = np.asarray(jax.jit(places)(jnp.asarray(is_digit))).reshape(12, 30)
    for row, digits in zip(found, is_digit.reshape(12, 30), strict=True):
        np.testing.assert_array_equal(row, oracle(digits))


def test_one_uniform_shift_per_batch_of_the_digits_alone():
    keys = 2000
    remap = jax.jit(jax.vmap(lambda key: make().remap(POS, key=key, train=True)))
    shift = np.asarray(remap(jax.random.split(jax.random.key(0), keys))) - np.asarray(POS)
    digits = np.asarray(POS > 0)
    np.testing.assert_array_equal(shift[:, ~digits], 0)
    assert np.all(shift[:, digits] == shift[:, digits][:, :1])
    counts = np.bincount(shift[:, 0, 0], minlength=10)
    assert counts.shape == (10,)
    assert np.abs(counts - keys / 10).max() < 5 * np.sqrt(keys * 0.1 * 0.9)


def test_evaluation_keeps_places():
    np.testing.assert_array_equal(make().remap(POS), POS)


def test_embedding(case):
    scheme = case.make('abacus(max_position=400)')
    x = case.draw('x', 2, 13, 24)
    out = scheme.embed(jnp.asarray(x, jnp.float32), jnp.asarray(case.pos)[None])
    rows = np.stack([np.asarray(scheme.table[...], np.float64)[p] for p in case.pos])
    np.testing.assert_allclose(out, x + rows, atol=1e-6)


def test_padding_and_other_tokens_read_row_zero_and_missing_rows_read_nan():
    scheme = make()
    out = scheme.embed(jnp.zeros((1, 5, 24), jnp.bfloat16), jnp.array([[-1.0, 0.0, 2.9, 39.0, 40.0]]))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[0, :4], scheme.table[...].astype(jnp.bfloat16)[jnp.array([0, 0, 3, 39])])
    assert np.isnan(out[0, 4]).all()


def test_parameters():
    assert make('abacus').table.shape == (1024, 24)
    deviation = make('abacus(init_std=0.5)').table[...].std()
    assert deviation == pytest.approx(0.5, rel=0.05)
    assert make().directed


def test_nothing_but_the_embedding():
    scheme, x = make(), jnp.ones((1, 8, 2, 8))
    coords = Coords(POS[:1], POS[:1], jnp.full((1, 8), 8), jnp.ones((1, 8, 24)))
    q, k = scheme.qk(x, x, coords)
    assert q is x
    assert k is x
    assert scheme.bias(POS, POS) is None


def test_errors():
    make('abacus(max_shift=9, max_position=18)')
    with pytest.raises(UserError, match='8 tokens, shifted by 9 needs 18 - set max_position=18 or more'):
        make('abacus(max_shift=9, max_position=17)')
    with pytest.raises(ValueError, match='needs 41'):
        make().extent(31)
    with pytest.raises(UserError, match='max_shift must be at least 0'):
        make('abacus(max_shift=-1)')
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make().remap(POS, train=True)
