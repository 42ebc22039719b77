"""Positions for some heads: the first heads are those of the inner scheme, the others those of 'none'."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError

DIMS = Dims(24, 4, 8, max_len=32, causal=True)


def make(text):
    return positions.make(text, DIMS, rngs=nnx.Rngs(0))


def weights(scheme):
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((2, 9, 4, 8)), jnp.float32) for _ in range(2))
    x, mask = jnp.asarray(rng.standard_normal((2, 9, 24)), jnp.float32), masks.causal()
    coords = Coords(q_pos=jnp.arange(9)[None], k_pos=jnp.arange(9)[None], visible=mask.count(9, 9), x=x)
    options = dict(position=scheme, coords=coords, mask=mask, scale=8**-0.5)
    return np.asarray(dense.weights(*scheme.qk(q, k, coords), **options))


@pytest.mark.parametrize('inner', ['rope', 'alibi', 'fox', 'cope(p_max=4)', 'ssmax|t5'])
def test_some_heads_have_positions(inner):
    scheme, plain, whole = make(f'heads(1)|{inner}'), weights(make('none')), weights(make(inner))
    if inner.startswith('cope'):  # whose table starts at zero
        whole = weights(_moved(make(inner)))
        scheme = _moved(scheme)
    found = weights(scheme)
    np.testing.assert_allclose(found[:, :1], whole[:, :1], atol=1e-6)
    np.testing.assert_allclose(found[:, 1:], plain[:, 1:], atol=1e-6)
    assert np.abs(whole - plain)[:, :1].max() > 0.01


def _moved(scheme):
    inner = getattr(scheme, 'inner', scheme)
    inner.e[...] = jnp.ones_like(inner.e[...]) * jnp.arange(4)[:, None]
    return scheme


def test_half_of_the_heads_by_default():
    np.testing.assert_array_equal(weights(make('heads|rope')), weights(make('heads(2)|rope')))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('heads(5)|rope', 'count must be at most 4, the number of all heads, not 5'),
        ('heads|learned', "has a 'embed' hook"),
        ('heads|stickbreaking', "has a 'weights' hook"),
        ('heads|randomize_offsets|alibi', 'draws more than coordinates'),
    ],
)
def test_refusals(text, words):
    with pytest.raises(UserError, match=words):
        make(text)
