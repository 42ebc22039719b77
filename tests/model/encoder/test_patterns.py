"""What each layer sees, by gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.positions import Position
from tests.model.encoder.models import TOKENS, T, call, make, weights


def reach(model, tokens=TOKENS, **options):
    """[T, T]: whether the output of token i depends on token j, by gradient."""
    graph, state = nnx.split(model)

    @jax.jit
    def flows(state):
        table = state['embedding']['embedding'][...]

        def outputs(x):
            model = nnx.merge(graph, state)
            model.embedding = lambda tokens: x
            return model(tokens[:1], **options)[0].sum(-1)

        return jnp.abs(jax.jacobian(outputs)(table[tokens[:1]])[:, 0]).max(-1) > 0

    return np.asarray(flows(state))


def sees(condition, length=T):
    return np.array([[condition(i, j) for j in range(length)] for i in range(length)])


@pytest.mark.parametrize(
    ('pattern', 'options', 'condition'),
    [
        ('full', dict(), lambda i, j: True),
        ('window(1)', dict(), lambda i, j: abs(i - j) <= 1),
        ('window(1)|global(1)', dict(), lambda i, j: abs(i - j) <= 1 or i == 0 or j == 0),
        ('window(1)|global(1)', dict(causal=True), lambda i, j: i - 1 <= j <= i or j == 0),
        ('dilated(1, 2)|global(1)', dict(position='t5'), lambda i, j: abs(i - j) in (0, 2) or i == 0 or j == 0),
        ('strided(2)', dict(causal=True, position='rope'), lambda i, j: j <= i and (i - j <= 2 or (i - j) % 2 == 0)),
    ],
)
def test_a_pattern_is_what_a_layer_sees(pattern, options, condition):
    np.testing.assert_array_equal(reach(make(layers=1, pattern=pattern, **options)), sees(condition))


def test_two_layers_of_a_pattern_see_further():
    one = sees(lambda i, j: abs(i - j) <= 1)
    np.testing.assert_array_equal(reach(make(pattern='window(1)')), one @ one)
    back, ahead = sees(lambda i, j: i - 2 <= j <= i), sees(lambda i, j: i <= j <= i + 1)
    np.testing.assert_array_equal(reach(make(pattern='window(2, 0), window(0, 1)')), ahead @ back)


def test_a_pattern_and_padding():
    """A real token sees what the pattern allows among the real ones; padding changes nothing."""
    model = make(layers=1, pattern='window(2)|global(1)')
    valid = jnp.arange(T)[None] < 4
    expected = sees(lambda i, j: j == i or (j < 4 and (abs(i - j) <= 2 or i == 0 or j == 0)))
    np.testing.assert_array_equal(reach(model, valid=valid), expected)
    np.testing.assert_allclose(call(model, valid=valid)[:, :4], call(model, TOKENS[:, :4]), atol=1e-5)


def test_the_number_of_visible_keys_is_that_of_the_pattern():
    met = []

    class Spy(Position):
        def __init__(self):
            pass

        def qk(self, q, k, coords):
            met.append(np.asarray(coords.visible)[0].tolist())
            return q, k

    model = make(pattern='full, window(1)', causal=True)
    model.positions[0] = Spy()
    model(TOKENS)
    assert met == [[1, 2, 3, 4, 5, 6], [1, 2, 2, 2, 2, 2]]


def test_a_pattern_has_no_parameters():
    plain, other = weights(make()), weights(make(pattern='window(1), prefix(2)|random(2, 1)'))
    assert plain.keys() == other.keys()
    for path, leaf in plain.items():
        np.testing.assert_array_equal(other[path], leaf)
