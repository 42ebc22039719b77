"""Relative logits that a token asks for, in loops."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError
from tests.positions.cases import causal_cases
from tests.positions.conftest import BATCH, LENGTH


def bias(case, scheme, x, alpha=0.0, floor=1.0):
    w, bank = (np.asarray(p[...], np.float64) for p in (scheme.w, scheme.bank))
    reach, out = scheme.reach, np.zeros((BATCH, case.heads, LENGTH, LENGTH))
    for b, h, i, j in np.ndindex(out.shape):
        d = int(case.pos[i] - case.pos[j])
        r = x[b, i] @ w[:, h]
        if 0 <= d < reach:
            out[b, h, i, j] = r @ bank[:, d]
        elif -reach <= d < 0 and not case.causal:
            out[b, h, i, j] = r @ bank[:, reach - 1 - d]
    return out


@pytest.mark.parametrize('settings', ['rank=3, reach=5', 'rank=3, reach=5, alpha=0.7, floor=4'])
def test_weights(settings, case):
    scheme = case.make(f'inkling({settings})')
    tau = 1 + scheme.alpha * np.log(np.maximum((case.pos + 1) / scheme.floor, 1))[None, None, :, None]
    case.check(scheme, tau * (case.dot() + bias(case, scheme, case.draw('x', BATCH, LENGTH, 24))), atol=3e-5)


@causal_cases
def test_the_bias_is_zero_beyond_its_reach(case):
    scheme = case.make('inkling(rank=3, reach=2)')
    q = jnp.ones((1, LENGTH, case.heads, 8 + 3))
    found = scheme.content(q, q, *[jnp.asarray(case.pos)[None]] * 2)
    far = (case.offset >= 2) | (case.offset < 0)
    assert (np.asarray(found)[:, :, far] == 0).all()
    assert (np.asarray(found)[:, :, ~far] != 0).all()


def test_order_of_channels():
    scheme = positions.make('fox|inkling', Dims(24, 4, 8, 32, causal=True), rngs=nnx.Rngs(0))
    q, at = jnp.ones((1, 3, 4, 8)), jnp.arange(3)[None]
    coords = positions.Coords(q_pos=at, k_pos=at, visible=at + 1, x=jnp.ones((1, 3, 24)))
    with pytest.raises(UserError, match='write it before other schemes that do'):
        scheme.qk(q, q, coords)
