"""Normalizers and soft caps on every core: values and all gradients against `dense`, memory, and keys that a position
scheme hides."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, mixing, normalizers, positions
from mha.cores import Variant, blockwise, dense, flash
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError

B, T, H, K, D = 2, 21, 2, 4, 8
DIMS = Dims(D, H, K, max_len=64, causal=True)
RNG = np.random.default_rng(0)
Q, KEYS, V, COTANGENT = (jnp.asarray(RNG.standard_normal((B, T, H, K)), jnp.float32) for _ in range(4))
VALID = jnp.arange(T)[None] < jnp.asarray([[T], [9]])
MASKS = {
    'causal': masks.causal(),
    'padding': masks.causal() & masks.padding(VALID),
    'window': masks.window(3, 2),
    'left': masks.causal() & masks.padding(VALID[:, ::-1]),  # the first queries see no key
}
CORES = {'dense': 'dense', 'blockwise': 'blockwise', 'flash': flash.Flash(block=16, interpret=True)}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(blockwise, 'SIDES', (8,))


def coords(mask, length=T):
    x = jnp.asarray(np.random.default_rng(1).standard_normal((B, length, D)), jnp.float32)
    pos = jnp.arange(length)[None]
    return Coords(pos, pos, mask.count(length, length), x, contiguous=True)


def moved(text):
    """Normalizer with parameters away from their initial values."""
    made, rng = normalizers.make(text, DIMS, rngs=nnx.Rngs(0)), np.random.default_rng(2)
    move = lambda x: x + jnp.asarray(rng.standard_normal(x.shape), x.dtype)  # noqa: E731
    nnx.update(made, jax.tree.map(move, nnx.state(made, nnx.Param)))
    return made


def outcome(core, text, softcap, mask):
    """Output, and gradients of the parameters of normalizer and scheme and of queries, keys and values; again for large
    logits, where a sum of weights without a maximum would overflow."""
    scheme = positions.make('alibi(learned=True)', DIMS, rngs=nnx.Rngs(0))
    graph, state = nnx.split((moved(text), scheme))

    @jax.jit
    def run(state, q, k, v):
        def loss(state, *qkv):
            normalizer, position = nnx.merge(graph, state)
            call = dict(position=position, coords=coords(mask), mask=mask, core=core)
            out = cores.attend(*qkv, variant=Variant(normalizer, softcap), **call)
            return jnp.vdot(out, COTANGENT), out

        gradients, out = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(state, q, k, v)
        return out, gradients

    return jax.tree.leaves([run(state, factor * Q, KEYS, V) for factor in (1, 200)])


CASES = [
    ('blockwise', "sink(kind='query')", 0.0, 'left'),
    ('blockwise', 'sigmoid', 0.0, 'left'),
    ('blockwise', "sink(kind='fixed')", 3.0, 'window'),
    ('flash', "sink(kind='query')", 0.0, 'left'),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ('blockwise', 'sigmoid(bias=-1)', 2.0, 'window'),
            ('blockwise', 'sink', 0.0, 'left'),
            ('blockwise', 'softmax', 2.0, 'padding'),
            ('flash', "sink(kind='fixed')", 0.0, 'window'),
            ('flash', 'sink', 0.0, 'padding'),
            ('flash', 'softmax', 2.0, 'causal'),
            ('flash', 'sigmoid', 0.0, 'causal'),
        )
    ),
]


@pytest.mark.parametrize(('core', 'text', 'softcap', 'mask'), CASES)
def test_values_and_gradients_are_those_of_dense(core, text, softcap, mask):
    found, expected = (outcome(CORES[name], text, softcap, MASKS[mask]) for name in (core, 'dense'))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-4 * np.abs(other).max() + 1e-5)
    if 'query' in text:  # the parameters of the sink have gradients
        assert np.abs(expected[1]).min() > 0
        assert np.abs(expected[2]).min() > 0


@pytest.mark.parametrize('text', ['sink', pytest.param('sigmoid', marks=pytest.mark.slow)])
def test_memory_grows_linearly(text, monkeypatch):
    monkeypatch.setattr(blockwise, 'SIDES', (64,))
    scheme = positions.make('none', DIMS, rngs=nnx.Rngs(0))
    graph, state = nnx.split(normalizers.make(text, DIMS, rngs=nnx.Rngs(0)))

    def temporary(core, length):
        def loss(state, q, k, v):
            pos = jnp.arange(length)[None]
            at = Coords(pos, pos, pos + 1, jnp.zeros((1, length, D)), contiguous=True)
            variant = Variant(nnx.merge(graph, state), softcap=5.0)
            return cores.attend(q, k, v, position=scheme, coords=at, core=core, variant=variant).sum()

        shape = jax.ShapeDtypeStruct((1, length, H, K), jnp.float32)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(state, shape, shape, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, middle, large = (temporary('blockwise', n) for n in (1024, 2048, 4096))
    assert large - middle == pytest.approx(2 * (middle - small), rel=0.1)
    assert large < temporary('dense', 1024)


def test_the_bound_of_logits():
    """softcap tanh(z / softcap), before the mask."""
    scheme, mask = positions.make('none', DIMS, rngs=nnx.Rngs(0)), MASKS['causal']
    call = dict(position=scheme, coords=coords(mask), mask=mask)
    found = dense.weights(20 * Q, KEYS, scale=0.5, variant=Variant(softcap=1.5), **call)
    z = 1.5 * np.tanh(np.einsum('bthk,bshk->bhts', 10 * np.float64(Q), KEYS) / 1.5)
    e = np.where(np.tri(T, dtype=bool), np.exp(z), 0)
    np.testing.assert_allclose(found, e / e.sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'softcap'), [('softmax', 2.0), ('sink', 0.0), ('sigmoid', 0.0), ('softpick', 2.0), ('entmax', 0.0)]
)
def test_keys_that_a_scheme_hides_stay_hidden(text, softcap):
    """Half of the heads see the past only: as under a mask that says so."""
    dims = Dims(D, H, K, max_len=64)
    scheme = positions.make("alibi(variant='asymmetric', side='split', slopes=(0, 0))", dims, rngs=nnx.Rngs(0))
    sides = masks.explicit(jnp.asarray(np.stack([np.tri(T, dtype=bool), np.tri(T, dtype=bool).T])[None]))
    variant, plain = Variant(moved(text.replace('sigmoid', 'sigmoid(bias=-1)')), softcap), positions.Position
    for core in ('dense', 'blockwise') if variant.normalizer.form != 'rows' else ('dense',):
        at = dict(coords=coords(masks.full()), core=core, variant=variant)
        found = cores.attend(Q, KEYS, V, position=scheme, mask=masks.full(), **at)
        expected = cores.attend(Q, KEYS, V, position=plain(dims, rngs=nnx.Rngs(0)), mask=sides, **at)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('core', ['blockwise', 'flash', 'linear', 'auto'])
@pytest.mark.parametrize(
    ('text', 'mixed', 'part'),
    [
        ('entmax', 'none', "normalizer 'entmax'"),
        ('softpick', 'none', "normalizer 'softpick'"),
        ('softmax', 'talking_heads', "mixing 'talking_heads'"),
        ('sink', 'none', ''),
    ],
)
def test_cores_that_cannot_run_refuse(core, text, mixed, part):
    """`auto` chooses `dense`; others name the part and the core that can run it."""
    scheme = positions.make('none', DIMS, rngs=nnx.Rngs(0))
    variant = Variant(moved(text), mixing=None if mixed == 'none' else mixing.make(mixed, DIMS, 0, rngs=nnx.Rngs(0)))
    call = dict(position=scheme, coords=coords(MASKS['causal']), mask=MASKS['causal'], core=core, variant=variant)
    if core == 'auto' or (core != 'linear' and not part):
        assert jax.eval_shape(lambda: cores.attend(Q, KEYS, V, **call)).shape == V.shape
        assert cores.make(core).quadratic(scheme, 5000, variant) == (core == 'auto' and bool(part))
        return
    message = (
        'no logits' if core == 'linear' else f'core={core} sees the attention matrix in tiles, but {re.escape(part)}'
    )
    with pytest.raises(UserError, match=message):
        cores.attend(Q, KEYS, V, **call)


def test_two_parts_that_replace_the_softmax():
    scheme = positions.make('stickbreaking', DIMS, rngs=nnx.Rngs(0))
    call = dict(position=scheme, coords=coords(MASKS['causal']), mask=MASKS['causal'], variant=Variant(moved('sink')))
    with pytest.raises(UserError, match='choose one of them'):
        cores.attend(Q, KEYS, V, **call)
