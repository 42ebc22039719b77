"""Position interpolation: p / s, for whatever scheme follows."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError


def make(text, head_dim=8, max_len=256, causal=False):
    return positions.make(text, Dims(24, 4, head_dim, max_len, causal), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('scale', [1, 2.5, 4])
def test_coordinates(scale, case):
    pos = make(f'pi(scale={scale})').remap(jnp.asarray(case.pos)[None])
    assert pos.dtype == jnp.float32
    np.testing.assert_allclose(pos[0], case.pos / scale, rtol=1e-7)


@pytest.mark.parametrize('scale', [1, 3, 8.5])
def test_slower_frequencies_are_the_same(scale, case):
    """theta_m / s at p is theta_m at p / s, the form of the paper's released code."""
    scheme = make(f'pi(scale={scale})|rope')
    pos = scheme.remap(jnp.asarray(case.pos)[None])
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.full((1, 13), 13), x=jnp.zeros((2, 13, 24)))
    q, k = scheme.qk(jnp.asarray(case.q, jnp.float32), jnp.asarray(case.k, jnp.float32), coords)
    slow = np.exp(1j * case.pos[:, None] * 10000.0 ** (-np.arange(4) / 4) / scale)[:, None]
    for found, x in ((q, case.q), (k, case.k)):
        found = np.asarray(found, np.float64)
        np.testing.assert_allclose(
            found[..., :4] + 1j * found[..., 4:], (x[..., :4] + 1j * x[..., 4:]) * slow, atol=5e-5
        )


@pytest.mark.parametrize(
    ('length', 'scale'),
    [
        pytest.param(length, scale, marks=[pytest.mark.slow] * (length != 9 and scale in (1, 2, 4)))
        for length in (1, 2, 8, 9, 10)
        for scale in (1, 2, 3, 4, 7.5)
    ],
)
def test_a_table_has_the_rows_that_are_read(length, scale):
    """A row that is missing reads NaN; one row more is room for rounding."""
    scheme = make(f'pi(scale={scale})|learned', max_len=length)
    out = scheme.embed(jnp.zeros((1, length, 24)), scheme.remap(jnp.arange(length)[None]))
    assert np.isfinite(out).all()
    assert scheme.parts[1].table.shape[0] <= length / scale + 2


def test_far_positions():
    """The quotient has 24 bits: 0.03 at most at a million."""
    pos = np.array([999_999, 1_000_000])
    found = np.asarray(make('pi(scale=3)').remap(jnp.asarray(pos)[None])[0], np.float64)
    np.testing.assert_allclose(found, pos / 3, rtol=2**-24)


@pytest.mark.parametrize('text', ['pi(scale=0)', 'pi(scale=-2)', 'pi(scale=0.5)'])
def test_errors(text):
    with pytest.raises(UserError, match='scale must be at least 1'):
        make(text)


def test_the_scale_is_required():
    with pytest.raises(UserError, match="needs 'scale'"):
        make('pi')
