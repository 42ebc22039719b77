"""xPos against its definition in float64: every pair of channels is turned by D f and multiplied by zeta^(D/B)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.positions.cases import causal_cases

SETTINGS = [
    dict(),
    dict(scale_base=40),
    dict(scale_base=40, gamma=0.1, layout='interleaved'),
    dict(scale_base=100, fraction=0.5, theta=100.0),
]


def spec(settings):
    return f'xpos({", ".join(f"{key}={value!r}" for key, value in settings.items())})'


def make(text, max_len=256):
    return positions.make(text, Dims(24, 4, 8, max_len, causal=True), rngs=nnx.Rngs(0))


def oracle(q, k, offset, scale_base=512, gamma=0.4, theta=10000.0, fraction=1.0, layout='half'):
    """Turning and decay are one complex power, (e^(i f) zeta^(1/B))^D."""
    n = int(4 * fraction)
    u, w = (slice(0, n), slice(n, 2 * n)) if layout == 'half' else (slice(0, 2 * n, 2), slice(1, 2 * n, 2))
    m = np.arange(n)
    base = np.exp(1j * theta ** (-m / n)) * ((m / n + gamma) / (1 + gamma)) ** (1 / scale_base)
    q_pairs, k_pairs = q[..., u] + 1j * q[..., w], k[..., u] - 1j * k[..., w]
    pairs = np.einsum('bihm,bjhm,ijm->bhij', q_pairs, k_pairs, base ** offset[..., None]).real
    return (pairs + np.einsum('bihk,bjhk->bhij', q[..., 2 * n :], k[..., 2 * n :])) / np.sqrt(q.shape[-1])


@causal_cases
@pytest.mark.parametrize('settings', SETTINGS, ids=spec)
def test_weights(settings, case):
    case.check(case.make(spec(settings)), oracle(case.q, case.k, case.offset, **settings))


def logits(scheme, q, k, pos):
    pos = jnp.asarray(pos)[None]
    coords = Coords(q_pos=pos, k_pos=pos, visible=pos + 1, x=jnp.zeros((*q.shape[:2], 24)))
    return jnp.einsum('bthk,bshk->bhts', *scheme.qk(q, k, coords), preferred_element_type=jnp.float32) / np.sqrt(8)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_longest_sequence(dtype):
    """At the limit of `extent` no logit overflows, not even one of the masked future, nor does a gradient."""
    longest = 32_695
    scheme = make('xpos', max_len=longest)
    pos = np.array([0, 1, 16_000, 16_005, longest - 3, longest - 1])
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 6, 4, 8)), dtype) for _ in range(2))
    found = logits(scheme, q, k, pos)
    assert np.isfinite(found).all()
    past = np.tril(np.ones((6, 6), bool))
    gradients = jax.grad(lambda q, k: jnp.where(past, logits(scheme, q, k, pos), 0.0).sum(), (0, 1))(q, k)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    expected = oracle(np.asarray(q, np.float64), np.asarray(k, np.float64), pos[:, None] - pos[None])
    np.testing.assert_allclose(found[..., past], expected[..., past], atol=5e-5 if dtype == 'float32' else 5e-2)


def test_far_positions():
    """A shift of a million with a base to match; angles are exact, the decay is off by 1e-5."""
    scheme = make('xpos(scale_base=20000)', max_len=1_000_100)
    pos = 1_000_000 + np.array([0, 1, 5, 30, 70, 99])
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((1, 6, 4, 8)) for _ in range(2))
    found = logits(scheme, jnp.asarray(q, jnp.float32), jnp.asarray(k, jnp.float32), pos)
    np.testing.assert_allclose(found, oracle(q, k, pos[:, None] - pos[None], 20_000), atol=5e-5)


def test_the_centre_is_fixed():
    """The length of the batch changes nothing, to the last bit: rounding does not depend on padding."""
    q, k = (jax.random.normal(jax.random.key(i), (1, 12, 4, 8)) for i in range(2))
    long, short = (logits(make('xpos(scale_base=40)'), q[:, :n], k[:, :n], np.arange(n)) for n in (12, 5))
    np.testing.assert_allclose(long[..., :5, :5], short, atol=1e-6)
    assert make('xpos').centre == 128


def test_too_long():
    with pytest.raises(UserError, match='beyond 32695 tokens - for 40000, raise scale_base to 627'):
        make('xpos', max_len=40_000)
    make('xpos(scale_base=627)', max_len=40_000)
    make('xpos', max_len=32_695)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('xpos(scale_base=0)', 'scale_base must be above 0'),
        ('xpos(gamma=0)', 'gamma must be above 0'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)


def test_causal_only():
    with pytest.raises(UserError, match='causal attention only'):
        positions.make('xpos', Dims(24, 4, 8, 32), rngs=nnx.Rngs(0))
