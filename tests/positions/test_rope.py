"""Rotary embedding against complex multiplication in float64: (u + i w) e^(i p f)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError


def oracle(x, pos, theta=10000.0, fraction=1.0, layout='half'):
    """x [B, T, H, K] with each pair of its first `fraction` channels turned by p theta^(-2m/R)."""
    x = np.array(x, np.float64)
    width = int(fraction * x.shape[-1])
    for m in range(width // 2):
        u, w = (m, m + width // 2) if layout == 'half' else (2 * m, 2 * m + 1)
        turned = (x[..., u] + 1j * x[..., w]) * np.exp(1j * np.asarray(pos)[:, None] * theta ** (-2 * m / width))
        x[..., u], x[..., w] = turned.real, turned.imag
    return x


SETTINGS = [
    dict(),
    dict(layout='interleaved'),
    dict(theta=500.0),
    dict(fraction=0.5),
    dict(fraction=0.25, layout='interleaved', theta=1e6),
]


def spec(settings):
    return f'rope({", ".join(f"{key}={value!r}" for key, value in settings.items())})'


def make(text, head_dim=8):
    return positions.make(text, Dims(24, 4, head_dim, max_len=32), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('settings', SETTINGS, ids=spec)
def test_weights(settings, case):
    q, k = oracle(case.q, case.pos, **settings), oracle(case.k, case.pos, **settings)
    case.check(case.make(spec(settings)), case.dot(q, k))


@pytest.mark.parametrize('settings', SETTINGS, ids=spec)
def test_rotation_itself(settings, case):
    out = make(spec(settings)).turn(jnp.asarray(case.q, jnp.float32), jnp.asarray(case.pos)[None])
    np.testing.assert_allclose(out, oracle(case.q, case.pos, **settings), atol=5e-5)


def test_queries_and_keys_use_their_own_positions(case):
    """Cross-attention: the two sides have other lengths and other coordinates."""
    q, k = case.q[:, :5], case.k
    q_pos, k_pos = case.pos[3:8], case.pos[::-1]
    coords = Coords(
        q_pos=jnp.asarray(q_pos)[None],
        k_pos=jnp.asarray(k_pos.copy())[None],
        visible=jnp.full((1, 5), 13),
        x=jnp.zeros((2, 5, 24)),
    )
    new_q, new_k = make('rope').qk(jnp.asarray(q, jnp.float32), jnp.asarray(k, jnp.float32), coords)
    np.testing.assert_allclose(new_q, oracle(q, q_pos), atol=5e-5)
    np.testing.assert_allclose(new_k, oracle(k, k_pos), atol=5e-5)


def test_the_layouts_are_one_function_after_a_permutation_of_channels(case):
    x, pos = jnp.asarray(case.q, jnp.float32), jnp.asarray(case.pos)[None]
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    interleaved = make("rope(layout='interleaved')").turn(x, pos)
    np.testing.assert_allclose(make('rope').turn(x[..., order], pos), interleaved[..., order], atol=1e-5)


def test_far_positions():
    """A product of float32 numbers would be off by 0.06 at a million."""
    pos = np.array([1_000, 12_345, 100_000, 1_000_000])
    x = np.ones((1, 4, 1, 16))
    out = make('rope', head_dim=16).turn(jnp.asarray(x, jnp.float32), jnp.asarray(pos)[None])
    np.testing.assert_allclose(out, oracle(x, pos), atol=1e-5)


def test_bfloat16_inputs_turn_by_float32_angles():
    pos = np.arange(1000, 2000, 37)
    x = np.random.default_rng(0).standard_normal((1, len(pos), 2, 8))
    x = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    out = make('rope').turn(jnp.asarray(x, jnp.bfloat16), jnp.asarray(pos)[None])
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float64), oracle(x, pos), atol=2e-2)


@pytest.mark.parametrize(
    ('text', 'head_dim', 'message'),
    [
        ('rope', 7, 'even'),
        ('rope(fraction=0.5)', 6, 'is 3 channels'),
        ('rope(fraction=0.0)', 8, 'fraction must be above 0 and at most 1, not 0.0'),
        ('rope(fraction=0.01)', 8, 'is 0 channels'),
        ('rope(fraction=1.5)', 8, 'fraction must be above 0 and at most 1, not 1.5'),
        ('rope(fraction=-0.5)', 8, 'fraction must be above 0'),
        ("rope(layout='quarter')", 8, "layout must be 'half' or 'interleaved'"),
    ],
)
def test_errors(text, head_dim, message):
    with pytest.raises(UserError, match=message):
        make(text, head_dim)


def test_resonance_rounds_wavelengths():
    """Whole wavelengths: after one of them, an angle occurs again exactly."""
    plain, resonant = (
        positions.make(text, Dims(24, 4, 8, 64), rngs=nnx.Rngs(0)) for text in ('rope', 'rope(resonance=True)')
    )
    waves = [2 * np.pi / f for f in resonant.frequencies]
    assert [round(wave) for wave in waves] == [round(2 * np.pi / f) for f in plain.frequencies] == [6, 63, 628, 6283]
    np.testing.assert_allclose(waves, np.round(waves))


def test_imaginary_heads(case):
    """The second half of the heads has q . k at the angle p_i - p_j - pi / (2 theta), the imaginary part."""
    real, imaginary = case.heads - case.heads // 2, case.heads // 2
    angle = case.pos[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    turn = np.exp(1j * angle)[None, :, None]
    q, k = ((x[..., :4] + 1j * x[..., 4:]) * turn for x in (case.q, case.k))
    product = np.einsum('bthk,bshk->bhts', q, k.conj())
    parts = np.concatenate([product.real[:, :real], product.imag[:, real:]], axis=1) / np.sqrt(8)
    assert imaginary
    case.check(case.make('rope(imaginary=True)'), parts, atol=5e-5)


@pytest.mark.parametrize('learned', ['shared', 'head'])
def test_learned_frequencies_start_at_those_of_theta(learned):
    dims, q = Dims(24, 4, 8, 64), jax.random.normal(jax.random.key(0), (1, 9, 4, 8))
    scheme, plain = (positions.make(text, dims, rngs=nnx.Rngs(0)) for text in (f'rope(learned={learned!r})', 'rope'))
    np.testing.assert_allclose(scheme.turn(q, jnp.arange(9)[None]), plain.turn(q, jnp.arange(9)[None]), atol=1e-5)
    assert scheme.log_frequencies.shape == ({'shared': 1, 'head': 4}[learned], 4)
    scheme.log_frequencies[...] += 16 * np.log(2)  # all frequencies twice as high
    np.testing.assert_allclose(scheme.turn(q, jnp.arange(9)[None]), plain.turn(q, 2 * jnp.arange(9)[None]), atol=1e-4)
