"""Every scheme with every normalizer, gate, mixing, pattern and core, in both directions: combinations are drawn, legal
ones hold the properties of attention, and the others are refused in one line."""

import functools
import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import Encoder, mixing, normalizers, positions, spec
from mha.spec import UserError

LENGTH, REAL, HEADS, DIM = 9, 6, 2, 16
AXES = {
    'position': tuple(positions.example(name) for name in positions.names()),
    'normalizer': normalizers.names(),
    'gate': ('none', 'head', 'channel'),
    'mixing': ('none', *mixing.names()),
    'pattern': ('full', 'window(3)', 'local(2)', 'hard_alibi'),
    'core': ('dense', 'blockwise'),
    'causal': (True, False),
}


@functools.cache
def scheme(text, causal):
    """Scheme without values, or the reason why there is none."""
    dims = positions.Dims(DIM, HEADS, DIM // HEADS, LENGTH, causal)
    try:
        return nnx.eval_shape(lambda: positions.make(text, dims, rngs=nnx.Rngs(0)))
    except UserError as error:
        return str(error)


def reason(position, normalizer, gate, mixing_name, pattern, core, causal):
    """Why a combination is illegal; empty if it is legal."""
    made = scheme(position, causal)
    if isinstance(made, str):
        return made
    kind, mixed = spec.load(normalizers, normalizer, normalizers.Normalizer, ''), mixing.kind(mixing_name)
    if kind.causal_only and not causal:
        return f'normalizer {normalizer} is causal'
    if made.overrides('weights') and normalizer != 'softmax':
        return 'two that replace the softmax'
    if mixed.maps > 1 and made.overrides('values'):
        return 'values are wider than queries'
    if core == 'blockwise' and (made.whole_rows or kind.form == 'rows' or mixed.whole_rows):
        return 'whole rows of logits in tiles'
    return ''


@functools.cache
def combinations():
    """Legal combinations, and illegal ones."""
    every = list(itertools.product(*AXES.values()))
    return [each for each in every if not reason(*each)], [each for each in every if reason(*each)]


def test_there_are_thousands():
    legal, illegal = combinations()
    assert len(legal) >= 2000
    assert {reason(*each) for each in illegal} >= {'whole rows of logits in tiles', 'two that replace the softmax'}


def draw(which, count, seed):
    return random.Random(seed).sample(combinations()[which], count)


def encoder(combination):
    settings = dict(zip(AXES, combination, strict=True))
    options = dict(layers=1, dim=DIM, heads=HEADS, mlp_dim=8, dropout_rate=0.0, rngs=nnx.Rngs(0))
    return Encoder(vocab_size=2 * LENGTH, num_classes=3, max_len=LENGTH, **options, **settings)


def name(combination):
    return '-'.join(map(str, combination))


SAMPLED = [*draw(0, 6, 1), *(pytest.param(each, marks=pytest.mark.slow) for each in draw(0, 60, 2))]


@pytest.mark.parametrize('combination', SAMPLED, ids=lambda each: name(each))
def test_properties(combination):
    causal, model = combination[-1], encoder(combination)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), nnx.state(model, nnx.Param))
    nnx.update(model, weights)
    graph, weights = nnx.split(model)
    tokens, valid = rng.permutation(2 * LENGTH).reshape(2, LENGTH), np.ones((2, LENGTH), bool)
    valid[0, REAL:] = False

    @jax.jit
    def run(weights, tokens, valid, slot):
        def logits(weights):
            return nnx.merge(graph, weights)(tokens, valid=valid, rngs=nnx.Rngs(position=jax.random.key(1)))

        out, pullback = jax.vjp(logits, weights)
        return out, pullback(jnp.zeros_like(out).at[:, slot].set(1.0))[0]

    slot = 3
    out, gradients = run(weights, jnp.asarray(tokens), jnp.asarray(valid), slot)
    assert out.shape == (2, LENGTH, 3)
    assert np.isfinite(out).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    if causal:
        read = np.abs(nnx.to_pure_dict(gradients)['embedding']['embedding'][tokens[1]]).sum(-1) > 0
        assert not read[slot + 1 :].any()
    changed = tokens.copy()
    changed[0, REAL:] = changed[0, REAL:][::-1]
    other, _ = run(weights, jnp.asarray(changed), jnp.asarray(valid), slot)
    np.testing.assert_allclose(other[0, :REAL], out[0, :REAL], atol=2e-5)
    nothing, _ = run(weights, jnp.asarray(tokens), jnp.zeros_like(valid), slot)
    assert np.isfinite(nothing).all()
    if combination[5] == 'blockwise':
        other = encoder((*combination[:5], 'dense', causal))
        nnx.update(other, weights)
        found = other(jnp.asarray(tokens), valid=jnp.asarray(valid), rngs=nnx.Rngs(position=jax.random.key(1)))
        np.testing.assert_allclose(found, out, atol=5e-5)


@pytest.mark.parametrize('combination', draw(1, 12, 3), ids=lambda each: name(each))
def test_refusals(combination):
    with pytest.raises(UserError) as error:
        nnx.eval_shape(lambda: encoder(combination))(jnp.zeros((1, LENGTH), int), rngs=nnx.Rngs(position=0))
    assert len(str(error.value).splitlines()) == 1
