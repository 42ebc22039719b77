"""Contextual position encoding against equations 3 to 5 of Golovneva et al. (2024), in loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.nn.products import softmax
from mha.positions import Dims
from mha.spec import UserError
from tests.positions.cases import causal_cases


def weights_of(scheme, logits, mask, q, coords):
    return softmax(scheme.rows(logits, mask, q, coords), mask)


def oracle(logits, allowed, q, e, scale=1.0):
    """Logits plus interpolated q_i . e[p_ij], p_ij = sum of the gates from j to the end of row i."""
    out = np.array(logits, np.float64)
    for b, h, i in np.ndindex(logits.shape[:3]):
        p = 0.0
        for j in reversed(range(logits.shape[3])):
            p += allowed[i, j] / (1 + np.exp(-scale * logits[b, h, i, j]))
            at = min(p, len(e) - 1)
            out[b, h, i, j] += np.interp(at, np.arange(len(e)), e @ q[b, i, h])
    return out


def make(text, causal=True):
    return positions.make(text, Dims(24, 4, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


@causal_cases
@pytest.mark.parametrize('settings', [dict(), dict(p_max=3), dict(p_max=64, gate='raw')], ids=str)
def test_weights(settings, case):
    scheme = case.make(f'cope({", ".join(f"{key}={value!r}" for key, value in settings.items())})')
    assert scheme.e.shape == (settings.get('p_max', 16), 8)
    scale = 8**0.5 if settings.get('gate') == 'raw' else 1.0
    e = np.asarray(scheme.e[...], np.float64)
    case.check(scheme, oracle(case.dot(), np.tri(13), case.q, e, scale), atol=2e-5)


@causal_cases
def test_gates_open_on_logits_with_their_bias(case):
    scheme = case.make('alibi|cope(p_max=5)')
    bias = np.asarray(scheme.bias(*2 * [jnp.asarray(case.pos)[None]]), np.float64)
    e = np.asarray(scheme.parts[1].e[...], np.float64)
    case.check(scheme, oracle(case.dot() + bias, np.tri(13), case.q, e), atol=2e-5)


def test_hidden_keys_count_nothing():
    """As if they were not there, however large their logits; a row without keys stays finite."""
    scheme = make('cope(p_max=4)')
    scheme.e[...] = jax.random.normal(jax.random.key(0), (4, 8))
    seen = np.array([0, 1, 1, 0, 1, 0, 1, 1, 0], bool)
    logits = jax.random.normal(jax.random.key(1), (2, 4, 9, 9)).at[..., ~seen].set(50.0)
    q = jax.random.normal(jax.random.key(2), (2, 9, 4, 12))  # 8 channels and 4 that another scheme appended
    mask = jnp.asarray(np.tri(9, dtype=bool) & seen)
    weights = weights_of(scheme, logits, mask[None, None], q, None)
    assert np.isfinite(weights).all()
    without = weights_of(scheme, logits[..., seen], mask[None, None, :, seen], q[..., :8], None)
    np.testing.assert_allclose(weights[:, :, 1:, seen], without[:, :, 1:], atol=1e-6)
    np.testing.assert_array_equal(weights[:, :, 1:, ~seen], 0)


def test_gradients_reach_the_table_from_zero_and_the_gates():
    """The table starts at zero; positions at whole numbers (gates shut or wide open) have finite gradients."""
    mask = jnp.tri(9, dtype=bool)[None, None]
    q = jax.random.normal(jax.random.key(2), (1, 9, 4, 8))

    def loss(e, logits):
        scheme = make('cope(p_max=4)')
        scheme.e[...] = e
        return (weights_of(scheme, logits, mask, q, None) ** 2).sum()

    np.testing.assert_array_equal(make('cope(p_max=4)').e[...], 0)
    logits = jax.random.normal(jax.random.key(1), (1, 4, 9, 9))
    assert np.abs(jax.grad(loss)(jnp.zeros((4, 8)), logits)).min() > 1e-4
    table = jax.random.normal(jax.random.key(0), (4, 8))
    for sharp in (1.0, 1e3):
        assert all(np.isfinite(g).all() for g in jax.grad(loss, (0, 1))(table, sharp * logits))


@pytest.mark.parametrize(
    ('text', 'causal', 'message'),
    [('cope', False, 'causal attention only'), ('cope(p_max=1)', True, 'p_max'), ("cope(gate='x')", True, 'gate must')],
)
def test_errors(text, causal, message):
    with pytest.raises(UserError, match=message):
        make(text, causal)


def test_scaled_reads_of_the_table():
    """Divided by the root of the head size, as the published code does by default."""
    mask, q = jnp.tri(9, dtype=bool)[None, None], jax.random.normal(jax.random.key(2), (1, 9, 4, 8))
    logits, table = jax.random.normal(jax.random.key(1), (1, 4, 9, 9)), jax.random.normal(jax.random.key(0), (4, 8))
    scaled, plain = make('cope(p_max=4, scale=True)'), make('cope(p_max=4)')
    scaled.e[...], plain.e[...] = table, table / np.sqrt(8)
    np.testing.assert_allclose(
        weights_of(scaled, logits, mask, q, None), weights_of(plain, logits, mask, q, None), atol=1e-6
    )
