"""The continuous position bias against a network of the offset in float64, one pair at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError

SETTINGS = [dict(), dict(log=False, width=3), dict(depth=1), dict(width=5, depth=4)]


def spec(settings):
    return f'cpb({", ".join(f"{key}={value}" for key, value in settings.items())})'


def make(text, heads=4, dim=24):
    return positions.make(text, Dims(dim, heads, 8, max_len=32), rngs=nnx.Rngs(0))


def oracle(scheme, offset, log):
    layers = [
        (np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...], np.float64))
        for layer in [*scheme.hidden, scheme.out]
    ]
    out = np.zeros((len(layers[-1][1]), *offset.shape))
    for index, d in np.ndenumerate(offset):
        x = np.array([np.copysign(np.log(1 + abs(d)), d) if log else float(d)])
        for kernel, bias in layers[:-1]:
            x = x @ kernel + bias
            x = x / (1 + np.exp(-x))
        out[(slice(None), *index)] = x @ layers[-1][0] + layers[-1][1]
    return out


@pytest.mark.parametrize('settings', SETTINGS, ids=spec)
def test_weights(settings, case):
    scheme = case.make(spec(settings))
    # Plain offsets make logits of up to 100, whose float32 steps are 1e-5.
    atol = 1e-5 if settings.get('log', True) else 3e-5
    case.check(scheme, case.dot() + oracle(scheme, case.offset, settings.get('log', True)), atol=atol)


@pytest.mark.parametrize(('width', 'depth'), [(6, 2), (6, 1), (5, 3)])
def test_parameters(width, depth):
    """2w + (depth - 1)(w^2 + w) + wH + H; the width is a quarter of the model's by default."""
    scheme = make(f'cpb(width={width}, depth={depth})')
    count = 2 * width + (depth - 1) * (width**2 + width) + width * 4 + 4
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(scheme))) == count
    assert make('cpb').hidden[0].kernel.shape == (1, 6)


def test_the_bias_starts_as_a_curve_on_each_side():
    """With zero biases the units would bend at D = 0 alone."""
    x = jnp.exp(jnp.linspace(0, 5, 6)) - 1
    bias = np.asarray(make('cpb').offset_bias(x))
    assert np.abs(np.diff(bias, 2)).max() > 0.02 * np.abs(np.diff(bias)).max()


def test_far_and_equal_positions():
    graph, params = nnx.split(make('cpb'), nnx.Param)
    run = jax.jit(jax.grad(lambda params, pos: (nnx.merge(graph, params).bias(pos, pos) ** 2).sum()))
    for pos in (jnp.array([[0, 0, 3, 1_000_000]]), jnp.zeros((1, 4)), jnp.array([[-1.0, 0.5, 7.25, 8.0]])):
        gradients = run(params, pos)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ('text', 'dim', 'message'),
    [
        ('cpb(width=0)', 24, 'width must be at least 1, not 0'),
        ('cpb(depth=0)', 24, 'depth must be at least 1, not 0'),
        ('cpb', 3, 'a quarter of the model width 3 is no width - set width'),
    ],
)
def test_errors(text, dim, message):
    with pytest.raises(UserError, match=message):
        make(text, dim=dim)
