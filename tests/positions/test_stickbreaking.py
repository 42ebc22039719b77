"""Stick-breaking attention against the process of Tan et al. (2024), section 2: break pieces off a stick, one key after
the other, back from the query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.positions.cases import causal_cases


def oracle(logits, allowed, remainder):
    """Weights [.., T, S] in float64 with explicit sticks; the last visible key of a row is the query's own."""
    logits, allowed = np.broadcast_arrays(np.asarray(logits, np.float64), allowed)
    out = np.zeros_like(logits)
    for row in np.ndindex(logits.shape[:-1]):
        seen = np.flatnonzero(allowed[row])
        stick = 1.0
        for j in seen[-2::-1]:
            share = 1 / (1 + np.exp(-logits[row][j]))
            out[row][j] = share * stick
            stick *= 1 - share
        if remainder == 'self' and len(seen):
            out[row][seen[-1]] = stick
    return out


def make(text='stickbreaking', causal=True):
    return positions.make(text, Dims(24, 2, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


@causal_cases
@pytest.mark.parametrize('remainder', ['zero', 'self'])
def test_weights(remainder, case):
    scheme = case.make(f'stickbreaking(remainder={remainder!r})')
    q, k = jnp.asarray(case.q, jnp.float32), jnp.asarray(case.k, jnp.float32)
    v = case.draw('v', 2, 13, case.heads, 8)
    pos = jnp.asarray(case.pos)[None]
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.arange(1, 14)[None], x=jnp.zeros((2, 13, 24)))
    options = dict(position=scheme, coords=coords, mask=masks.causal())
    weights = dense.weights(q, k, scale=8**-0.5, **options)
    expected = oracle(case.dot(), np.tri(13, dtype=bool), remainder)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    out = cores.attend(q, k, jnp.asarray(v, jnp.float32), **options)
    np.testing.assert_allclose(out, np.einsum('bhts,bshk->bthk', expected, v), atol=1e-5)
    total = 1 if remainder == 'self' else 1 - np.prod(1 - 1 / (1 + np.exp(-case.dot()[..., 12, :12])), -1)
    np.testing.assert_allclose(weights[..., 12, :].sum(-1), total, atol=1e-6)
    np.testing.assert_allclose(weights[..., 0, 0], remainder == 'self')


@pytest.mark.parametrize('remainder', ['zero', 'self'])
def test_hidden_keys_leave_the_stick_alone(remainder):
    """Padding on either side, a hole, a row of one key and a row of none."""
    allowed = np.tri(9, dtype=bool) & np.array([0, 1, 1, 0, 1, 1, 1, 0, 0], bool)
    logits = 3 * np.random.default_rng(0).standard_normal((2, 2, 9, 9)).astype(np.float32)
    logits[..., ~allowed[-1]] = 1e4
    scheme = make(f'stickbreaking(remainder={remainder!r})')
    weights = scheme.weights(jnp.asarray(logits), jnp.asarray(allowed)[None, None], jnp.zeros((2, 9, 2, 8)), None)
    np.testing.assert_allclose(weights, oracle(logits, allowed, remainder), atol=1e-6)


@pytest.mark.parametrize('scale', [1, 30, 1e4])
def test_long_rows_with_gates_near_zero_and_one(scale):
    """Four rows of 4096 keys against cumulative products of 1 - beta = sigmoid(-z) in float64."""
    last = np.arange(4092, 4096)[:, None]
    z = scale * np.random.default_rng(1).uniform(-1, 0.1, (1, 1, 4, 4096)).astype(np.float32)
    mask, q = jnp.asarray(np.arange(4096) <= last)[None, None], jnp.zeros((1, 4, 1, 8))
    weights, pullback = jax.vjp(lambda z: make().weights(z, mask, q, None), jnp.asarray(z))
    exponent = np.where(np.arange(4096) < last, z.astype(np.float64), -np.inf)
    left = np.exp(-np.logaddexp(0, exponent))[..., ::-1].cumprod(-1)[..., ::-1]
    after = np.concatenate([left[..., 1:], np.ones_like(left[..., :1])], -1)
    np.testing.assert_allclose(weights, np.exp(-np.logaddexp(0, -exponent)) * after, atol=1e-6)
    assert np.isfinite(pullback(jnp.broadcast_to(jnp.arange(4096.0), z.shape))[0]).all()


def test_needs_a_causal_model():
    with pytest.raises(UserError, match='causal attention only'):
        make(causal=False)
