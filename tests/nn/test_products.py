"""Products and their own backward passes against sums in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.nn import products

RNG = np.random.default_rng(0)
FORMS = {  # the operands' shapes behind the batch, and the same sum as an einsum
    'inner': ((5, 3), (7, 3), 'bhtw,bhsw->bhts'),
    'mix': ((5, 7), (7, 3), 'bhts,bhsv->bhtv'),
}


@pytest.mark.parametrize('name', FORMS)
def test_values_and_gradients(name):
    *shapes, text = FORMS[name]
    x, y = (RNG.normal(size=(2, 4, *shape)) for shape in shapes)
    out = np.einsum(text, x, y)
    ct = RNG.normal(size=out.shape)
    operands, result = text.split('->')
    one, other = operands.split(',')
    expected = out, np.einsum(f'{result},{other}->{one}', ct, y), np.einsum(f'{result},{one}->{other}', ct, x)
    found, pull = jax.vjp(getattr(products, name), jnp.float32(x), jnp.float32(y))
    for got, wanted in zip((found, *pull(jnp.float32(ct))), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize('name', FORMS)
def test_gradients_keep_the_types(name):
    """In bfloat16, logits are float32, and weights are float32 where what they mix is not."""
    *shapes, _ = FORMS[name]
    types = (jnp.bfloat16, jnp.bfloat16) if name == 'inner' else (jnp.float32, jnp.bfloat16)
    x, y = (jnp.ones((2, *shape), kind) for shape, kind in zip(shapes, types, strict=True))
    out, pull = jax.vjp(getattr(products, name), x, y)
    assert out.dtype == (jnp.float32 if name == 'inner' else jnp.bfloat16)
    assert tuple(gradient.dtype for gradient in pull(out)) == types


def test_softmax():
    """Under a mask; rows that may see nothing are uniform, which the caller's zeros hide."""
    logits, ct = RNG.normal(size=(2, 2, 3, 5, 7))
    allowed = RNG.random((2, 1, 5, 7)) < 0.6
    allowed[0, 0, 0] = False
    powers = np.where(allowed, np.exp(logits), 0)
    powers[0, :, 0] = 1
    weights = powers / powers.sum(-1, keepdims=True)
    gradient = weights * (ct - (weights * ct).sum(-1, keepdims=True))
    found, pull = jax.vjp(lambda x: products.softmax(x, jnp.array(allowed)), jnp.float32(logits))
    np.testing.assert_allclose(found, weights, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.float32(ct))[0], gradient, atol=1e-6)


@pytest.mark.parametrize('shapes', [((2, 4, 3), (3, 5)), ((2, 4, 6), (6, 2, 5)), ((2, 4, 3, 2), (3, 2, 5))])
def test_linear(shapes):
    """As the layers of nnx call it: from one axis to one or to several, and from several to one."""
    x, kernel = (jnp.array(RNG.normal(size=shape)) for shape in shapes)
    count = x.ndim - 2
    dimensions = ((tuple(range(2, x.ndim)), tuple(range(count))), ((), ()))

    def results(product):
        out, pull = jax.vjp(lambda x, kernel: product(x, kernel, dimensions, precision=None), x, kernel)
        return out, *pull(jnp.cos(out))

    for found, expected in zip(results(products.linear), results(jax.lax.dot_general), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
