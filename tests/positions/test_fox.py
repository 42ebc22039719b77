"""Forgetting attention against equation 5 of Lin et al. (2025): every bias a sum of log gates of its own, in loops."""

import dataclasses

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


def oracle(x, w, b, future=None):
    """bias [B, H, T, T]: ln f_(j+1) + .. + ln f_i for j <= i, and ln f'_(i+1) + .. + ln f'_j for j > i."""
    log_gates = -np.logaddexp(0, -(x @ w + b))
    heads = w.shape[1] // (1 if future is None else 2)
    out = np.zeros((len(x), heads, x.shape[1], x.shape[1]))
    for i, j in np.ndindex(out.shape[2:]):
        if j <= i:
            out[:, :, i, j] = log_gates[:, j + 1 : i + 1, :heads].sum(1)
        elif future:
            out[:, :, i, j] = log_gates[:, i + 1 : j + 1, heads:].sum(1)
    return out


def parameters(scheme):
    return np.asarray(scheme.w[...], np.float64), np.asarray(scheme.b[...], np.float64)


def make(text='fox', causal=True, heads=2):
    return positions.make(text, Dims(24, heads, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


def coords(x):
    pos = jnp.arange(x.shape[1])[None]
    return Coords(q_pos=pos, k_pos=pos, visible=pos + 1, x=x)


def test_weights(case):
    scheme = case.make('fox')
    assert scheme.w.shape == (24, case.heads * (1 if case.causal else 2))
    case.check(
        scheme, case.dot() + oracle(case.draw('x', 2, 13, 24), *parameters(scheme), future=not case.causal or None)
    )


def test_the_bidirectional_form_serves_a_causal_model_too(case):
    scheme = case.make('fox(causal=False)')
    case.check(scheme, case.dot() + oracle(case.draw('x', 2, 13, 24), *parameters(scheme), future=True))


@pytest.mark.parametrize(('causal', 'hook'), [(True, 'qk'), (False, 'rows')])
def test_each_form_says_which_hook_it_uses(causal, hook):
    assert [name for name in positions.HOOKS if make(causal=causal).overrides(name)] == [hook]


def test_initial_gates():
    """W x has standard deviation one for x of standard deviation one, so f is around sigmoid(b)."""
    np.testing.assert_array_equal(make().b[...], 0)
    np.testing.assert_array_equal(make('fox(bias_init=5.0)').b[...], 5)
    assert 0.8 < np.std(make(heads=32).w[...]) * 24**0.5 < 1.2


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('bias', [-8.0, 0.0, 8.0])
def test_long_sums_lose_nothing_in_the_channels(dtype, bias):
    """512 tokens of gates near 0, 1/2 and 1: bfloat16 channels by themselves would be off by 4 at c = 1000."""
    x = np.random.default_rng(0).standard_normal((1, 512, 24)).astype(np.float32)
    scheme = make(f'fox(bias_init={bias})')
    zero = jnp.zeros((1, 512, 2, 8), dtype)
    q, k = scheme.qk(zero, zero, coords(jnp.asarray(x)))
    assert (q.dtype, k.dtype) == (dtype, dtype)
    logits = np.einsum('bthw,bshw->bhts', *(np.asarray(a, np.float64) for a in (q, k))) / 8**0.5
    w, b = parameters(scheme)
    c = -np.logaddexp(0, -(x.astype(np.float64) @ w + b)).cumsum(1)
    expected = np.moveaxis(c[:, :, None] - c[:, None], -1, 1)
    np.testing.assert_allclose(logits, expected, atol=3e-6 * np.abs(c).max() + 1e-5)


@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('left', [True, False])
def test_gates_of_padding_cancel(causal, left):
    """Real tokens see the same biases with five tokens of padding on either side, whatever these hold."""
    rng = np.random.default_rng(0)
    scheme = make(causal=causal)
    x, q, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 6, 24), (1, 6, 2, 8), (1, 6, 2, 8)))
    side = (5, 0) if left else (0, 5)

    @jax.jit
    def weights(x, q, k, valid):
        mask = (masks.causal() if causal else masks.full()) & masks.padding(valid[None])
        at = coords(x)
        return dense.weights(*scheme.qk(q, k, at), position=scheme, coords=at, mask=mask, scale=8**-0.5)

    padded = [np.pad(a, [(0, 0), side] + [(0, 0)] * (a.ndim - 2), constant_values=7.0) for a in (x, q, k)]
    real = np.pad(np.ones(6, bool), side)
    expected = weights(x, q, k, np.ones(6, bool))
    np.testing.assert_allclose(np.asarray(weights(*padded, real))[:, :, real][..., real], expected, atol=2e-5)


@pytest.mark.parametrize('text', ['fox', 'fox(causal=False)', 'cable'])
def test_cross_attention_is_refused(text):
    q, k = jnp.zeros((1, 5, 2, 8)), jnp.zeros((1, 7, 2, 8))
    at = dataclasses.replace(coords(jnp.zeros((1, 5, 24))), k_pos=jnp.arange(7)[None])
    with pytest.raises(ValueError, match='5 queries meet 7 keys'):
        cores.attend(q, k, k, position=make(text), coords=at)


def test_the_causal_form_needs_a_causal_model():
    with pytest.raises(UserError, match='causal=True needs a causal model'):
        make('fox(causal=True)', causal=False)


@pytest.mark.parametrize(('text', 'std'), [('fox', 24**-0.5), ('fox(init_std=0.02)', 0.02)])
def test_initial_values(text, std):
    assert np.std(make(text, heads=400).w[...]) == pytest.approx(std, rel=0.05)
