"""Dual chunk attention against complex numbers in float64, turned by the paper's three tables of positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.positions.cases import causal_cases
from tests.positions.rotation import turned

SETTINGS = [
    dict(chunk=6, window=4),
    dict(chunk=4, window=4),
    dict(chunk=5, window=1, theta=100.0, layout='interleaved'),
    dict(chunk=40, window=25),
    dict(chunk=3, window=2, fraction=0.5),
    dict(chunk=1, window=0),
    dict(chunk=1000, window=100),
]


def spec(settings):
    return f'dca({", ".join(f"{key}={value!r}" for key, value in settings.items())})'


def make(text, max_len=256):
    return positions.make(text, Dims(24, 4, 8, max_len, causal=True), rngs=nnx.Rngs(0))


def frequencies(theta=10000.0, fraction=1.0):
    width = int(8 * fraction)
    return theta ** (-2 * np.arange(width // 2) / width)


def distance(i, j, chunk, window):
    """P_q - P_k: within a chunk, in successive chunks, and across chunks."""
    longest, r_i, r_j = chunk + window, i % chunk, j % chunk
    apart = i // chunk - j // chunk
    if apart == 0:
        return r_i - r_j
    if apart == 1:
        return min(r_i + chunk, longest - 1) - r_j
    return longest - 1 - r_j


@causal_cases
@pytest.mark.parametrize('settings', SETTINGS, ids=spec)
def test_weights(settings, case):
    rotary = {key: settings[key] for key in ('theta', 'fraction') if key in settings}
    own = {key: settings[key] for key in settings if key not in ('theta', 'fraction', 'layout')}
    offset = np.array([[distance(i, j, **own) if j <= i else 0 for j in case.pos] for i in case.pos])
    logits = sum(turned(case.q, case.k, offset, frequencies(**rotary), settings.get('layout', 'half')))
    case.check(case.make(spec(settings)), logits, atol=2e-5)


def logits(scheme, q, k, pos):
    """In float32, or what bfloat16 queries and keys make of it."""
    pos = jnp.asarray(pos)[None]
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.ones_like(pos), x=jnp.zeros((*q.shape[:2], 24)))
    q, k = scheme.qk(q, k, coords)
    near = jnp.einsum('bthk,bshk->bhts', q, k, preferred_element_type=jnp.float32) / np.sqrt(8)
    return near + scheme.content(q, k, pos, pos)


@pytest.mark.parametrize(
    ('start', 'dtype', 'atol'), [(0, 'float32', 1e-5), (1_000_000, 'float32', 5e-5), (1_000_000, 'bfloat16', 0.1)]
)
def test_far_positions(start, dtype, atol):
    """Turning forth and back by exact angles is off by less than 5e-5 at a million."""
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 40, 4, 8)), dtype) for _ in range(2))
    pos = start + np.arange(40)
    offset = np.array([[distance(i, j, chunk=6, window=4) if j <= i else 0 for j in pos] for i in pos])
    expected, _ = turned(np.asarray(q, np.float64), np.asarray(k, np.float64), offset, frequencies())
    past = np.tril(np.ones((40, 40), bool))
    found = logits(make('dca(chunk=6, window=4)'), q, k, pos)
    np.testing.assert_allclose(found[..., past], expected[..., past], atol=atol)


def test_rotary_embedding_up_to_the_trained_length():
    """Nothing is added there, not even rounding; one token more changes a logit."""
    scheme = make('dca(chunk=9)')
    q, k = (jax.random.normal(jax.random.key(i), (1, 12 + 1, 4, 8)) for i in range(2))
    pos = jnp.arange(12 + 1)[None]
    found = np.tril(scheme.content(q, k, pos, pos))
    assert np.abs(found[..., :-1, :]).max() == 0
    assert np.abs(found[..., -1, :]).max() > 0.01


def test_other_channels_and_scales():
    """Channels that later schemes append do not count; the differences of scaled queries are scaled."""
    scheme, pos = make('dca(chunk=6, window=4)'), jnp.arange(0, 40, 3)[None]
    q, k = (jax.random.normal(jax.random.key(i), (1, 14, 4, 8)) for i in range(2))
    plain = scheme.content(q, k, pos, pos)
    wide_q, wide_k = (jnp.concatenate([x, 100 * x[..., :3]], -1) for x in (q, k))
    np.testing.assert_allclose(scheme.content(wide_q, wide_k, pos, pos), plain, atol=1e-6)
    np.testing.assert_allclose(scheme.content(3 * q, k, pos, pos), 3 * plain, atol=1e-5)


def test_the_window_is_a_third_of_the_chunk():
    """Chunks of 3/4 of the trained length, as in the paper: 3072 of 4096."""
    assert make('dca(chunk=3072)').last == 4095


def test_the_released_code():
    """Its three tables of positions, of trained length L: chunks of s = 3/4 L - L/8, queries clamped at 3/4 L."""
    for trained in (8, 16, 24):
        last, size = trained * 3 // 4, trained * 3 // 4 - trained // 8
        settings = dict(chunk=trained * 5 // 8, window=trained // 8 + 1)
        intra, successive = np.arange(size), np.minimum(np.arange(size) + size, last)
        tables = (intra, successive, np.full(size, successive[size - 1]))
        for i, j in zip(*np.tril_indices(4 * trained), strict=True):
            released = tables[min(i // size - j // size, 2)][i % size] - j % size
            assert released == distance(i, j, **settings), (trained, i, j)


def test_the_example_of_the_paper():
    """c = 10, s = 6: queries of the second chunk stand at 6, 7, 8, 9, 9, 9 for the first chunk's keys."""
    assert [distance(i, 0, 6, 4) for i in range(6, 12)] == [6, 7, 8, 9, 9, 9]
    assert [distance(i, 7, 6, 4) for i in range(18, 24)] == [8] * 6


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('dca', "needs 'chunk'"),
        ('dca(chunk=0)', 'chunk must be at least 1'),
        ('dca(chunk=4, window=5)', 'window must be at most chunk=4, not 5'),
        ('dca(chunk=4, window=-1)', 'window must be at least 0'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)


def test_causal_only():
    with pytest.raises(UserError, match='causal attention only'):
        positions.make('dca(chunk=6, window=4)', Dims(24, 4, 8, 32), rngs=nnx.Rngs(0))
