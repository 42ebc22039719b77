"""Encodings: what schemes add, against their formulas; every scheme has a picture of some kind."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha
from mha import positions
from mha.probes import schemes
from mha.spec import load

P, DIM, HEADS = 12, 32, 4


def of(spec, causal=False):
    sizes = dict(vocab_size=3, num_classes=3, max_len=P, layers=2, dim=DIM, heads=HEADS)
    model = mha.Encoder(position=spec, causal=causal, rngs=nnx.Rngs(0), **sizes)
    (first,) = model.positions
    return schemes._encoding('encoder', model, 0, first, 6, P, jax.random.key(0))


@pytest.mark.parametrize('name', positions.names())
def test_every_scheme_shows_something(name):
    causal = load(positions, name, positions.Position, 'position scheme').causal_only
    made = of(positions.example(name), causal)
    assert made.layers == (0, 1)
    assert made.coordinates.shape == (P,)
    shapes = dict(embedding=(P, DIM), similarity=(P, P), bias=(HEADS, P), initial_bias=(HEADS, P), logits=(HEADS, P))
    for part, shape in shapes.items():
        assert (array := getattr(made, part)) is None or (array.shape == shape and np.isfinite(array).all()), part
    scheme = positions.make(positions.example(name), positions.Dims(DIM, HEADS, 8, P, causal), rngs=nnx.Rngs(0))
    acts = any(scheme.overrides(hook) for hook in ('embed', 'qk', 'bias', 'content'))
    assert acts == any(getattr(made, part) is not None for part in shapes)


def test_biases_and_logits():
    """ALiBi's bias is -m D; with unit content, the logits of RoPE are the mean of cos(f D)."""
    offsets = np.arange(P)
    made = of('alibi', causal=True)
    slopes = 2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)
    np.testing.assert_allclose(made.bias, -slopes[:, None] * offsets, atol=1e-5)
    np.testing.assert_allclose(made.logits - made.bias, np.full((HEADS, P), 8**0.5 * 8**-0.5), atol=1e-5)
    made = of('rope')
    frequencies = 1e4 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(made.wavelengths, 2 * np.pi / frequencies, rtol=1e-6)
    expected = np.cos(offsets[:, None] * frequencies).mean(1)
    np.testing.assert_allclose(made.logits, np.broadcast_to(expected, (HEADS, P)), atol=1e-5)
    assert made.bias is made.embedding is None


def test_similarity_of_positions():
    made = of('sincos')
    frequencies = 1e4 ** (-np.arange(DIM // 2) / (DIM // 2))
    offsets = np.arange(P)[:, None] - np.arange(P)
    np.testing.assert_allclose(made.similarity, np.cos(offsets[..., None] * frequencies).mean(-1), atol=1e-5)
    np.testing.assert_allclose(of('pi(scale=4)|sincos').coordinates, np.arange(P) / 4)


def test_a_run_and_its_beginning():
    """The stored run: lengths in tokens, the scheme of the variant, and biases before and after training."""
    run = mha.load(Path(__file__).parents[1] / 'runs' / 'alibi')
    (made,) = schemes.encodings(run, length=9)
    trained = run.task.num_tokens(run.experiment.train_lengths[-1])
    assert (made.stack, made.layers, made.scheme, made.trained) == ('encoder', (0,), 'alibi', trained)
    assert made.bias.shape == (2, run.task.num_tokens(9))
    np.testing.assert_allclose(made.bias, made.initial_bias)
    assert jnp.all(jnp.diff(made.bias) < 0)
