"""NTK-aware rotary embedding against its formula in float64, static and by the number of visible keys."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.positions.rotation import turned


def spec(settings):
    return f'ntk({", ".join(f"{key}={value!r}" for key, value in settings.items())})'


def make(text, head_dim=8, max_len=256, causal=False):
    return positions.make(text, Dims(24, 4, head_dim, max_len, causal), rngs=nnx.Rngs(0))


def oracle(scale, theta=10000.0, width=8):
    return (theta * scale ** (width / (width - 2))) ** (-2 * np.arange(width // 2) / width)


@pytest.mark.parametrize(
    ('settings', 'f'),
    [
        (dict(scale=4), oracle(4)),
        (dict(scale=1), oracle(1)),
        (dict(scale=2.5, theta=500.0, layout='interleaved'), oracle(2.5, 500.0)),
        (dict(scale=8, fraction=0.5), oracle(8, width=4)),
        # the cases have 13 keys
        (dict(dynamic=True, original_length=5), oracle(13 / 5)),
        (dict(dynamic=True, original_length=5, scale=2), oracle(2 * 13 / 5 - 1)),
        (dict(dynamic=True, original_length=4, scale=3, fraction=0.5, theta=50.0), oracle(3 * 13 / 4 - 2, 50.0, 4)),
        (dict(dynamic=True, original_length=13, scale=3), oracle(1)),
        (dict(dynamic=True, original_length=64, scale=3, layout='interleaved'), oracle(1)),
    ],
    ids=lambda x: spec(x) if isinstance(x, dict) else '',
)
def test_weights(settings, f, case):
    logits = sum(turned(case.q, case.k, case.offset, f, settings.get('layout', 'half')))
    case.check(case.make(spec(settings)), logits, atol=2e-5)


def test_the_slowest_pair_slows_down_by_the_scale_and_the_fastest_not_at_all():
    slow, plain = make('ntk(scale=4)').frequencies, make('rope').frequencies
    assert slow[0] == plain[0]
    assert slow[-1] == pytest.approx(plain[-1] / 4, rel=1e-12)


def test_every_row_counts_its_own_keys():
    """Padding does not count: n is the number of tokens of the row, whatever a query can see of them."""
    scheme, rows = make('ntk(dynamic=True, original_length=5)'), (4, 9)
    place, (query, key) = np.arange(0, 195, 15), np.random.default_rng(0).standard_normal((2, 2, 13, 4, 8))
    pos = jnp.asarray(place)[None]
    tokens, x = jnp.asarray(rows), jnp.zeros((2, 13, 24))
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.ones((1, 13)), x=x, tokens=tokens)
    q, k = scheme.qk(jnp.asarray(query, jnp.float32), jnp.asarray(key, jnp.float32), coords)
    for row, n in enumerate(rows):
        turn = np.exp(1j * place[:, None] * oracle(max(n / 5, 1)))[:, None]
        for found, x in ((np.asarray(q[row], np.float64), query[row]), (np.asarray(k[row], np.float64), key[row])):
            expected = (x[..., :4] + 1j * x[..., 4:]) * turn
            np.testing.assert_allclose(found[..., :4] + 1j * found[..., 4:], expected, atol=1e-4)


def test_far_positions():
    """A turned vector is off by less than 1e-5 at a million; a product of float32 numbers would be off by 0.06."""
    scheme = make('ntk(scale=4)')
    pos = np.array([1_000, 12_345, 100_000, 1_000_000])
    out = np.asarray(scheme.turn(jnp.ones((1, 4, 1, 8)), jnp.asarray(pos)[None]), np.float64)[0, :, 0]
    expected = (1 + 1j) * np.exp(1j * pos[:, None] * oracle(4))
    np.testing.assert_allclose(out[:, :4] + 1j * out[:, 4:], expected, atol=1e-5)


@pytest.mark.parametrize(('n', 'atol'), [(64, 1e-5), (1000, 0.1)])
def test_far_positions_of_the_dynamic_form(n, atol):
    """Exact up to the trained length; beyond it the angle is off by about 1e-7 p."""
    scheme = make('ntk(dynamic=True, original_length=64)')
    pos = np.array([1_000, 12_345, 100_000, 1_000_000])
    angle = np.asarray(scheme.slowed(jnp.asarray(pos)[None], jnp.asarray([n / 64]))[0], np.float64)
    off = np.abs(np.exp(1j * angle) - np.exp(1j * pos[:, None] * oracle(n / 64))).max(-1)
    assert (off <= atol * pos / 1e6 if n > 64 else off <= atol).all()


@pytest.mark.parametrize(
    ('text', 'head_dim', 'message'),
    [
        ('ntk', 8, 'needs scale'),
        ('ntk(scale=0.5)', 8, 'at least 1'),
        ('ntk(scale=0)', 8, 'at least 1'),
        ('ntk(dynamic=True)', 8, 'give both or neither'),
        ('ntk(scale=2, original_length=64)', 8, 'give both or neither'),
        ('ntk(dynamic=True, original_length=0)', 8, 'at least 1'),
        ('ntk(scale=2)', 2, 'single pair'),
        ('ntk(scale=2, fraction=0.25)', 8, 'single pair'),
    ],
)
def test_errors(text, head_dim, message):
    with pytest.raises(UserError, match=message):
        make(text, head_dim)
