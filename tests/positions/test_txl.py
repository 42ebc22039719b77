"""Transformer-XL's relative encoding against Dai et al. (2019), section 3.3, with r(D) for every pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError


def encoding(offset, width, theta=10000.0):
    """r(D) = [sin(D f), cos(D f)]."""
    angle = np.asarray(offset, np.float64)[..., None] * theta ** (-np.arange(0, width, 2) / width)
    return np.concatenate([np.sin(angle), np.cos(angle)], -1)


def oracle(q, k, u, v, w, offset, theta=10000.0):
    """[(q_i + u) . k_j + (q_i + v) . W r(D_ij)] / sqrt(K), with an explicit matrix of offsets."""
    content = np.einsum('bihk,bjhk->bhij', q + u, k)
    projected = np.einsum('hkp,ijp->ijhk', w, encoding(offset, w.shape[-1], theta))
    position = np.einsum('bihk,ijhk->bhij', q + v, projected)
    return (content + position) / np.sqrt(q.shape[-1])


def parameters(scheme):
    return [np.asarray(param[...], np.float64) for param in (scheme.u, scheme.v, scheme.w)]


@pytest.mark.parametrize('form', ['channels', 'content'])
@pytest.mark.parametrize('settings', [dict(), dict(pos_dim=10), dict(theta=100.0)], ids=str)
def test_weights(settings, form, case):
    arguments = ''.join(f', {key}={value}' for key, value in settings.items())
    scheme = case.make(f'txl(form={form!r}{arguments})')
    assert scheme.w.shape == (case.heads, 8, settings.get('pos_dim', 24))
    used = [hook for hook in positions.HOOKS if scheme.overrides(hook)]
    assert used == ['qk' if form == 'channels' else 'content']
    logits = oracle(case.q, case.k, *parameters(scheme), case.offset, settings.get('theta', 10000.0))
    case.check(scheme, logits, atol=2e-5)


@pytest.mark.parametrize('clamp', [1, 7.5])
def test_clamped_distances(clamp, case):
    scheme = case.make(f'txl(clamp={clamp})')
    offset = np.clip(case.offset, -clamp, clamp)
    case.check(scheme, oracle(case.q, case.k, *parameters(scheme), offset), atol=2e-5)


def test_the_content_form_takes_real_positions_per_row_and_appended_channels(case):
    """Logits without q . k, which the core adds; without keys, they are the relative part alone."""
    scheme = case.make('txl')
    q, k = case.q[:, :5], case.k
    q_pos = np.stack([case.pos[3:8] + 0.25, 2.0 * case.pos[3:8]])
    k_pos = np.stack([case.pos[::-1] - 0.5, case.pos + 0.125])
    u, v, w = parameters(scheme)
    wide = [np.concatenate([a, 9 + a], -1) for a in (q, k)]
    arguments = [jnp.asarray(a, jnp.float32) for a in (*wide, q_pos, k_pos)]
    for b in range(2):
        offset = q_pos[b][:, None] - k_pos[b][None]
        expected = oracle(q, k, u, v, w, offset)[b] - case.dot(q, k)[b]
        np.testing.assert_allclose(scheme.content(*arguments)[b], expected, atol=5e-5)
    relative = scheme.content(arguments[0], 0 * arguments[1], *arguments[2:])
    np.testing.assert_allclose(relative[1], oracle(q, 0 * k, 0 * u, v, w, offset)[1], atol=5e-5)


@pytest.mark.parametrize('rows', [1, 24])
def test_many_examples_are_each_as_one(rows):
    """Those that share positions share W r(D), which is another computation."""
    scheme = positions.make('txl', Dims(24, 2, 8, max_len=32), rngs=nnx.Rngs(0))
    q, k = np.random.default_rng(0).normal(size=(2, 24, 7, 2, 8)).astype(np.float32)
    pos = np.sort(np.random.default_rng(1).choice(32, (rows, 7)), axis=-1)
    content = jax.jit(scheme.content)
    found = content(q, k, pos, pos)
    assert found.shape == (24, 2, 7, 7)
    for i in range(24):
        own = pos[[i % rows]]
        np.testing.assert_allclose(found[i], content(q[[i]], k[[i]], own, own)[0], atol=2e-5)


def test_offsets_have_different_encodings_and_a_direction():
    """Off-by-a-table defects make every offset of one side equal."""
    r = encoding(np.arange(-5, 6), 24)
    gaps = np.abs(r[:, None] - r[None]).max(-1)
    assert gaps[~np.eye(11, dtype=bool)].min() > 0.1

    scheme = positions.make("txl(form='channels')", Dims(24, 2, 8, max_len=32), rngs=nnx.Rngs(0))
    pos = jnp.arange(11)[None]
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.full((1, 11), 11), x=jnp.zeros((1, 11, 24)))
    q, k = scheme.qk(jnp.ones((1, 11, 2, 8)), jnp.zeros((1, 11, 2, 8)), coords)
    logits = np.einsum('bthw,bshw->bhts', q, k)[0, 0]
    row = logits[5]
    assert np.abs(row[:, None] - row[None])[~np.eye(11, dtype=bool)].min() > 1e-4
    np.testing.assert_allclose(logits[5, :6], logits[10, 5:], atol=1e-5)


def test_queries_and_keys_use_their_own_positions(case):
    scheme = case.make("txl(form='channels')")
    q, k = case.q[:, :5], case.k
    q_pos, k_pos = case.pos[3:8], case.pos[::-1].copy()
    coords = Coords(
        q_pos=jnp.asarray(q_pos)[None],
        k_pos=jnp.asarray(k_pos)[None],
        visible=jnp.full((1, 5), 13),
        x=jnp.zeros((2, 5, 24)),
    )
    wide_q, wide_k = scheme.qk(jnp.asarray(q, jnp.float32), jnp.asarray(k, jnp.float32), coords)
    assert wide_q.shape[-1] == wide_k.shape[-1] == 8 + 24
    expected = oracle(q, k, *parameters(scheme), q_pos[:, None] - k_pos[None])
    np.testing.assert_allclose(
        case.dot(np.asarray(wide_q, np.float64), np.asarray(wide_k, np.float64)), expected, atol=5e-5
    )


def test_far_positions():
    scheme = positions.make('txl', Dims(24, 2, 8, max_len=32), rngs=nnx.Rngs(0))
    pos = np.array([1_000, 12_345, 100_000, 1_000_000])
    sin, cos = scheme.waves(jnp.asarray(pos)[None])
    found = np.concatenate([sin, cos], -1)[0, :, 0]
    np.testing.assert_allclose(found, encoding(pos, 24), atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('txl(pos_dim=7)', 'pos_dim'),
        ('txl(pos_dim=-2)', 'pos_dim'),
        ('txl(pos_dim=0)', 'pos_dim'),
        ("txl(form='channels', clamp=5)", r"clamp=5.* needs form='content'"),
        ('txl(clamp=0)', 'clamp must be above 0'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        positions.make(text, Dims(24, 2, 8, max_len=32), rngs=nnx.Rngs(0))
