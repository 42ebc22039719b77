"""Scalable softmax against Nakanishi (2025), equation 2: n^(s z) / sum n^(s z)."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import Coords, Dims


def visible(case):
    length = len(case.pos)
    return np.arange(1, length + 1) if case.causal else np.full(length, length)


@pytest.mark.parametrize('bias', [False, True])
def test_weights(bias, case):
    scheme = case.make(f'ssmax(bias={bias})')
    s, b = np.asarray(scheme.s[...], np.float64), np.asarray(scheme.b[...], np.float64) if bias else 0 * scheme.s[...]
    n = visible(case)[None, None, :, None]
    powers = n ** (s[None, :, None, None] * case.dot())  # n^(s z), no logarithm taken
    case.check(scheme, np.log(powers) + np.asarray(b)[None, :, None, None] * case.dot())


def test_initial_values():
    scheme = positions.make('ssmax', Dims(24, 4, 8, max_len=32), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(scheme.s[...], np.full(4, 0.168, np.float32))
    assert scheme.b is None
    scheme = positions.make('ssmax(init=0.5, bias=True)', Dims(24, 4, 8, max_len=32), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(scheme.s[...], 0.5)
    np.testing.assert_array_equal(scheme.b[...], 0)
    assert abs(0.168 * np.log(np.arange(1, 1025)).mean() - 1) < 0.01


@pytest.mark.parametrize('text', ['ssmax(init=0.7)', 'logn(length=40)'])
def test_padding_is_not_counted_and_rows_with_few_keys_are_finite(text):
    """Rows of 3 visible keys, one, and none."""
    scheme = positions.make(text, Dims(24, 1, 8, max_len=32), rngs=nnx.Rngs(0))
    allowed = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)[None, None]
    q, k = np.random.default_rng(0).standard_normal((2, 1, 4, 1, 8)).astype(np.float32)
    pos = jnp.arange(4)[None]
    coords = Coords(q_pos=pos[:, :3], k_pos=pos, visible=jnp.asarray(allowed[:, 0].sum(-1)), x=jnp.zeros((1, 3, 24)))
    mask = masks.explicit(jnp.asarray(allowed))
    turned = scheme.qk(jnp.asarray(q[:, :3]), jnp.asarray(k), coords)
    weights = dense.weights(*turned, position=scheme, coords=coords, mask=mask, scale=1.0)[0, 0]
    factor = {'ssmax(init=0.7)': 0.7 * np.log(3), 'logn(length=40)': np.log(3) / np.log(40)}[text]
    expected = np.exp(factor * (k[0, :, 0] @ q[0, 0, 0])) * allowed[0, 0, 0]
    np.testing.assert_allclose(weights[0], expected / expected.sum(), atol=1e-6)
    np.testing.assert_array_equal(weights[1:], allowed[0, 0, 1:].astype(np.float32))


def test_a_shift_of_the_logits_would_do_nothing():
    """exp(x - s ln n) is a plain softmax: the scale must multiply."""
    scheme = positions.make('ssmax(init=2.0)', Dims(24, 1, 8, max_len=32), rngs=nnx.Rngs(0))
    coords = Coords(
        q_pos=jnp.arange(2)[None], k_pos=jnp.arange(2)[None], visible=jnp.array([[1, 2]]), x=jnp.zeros((1, 2, 24))
    )
    q = jnp.ones((1, 2, 1, 8), jnp.bfloat16)
    out, k = scheme.qk(q, q, coords)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out[0, :, 0, 0].astype(jnp.float32), [0, 2 * np.log(2)], rtol=4e-3)
    np.testing.assert_array_equal(k.astype(jnp.float32), 1)
