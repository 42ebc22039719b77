"""Scale and biases of ASEntmax: `asscale`, `nape`; and the constant `scale`."""

import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError
from tests.positions.conftest import BATCH, LENGTH


@pytest.mark.parametrize('heads', ['all', 'far'])
def test_asscale(heads, case):
    scheme = case.make(f'asscale(heads={heads!r})')
    x, visible = case.draw('x', BATCH, LENGTH, 24), 1 + np.arange(LENGTH) if case.causal else np.full(LENGTH, LENGTH)
    u, w = (np.asarray(p[...], np.float64) for p in (scheme.u, scheme.w))
    beta, gamma = np.logaddexp(0, x @ u), 2 * np.tanh(x @ w)
    factor = 1 + beta * np.log(visible + 1)[None, :, None] ** gamma
    if heads == 'far':
        factor[:, :, : case.heads // 2] = 1
    case.check(scheme, factor.swapaxes(1, 2)[..., None] * case.dot(), atol=5e-5)


@pytest.mark.parametrize('slopes', ['linear', 'exp'])
def test_nape(slopes, case):
    half = np.arange(case.heads // 2)
    m = np.concatenate([1 / (half + 1.0) if slopes == 'linear' else 0.5**half, np.zeros(case.heads - len(half))])
    case.check(case.make(f'nape(slopes={slopes!r})'), case.dot() - m[:, None, None] * np.abs(case.offset))


def test_scale(case):
    each = tuple(1.0 + h for h in range(case.heads))
    case.check(case.make('scale(1.2)'), 1.2 * case.dot())
    case.check(case.make(f'scale({each})'), np.array(each)[None, :, None, None] * case.dot(), atol=5e-5)


@pytest.mark.parametrize('text', ['scale(0)', 'scale((1.0, 2.0))', 'scale((1.0, 2.0, 3.0, -1.0))'])
def test_scales_are_one_or_one_per_head(text):
    with pytest.raises(UserError, match='one number, or 4, one per head'):
        positions.make(text, Dims(24, 4, 8, 32), rngs=nnx.Rngs(0))
