"""LongRoPE against its formula in float64: a factor per frequency, the growth of the logits, short and long factors."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.positions.rotation import turned

LONG, SHORT = (1.0, 1.7, 4.2, 9.0), (1.0, 1.1, 1.3, 1.2)


def spec(settings):
    return f'longrope({", ".join(f"{key}={value!r}" for key, value in settings.items())})'


def make(text, head_dim=8, max_len=256, causal=False):
    return positions.make(text, Dims(24, 4, head_dim, max_len, causal), rngs=nnx.Rngs(0))


def oracle(factors, theta=10000.0):
    width = 2 * len(factors)
    return np.array([theta ** (-2 * m / width) / factor for m, factor in enumerate(factors)])


@pytest.mark.parametrize(
    ('settings', 'factors'),
    [
        (dict(factors=LONG, scale=4, original_length=64), LONG),
        (dict(factors=LONG, scale=1, original_length=64, theta=50.0, layout='interleaved'), LONG),
        (dict(factors=(1.5, 3), scale=16, original_length=2048, fraction=0.5), (1.5, 3)),
        # the cases have 13 keys
        (dict(factors=LONG, scale=4, original_length=12, short_factors=SHORT), LONG),
        (dict(factors=LONG, scale=4, original_length=13, short_factors=SHORT), SHORT),
    ],
    ids=lambda x: spec(x) if isinstance(x, dict) else '',
)
def test_weights(settings, factors, case):
    f = oracle(factors, settings.get('theta', 10000.0))
    growth = 1 + np.log(settings['scale']) / np.log(settings['original_length'])
    pairs, rest = turned(case.q, case.k, case.offset, f, settings.get('layout', 'half'))
    case.check(case.make(spec(settings)), growth * pairs + rest, atol=2e-5)


def test_every_row_counts_its_own_keys():
    """Padding does not count: the short factors serve the row with few tokens, the long ones the other."""
    scheme = make(f'longrope(factors={LONG}, scale=1, original_length=5, short_factors={SHORT})')
    place, (query, key) = np.arange(0, 195, 15), np.random.default_rng(0).standard_normal((2, 2, 13, 4, 8))
    pos = jnp.asarray(place)[None]
    tokens, x = jnp.asarray([5, 6]), jnp.zeros((2, 13, 24))
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.ones((1, 13)), x=x, tokens=tokens)
    q, k = scheme.qk(jnp.asarray(query, jnp.float32), jnp.asarray(key, jnp.float32), coords)
    for row, factors in enumerate((SHORT, LONG)):
        turn = np.exp(1j * place[:, None] * oracle(factors))[:, None]
        for found, x in ((np.asarray(q[row], np.float64), query[row]), (np.asarray(k[row], np.float64), key[row])):
            expected = (x[..., :4] + 1j * x[..., 4:]) * turn
            np.testing.assert_allclose(found[..., :4] + 1j * found[..., 4:], expected, atol=1e-4)


def test_far_positions():
    """A turned vector is off by less than 1e-5 at a million; a product of float32 numbers would be off by 0.06."""
    scheme = make('longrope(factors=(1, 1.7, 4.2, 9), scale=4, original_length=64)')
    pos = np.array([1_000, 12_345, 100_000, 1_000_000])
    out = np.asarray(scheme.turn(jnp.ones((1, 4, 1, 8)), jnp.asarray(pos)[None]), np.float64)[0, :, 0]
    expected = np.sqrt(1 + np.log(4) / np.log(64)) * (1 + 1j) * np.exp(1j * pos[:, None] * oracle(LONG))
    np.testing.assert_allclose(out[:, :4] + 1j * out[:, 4:], expected, atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('longrope(factors=(1, 2), scale=4, original_length=64)', 'factors must be 4 numbers above 0'),
        ('longrope(factors=(1, 2, 3, 0), scale=4, original_length=64)', 'factors must be 4 numbers above 0'),
        ("longrope(factors=(1, 2, 3, 'x'), scale=4, original_length=64)", 'factors must be a list of numbers'),
        (f'longrope(factors={LONG}, scale=4, original_length=64, short_factors=(1,))', 'short_factors must be 4'),
        (f'longrope(factors={LONG}, scale=0.5, original_length=64)', 'scale must be at least 1'),
        (f'longrope(factors={LONG}, scale=4, original_length=1)', 'original_length must be at least 2, not 1'),
        ('longrope', "needs 'factors'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)
