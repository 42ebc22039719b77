"""CABLE against sums of softplus steps, in loops."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.positions.cases import causal_cases


@causal_cases
@pytest.mark.parametrize(('text', 'scale'), [('cable', 1.0), ('cable(scale=False)', 8**0.5)])
def test_weights(case, text, scale):
    """The published code leaves q . k undivided by sqrt(K)."""
    scheme = case.make(text)
    w, b = (np.asarray(param[...], np.float64) for param in (scheme.w, scheme.b))
    assert w.shape == (24, case.heads)
    steps = np.log1p(np.exp(case.draw('x', 2, 13, 24) @ w + b))
    bias = np.zeros((2, case.heads, 13, 13))
    for i, j in itertools.product(range(13), repeat=2):
        if j < i:
            bias[:, :, i, j] = -sum(steps[:, t] for t in range(j + 1, i + 1))
    # Undivided logits reach 30, and the float32 sums of their channels are off by a few steps of 2e-6.
    case.check(scheme, scale * case.dot() + bias, atol=1e-5 if scale == 1 else 5e-5)


def test_starts_as_a_penalty_of_ln_2_per_token_and_stays_exact_in_bfloat16():
    scheme = positions.make('cable', Dims(24, 2, 8, max_len=32, causal=True), rngs=nnx.Rngs(0))
    pos = jnp.arange(512)[None]
    zero = jnp.zeros((1, 512, 2, 8), jnp.bfloat16)
    q, k = scheme.qk(zero, zero, Coords(q_pos=pos, k_pos=pos, visible=pos + 1, x=jnp.zeros((1, 512, 24))))
    logits = np.einsum('bthw,bshw->bhts', *(np.asarray(a, np.float64) for a in (q, k))) / 8**0.5
    expected = -np.log(2) * (np.arange(512)[:, None] - np.arange(512))
    np.testing.assert_allclose(logits, np.broadcast_to(expected, logits.shape), atol=1e-3)


def test_needs_a_causal_model():
    with pytest.raises(UserError, match='causal attention only'):
        positions.make('cable', Dims(24, 2, 8, max_len=32), rngs=nnx.Rngs(0))
