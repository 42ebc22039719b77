"""Llama 3.1's rotary embedding against its three cases of wavelength, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError
from tests.positions.rotation import turned

SETTINGS = [
    dict(),
    dict(original_length=64, theta=100.0),
    dict(original_length=64, theta=100.0, scale=3, layout='interleaved'),
    dict(original_length=300, scale=32, low=2, high=8),
    dict(original_length=64, fraction=0.5, theta=100.0),
    dict(scale=1),
]


def spec(settings):
    return f'llama3({", ".join(f"{key}={value!r}" for key, value in settings.items())})'


def make(text, head_dim=8, max_len=256, causal=False):
    return positions.make(text, Dims(24, 4, head_dim, max_len, causal), rngs=nnx.Rngs(0))


def oracle(scale=8, low=1, high=4, original_length=8192, theta=10000.0, fraction=1.0, **_):
    width, out = int(8 * fraction), []
    for m in range(width // 2):
        f = theta ** (-2 * m / width)
        wavelength = 2 * np.pi / f
        if wavelength > original_length / low:
            out.append(f / scale)
        elif wavelength < original_length / high:
            out.append(f)
        else:
            u = (original_length / wavelength - low) / (high - low)
            out.append((1 - u) * f / scale + u * f)
    return np.array(out)


@pytest.mark.parametrize('settings', SETTINGS, ids=spec)
def test_weights(settings, case):
    logits = sum(turned(case.q, case.k, case.offset, oracle(**settings), settings.get('layout', 'half')))
    case.check(case.make(spec(settings)), logits)


def test_a_pair_for_every_case():
    """Kept, between and slowed down by the scale."""
    ratio = np.array(make('llama3(original_length=64, theta=100.0)').frequencies) * 100.0 ** (np.arange(4) / 4)
    assert ratio[0] == 1
    assert 1 > ratio[1] > ratio[2] > 1 / 8
    assert ratio[3] == pytest.approx(1 / 8, rel=1e-12)


def test_far_positions():
    """A turned vector is off by less than 1e-5 at a million; a product of float32 numbers would be off by 0.06."""
    scheme = make('llama3(original_length=64)')
    pos = np.array([1_000, 12_345, 100_000, 1_000_000])
    out = np.asarray(scheme.turn(jnp.ones((1, 4, 1, 8)), jnp.asarray(pos)[None]), np.float64)[0, :, 0]
    expected = (1 + 1j) * np.exp(1j * pos[:, None] * oracle(original_length=64))
    np.testing.assert_allclose(out[:, :4] + 1j * out[:, 4:], expected, atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('llama3(scale=0)', 'at least 1'),
        ('llama3(original_length=0)', 'at least 1'),
        ('llama3(low=4, high=4)', 'high must be above low'),
        ('llama3(low=0)', 'low must be above 0'),
        ('llama3(theta=-1)', 'theta must be above 0'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)
