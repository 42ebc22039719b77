"""No position information."""

import jax.numpy as jnp
import numpy as np

from mha import positions


def test_weights_are_plain_attention(case):
    case.check(case.make('none'), case.dot())


def test_every_hook_keeps_its_default(case):
    scheme = case.make('none')
    assert not any(scheme.overrides(hook) for hook in positions.HOOKS)
    x, pos = jnp.asarray(case.draw('x', 2, 13, 24), jnp.float32), jnp.asarray(case.pos)[None]
    np.testing.assert_array_equal(scheme.embed(x, pos), x)
    np.testing.assert_array_equal(scheme.remap(pos), pos)
    assert scheme.bias(pos, pos) is None
    assert scheme.extent(10**6) == 10**6
