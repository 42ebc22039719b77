"""Gates per channel against the sum over channels, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, positions
from mha.nn import masks
from mha.positions import Coords, Dims
from tests.positions.cases import causal_cases
from tests.positions.conftest import BATCH, LENGTH


def logits(q, k, sums):
    """Product of the channels with their decay; 0 for later keys."""
    decay = np.exp(np.minimum(sums[:, :, None] - sums[:, None], 0))
    return np.einsum('bihk,bjhk,bijhk->bhij', q, k, decay) / np.sqrt(q.shape[-1])


@causal_cases
def test_weights(case):
    scheme = case.make('wall')
    z = np.einsum('btd,dhk->bthk', case.draw('x', BATCH, LENGTH, 24), np.asarray(scheme.w[...], np.float64))
    sums = np.cumsum(-np.logaddexp(0, -(z + np.asarray(scheme.b[...], np.float64))), axis=1)
    case.check(scheme, logits(case.q, case.k, sums), atol=3e-5)


@pytest.mark.parametrize('core', ['dense', 'blockwise'])
@pytest.mark.parametrize(
    ('step', 'dtype', 'atol'), [(-2.0, 'float32', 2e-5), (-9.0, 'float32', 2e-5), (-2.0, 'bfloat16', 0.05)]
)
def test_sums_far_below_zero(step, dtype, atol, core):
    """Sums of -200 and -900 at the end of 100 tokens neither overflow nor vanish where keys are near."""
    rng, length = np.random.default_rng(0), 100
    scheme = positions.make('wall', Dims(24, 2, 8, length, causal=True), rngs=nnx.Rngs(0))
    scheme.w[...], scheme.b[...] = scheme.w[...] * 0, scheme.b[...] * 0 - np.log(np.expm1(-step))
    q, k, v = (jnp.asarray(rng.standard_normal((1, length, 2, 8)), dtype) for _ in range(3))
    at, mask = jnp.arange(length)[None], masks.causal()

    def attend(q, k, v):
        coords = Coords(q_pos=at, k_pos=at, visible=at + 1, x=jnp.zeros((1, length, 24), dtype))
        return cores.attend(q, k, v, position=scheme, coords=coords, mask=mask, core=core)

    z = logits(*(np.asarray(x, np.float64) for x in (q, k)), step * np.arange(length)[None, :, None, None])
    z = np.where(np.tri(length), z, -np.inf)
    weights = np.exp(z - z.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum('bhij,bjhk->bihk', weights, np.asarray(v, np.float64))
    np.testing.assert_allclose(np.asarray(attend(q, k, v), np.float64), expected, atol=atol)
    gradients = jax.grad(lambda *x: attend(*x).astype(jnp.float32).sum(), (0, 1, 2))(q, k, v)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in gradients)
