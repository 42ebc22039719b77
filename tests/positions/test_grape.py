"""ALiBi with gates of queries and keys, in float64."""

import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.positions.base import alibi_slopes
from tests.positions.cases import causal_cases


def softplus(x):
    return np.logaddexp(x, 0)


@causal_cases
@pytest.mark.parametrize('gate', ['query', 'key', 'both'])
def test_weights(gate, case):
    scheme = case.make(f'grape(gate={gate!r})')
    total = np.zeros((2, case.heads, 13, 13))
    for direction, x in ((scheme.v, case.q), (scheme.u, case.k)):
        if direction is None:
            continue
        unit = np.asarray(direction[...], np.float64)
        unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
        g = softplus(np.einsum('bthk,hk->bht', x, unit) / np.sqrt(8))
        total += g[:, :, :, None] if direction is scheme.v else g[:, :, None, :]
    slope = np.asarray(alibi_slopes(case.heads)) * softplus(np.asarray(scheme.w[...], np.float64))
    case.check(scheme, case.dot() - slope[None, :, None, None] * total * case.offset, atol=3e-5)


def test_the_slopes_start_at_those_of_alibi():
    scheme = positions.make('grape', Dims(24, 4, 8, 32, causal=True), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(softplus(np.asarray(scheme.w[...])), 1, atol=1e-6)
