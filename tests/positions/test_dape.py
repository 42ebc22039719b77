"""DAPE against equation (6) of Zheng et al. (2024) in float64, one pair of tokens at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError


def make(text, heads=4):
    return positions.make(text, Dims(24, heads, 8, max_len=32), rngs=nnx.Rngs(0))


def softplus(param):
    return np.log1p(np.exp(np.asarray(param[...], np.float64)))


def oracle(scheme, dot, offset):
    """s + b + MLP([s, b]): at each pair, 2H numbers in and H out."""
    w1, b1, w2, b2 = (
        np.asarray(param[...], np.float64)
        for layer in (scheme.hidden, scheme.out)
        for param in (layer.kernel, layer.bias)
    )
    logits = np.zeros_like(dot)
    for batch, i, j in np.ndindex(dot.shape[0], *offset.shape):
        s = dot[batch, :, i, j]
        b = -softplus(scheme.s1) * np.log(1 + softplus(scheme.s2) * abs(offset[i, j]))
        hidden = np.concatenate([s, b]) @ w1 + b1
        logits[batch, :, i, j] = s + b + np.where(hidden > 0, hidden, 0.01 * hidden) @ w2 + b2
    return logits


@pytest.mark.parametrize('width', [32, 5])
def test_weights(width, case):
    scheme = case.make('dape' if width == 32 else 'dape(width=5)')
    # The logits reach 50, and their float32 sums a few steps of 4e-6.
    case.check(scheme, oracle(scheme, case.dot(), case.offset), atol=3e-5)


def convolved(x, layer):
    """Convolution over keys: x [S, C] between zeros."""
    kernel, bias = (np.asarray(param[...], np.float64) for param in (layer.kernel, layer.bias))
    side = len(kernel) // 2
    x = np.pad(x, ((side, side), (0, 0)))
    return np.array([np.einsum('nc,nco->o', x[j : j + len(kernel)], kernel) + bias for j in range(len(x) - 2 * side)])


@pytest.mark.parametrize('kernel', [3, 5])
def test_a_kernel_reads_neighbouring_keys(kernel, case):
    """Equation (3) of DAPE V2, for each query over the keys that it sees."""
    scheme = case.make(f'dape(kernel={kernel}, width=6)')
    dot = case.dot()
    expected = np.zeros_like(dot)
    for batch, i in np.ndindex(dot.shape[0], dot.shape[2]):
        seen = slice(i + 1) if case.causal else slice(None)
        s = dot[batch, :, i, seen].T
        b = (-softplus(scheme.s1) * np.log(1 + softplus(scheme.s2) * abs(case.offset[i, seen, None]))).reshape(s.shape)
        hidden = convolved(np.concatenate([s, b], 1), scheme.hidden)
        change = convolved(np.where(hidden > 0, hidden, 0.01 * hidden), scheme.out)
        expected[batch, :, i, seen] = (s + b + change).T
    case.check(scheme, expected, atol=1e-4)


def test_all_of_a_wider_product_is_read(case):
    """Channels that an earlier scheme appended belong to q . k, whose scale stays 1/sqrt(K)."""
    scheme = case.make('dape')
    q, k = (np.concatenate([x, case.draw(name, *x.shape[:-1], 5)], -1) for name, x in (('a', case.q), ('b', case.k)))
    pos = jnp.asarray(case.pos)[None]
    found = scheme.content(jnp.asarray(q, jnp.float32), jnp.asarray(k, jnp.float32), pos, pos)
    dot = case.dot(q, k)
    np.testing.assert_allclose(found, oracle(scheme, dot, case.offset) - dot, atol=5e-5)


def test_parameters():
    """2H of the base bias; (2H + 1) w + (w + 1) H of the network."""
    scheme = make('dape', heads=6)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(scheme))) == 2 * 6 + 13 * 32 + 33 * 6
    r1, r2 = softplus(make('dape', heads=2000).s1), softplus(make('dape', heads=2000).s2)
    for r, top in ((r1, 2), (r2, 1)):
        assert 0 < r.min() < 0.03 * top
        assert 0.97 * top < r.max() < top * 1.0001


def test_published_initial_values():
    """Weights and biases uniform in +-1/sqrt(fan_in), as those of torch's linear layers."""
    scheme = make("dape(width=200, init='uniform')", heads=100)
    for layer in (scheme.hidden, scheme.out):
        for param in (layer.kernel, layer.bias):
            values = np.asarray(param[...])
            assert np.std(values) == pytest.approx(200**-0.5 / 3**0.5, rel=0.15)
            assert 0.9 * 200**-0.5 < np.abs(values).max() <= 200**-0.5


def test_published_initial_values_of_a_kernel():
    scheme = make("dape(width=200, init='uniform', kernel=3)", heads=100)
    for layer in (scheme.hidden, scheme.out):
        for param in (layer.kernel, layer.bias):
            assert 0.9 * 600**-0.5 < np.abs(np.asarray(param[...])).max() <= 600**-0.5


def test_far_and_equal_positions():
    graph, params = nnx.split(make('dape'), nnx.Param)
    q = jax.random.normal(jax.random.key(0), (1, 4, 4, 8), jnp.bfloat16)

    def loss(params, pos):
        logits = nnx.merge(graph, params).content(q, q, pos, pos)
        return (logits**2).sum(), logits

    run = jax.jit(jax.grad(loss, has_aux=True))
    for pos in (jnp.array([[0, 0, 3, 1_000_000]]), jnp.zeros((1, 4)), jnp.array([[-1.0, 0.5, 7.25, 8.0]])):
        gradients, logits = run(params, pos)
        assert logits.dtype == jnp.float32
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_hooks():
    assert (make('dape').overrides('content'), make('dape').overrides('bias'), make('dape').directed) == (
        True,
        False,
        False,
    )


def test_errors():
    for text, words in {
        'dape(width=0)': 'width must be at least 1, not 0',
        'dape(kernel=4)': 'kernel must be odd, not 4',
    }.items():
        with pytest.raises(UserError, match=words):
            make(text)
