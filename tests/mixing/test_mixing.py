"""Mixings of heads: layers against oracles in float64, at first plain attention, causality, and hidden keys."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import mixing, positions
from mha.cores import Variant, dense
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.normalizers import oracles

B, T, H, K, D = 2, 9, 3, 4, 10
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((B, T, D)), jnp.float32)
VALID = np.arange(T)[None] < np.array([[T], [T - 4]])
SMALL = 'multi_token(queries=3, keys=5)'
MASKS = {
    'causal': masks.causal(),
    'padding': masks.padding(jnp.asarray(VALID)),
    'both': masks.causal() & masks.padding(jnp.asarray(VALID)),
    'documents': masks.causal() & masks.segments(jnp.asarray(np.arange(T) // 4)[None]),
    'window': masks.window(2, 1) & masks.padding(jnp.asarray(VALID)),
}


def make(text, moved=True, **options):
    """Layer whose mixing has random parameters."""
    layer = MultiHeadAttention(H, D, head_dim=K, mixing=text, use_bias=False, rngs=nnx.Rngs(0), **options)
    if moved:
        rng = np.random.default_rng(1)
        move = lambda x: x + 0.5 * jnp.asarray(rng.standard_normal(x.shape), x.dtype)  # noqa: E731
        nnx.update(layer.mixing, jax.tree.map(move, nnx.state(layer.mixing, nnx.Param)))
    return layer


call = nnx.jit(lambda layer, x, mask: layer(x, mask=mask))


def numpy(x):
    return np.asarray(x[...], np.float64)


def heads_of(layer):
    """Queries, keys and values [B, H, T, K]."""
    return [
        np.einsum('btd,dhk->bhtk', np.float64(X), numpy(part.kernel)) for part in (layer.query, layer.key, layer.value)
    ]


def softmax(logits, allowed):
    return oracles.rows(lambda z, *at: oracles.softmax(z), logits, allowed)


def normed(out, gain):
    return out / np.sqrt((out**2).mean(-1, keepdims=True) + 1e-5) * numpy(gain)


def differential(layer, allowed, number=0, init=None):
    q, k, v = heads_of(layer)
    half, start = K // 2, 0.8 - 0.6 * np.exp(-0.3 * number) if init is None else init
    one, two = (
        softmax(q[..., part] @ k[..., part].swapaxes(-1, -2) / np.sqrt(half), allowed)
        for part in (slice(None, half), slice(half, None))
    )
    q1, k1, q2, k2 = numpy(layer.mixing.vectors)
    weights = one - (np.exp(q1 @ k1) - np.exp(q2 @ k2) + start) * two
    return (1 - start) * normed(weights @ v, layer.mixing.norm.scale)


def talking_heads(layer, allowed):
    q, k, v = heads_of(layer)
    z = np.einsum('bhts,hg->bgts', q @ k.swapaxes(-1, -2) / np.sqrt(K), numpy(layer.mixing.before))
    return np.einsum('bhts,hg->bgts', softmax(z, allowed), numpy(layer.mixing.after)) @ v


def convolved(x, seen, kernel):
    """Loops over all pairs, and over all pairs around each."""
    out, (_, queries, keys) = np.zeros_like(x), kernel.shape
    for b, h, i, j in np.ndindex(x.shape):
        for before, column in np.ndindex(queries, keys):
            row, key = i - before, j + column - keys // 2
            if row >= 0 and 0 <= key < T and seen[b, h, row, key] and seen[b, h, i, key]:
                out[b, h, i, j] += kernel[h, before, column] * x[b, h, row, key]
    return out


def multi_token(layer, allowed):
    (q, k, v), own = heads_of(layer), layer.mixing
    x, seen = q @ k.swapaxes(-1, -2) / np.sqrt(K), np.broadcast_to(allowed, (B, H, T, T))
    x = convolved(x, seen, numpy(own.before))
    if own.heads_before is not None:
        x = np.einsum('bhts,hg->bgts', x, numpy(own.heads_before))
    x = softmax(x, allowed)
    if own.after is not None:
        x = convolved(x, seen, numpy(own.after)) * seen
        x = x if own.heads_after is None else np.einsum('bhts,hg->bgts', x, numpy(own.heads_after))
    if own.norm is None:
        return x @ v
    n = normed(x @ v, own.norm.scale)
    return n / (1 + np.exp(-n @ numpy(own.gate.kernel) - numpy(own.gate.bias)))


CASES = [
    ('differential', functools.partial(differential, number=3), dict(layer=3)),
    ('differential(init=0.2)', functools.partial(differential, init=0.2), {}),
    ('talking_heads', talking_heads, {}),
    (SMALL, multi_token, {}),
    ('multi_token(queries=2, keys=3, after=False, heads=False, norm=False)', multi_token, {}),
    ('multi_token(queries=1, keys=1, heads=False)', multi_token, {}),
    ('multi_token', multi_token, {}),  # wider than the sequence
]


def test_all_mixings_have_an_oracle():
    assert {text.partition('(')[0] for text, *_ in CASES} == set(mixing.names())


@pytest.mark.parametrize(('text', 'oracle', 'options'), CASES, ids=[text for text, *_ in CASES])
def test_outputs_are_those_of_the_paper(text, oracle, options):
    layer = make(text, **options)
    for name in ('padding', 'causal', 'documents', 'window'):
        allowed = np.broadcast_to(MASKS[name].dense(T, T), (B, H, T, T))
        expected = np.einsum('bhtk,hkd->btd', oracle(layer, allowed), numpy(layer.out.kernel))
        np.testing.assert_allclose(call(layer, X, MASKS[name]), expected, atol=2e-5)


@pytest.mark.parametrize('text', ['talking_heads', 'multi_token(norm=False)', SMALL])
def test_at_first_heads_are_on_their_own(text):
    """Before learning, weights are those of plain attention, and shared parameters start equal."""
    layer, plain = make(text, moved=False), make('none')
    q, k, _ = (jnp.asarray(x.swapaxes(1, 2), jnp.float32) for x in heads_of(layer))
    pos = jnp.arange(T)[None]
    at = dict(coords=Coords(pos, pos, pos + 1, X), mask=MASKS['both'], scale=K**-0.5)
    position = positions.make('none', Dims(D, H, K, T), rngs=nnx.Rngs(0))
    found, expected = (
        dense.weights(q, k, position=position, variant=variant, **at) for variant in (layer.variant, Variant())
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for part in ('query', 'key', 'value', 'out'):
        np.testing.assert_array_equal(getattr(layer, part).kernel[...], getattr(plain, part).kernel[...])


def test_differential_attention_without_a_second_map():
    """With lambda = 0, plain attention of half the width of queries and keys, normalised."""
    layer = make('differential(init=0)', moved=False)
    layer.mixing.vectors[...] = jnp.zeros_like(layer.mixing.vectors[...])
    assert layer.mixing.factor == 0
    q, k, v = heads_of(layer)
    plain = softmax(q[..., :2] @ k[..., :2].swapaxes(-1, -2) / np.sqrt(2), np.tri(T, dtype=bool)) @ v
    expected = np.einsum('bhtk,hkd->btd', normed(plain, layer.mixing.norm.scale), numpy(layer.out.kernel))
    np.testing.assert_allclose(call(layer, X, MASKS['causal']), expected, atol=1e-5)
    factors = [make('differential', moved=False, layer=number).mixing.init for number in (0, 1, 20)]
    np.testing.assert_allclose(factors, [0.2, 0.8 - 0.6 * np.exp(-0.3), 0.8], atol=2e-3)


@pytest.mark.parametrize('text', ['differential', 'talking_heads', SMALL])
def test_influence(text):
    """Gradients: outputs depend on all earlier tokens, and on no later one and none of another document."""
    layer = make(text)
    slopes = jax.jit(lambda x, mask: jax.jacrev(lambda x: layer(x, mask=mask)[0].sum(-1))(x)[:, 0])
    depends = np.abs(slopes(X[:1], MASKS['causal'])).max(-1) > 0
    np.testing.assert_array_equal(depends, np.tri(T, dtype=bool))
    together = np.abs(slopes(X[:1], MASKS['documents'])).max(-1) > 0
    document = np.arange(T) // 4
    np.testing.assert_array_equal(together, np.tri(T, dtype=bool) & (document[:, None] == document))


@pytest.mark.parametrize('text', ['differential', 'talking_heads', SMALL])
def test_hidden_tokens_may_be_nan(text):
    """They change neither the output nor the gradients of mixing and queries."""
    graph, state = nnx.split(make(text))
    loss = lambda state, x, y: (nnx.merge(graph, state)(x, y, mask=MASKS['both']) ** 2).sum()  # noqa: E731
    run = jax.jit(jax.value_and_grad(loss, (0, 1)))
    results = []
    for other in (jnp.nan, 0):
        out, (of_state, of_x) = run(state, X, jnp.where(VALID[..., None], X, other))
        results.append(jax.tree.leaves((out, of_state['mixing'], of_state['query'], of_x)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(other).max() > 0


@pytest.mark.parametrize('text', ['differential', 'talking_heads', SMALL])
def test_queries_without_keys_get_zeros(text):
    layer = make(text)
    out = call(layer, X, masks.causal() & masks.padding(jnp.arange(T)[None] >= 3))
    np.testing.assert_array_equal(out[:, :3], 0)
    assert np.abs(out[:, 3:]).min() > 0
    slopes = jax.jit(jax.grad(lambda x: (layer(x, mask=masks.padding(jnp.zeros((1, T), bool))) ** 2).sum()))(X)
    np.testing.assert_array_equal(slopes, 0)


def test_keys_that_a_scheme_hides_stay_hidden():
    """Hidden keys of heads that look back: those of the future, whatever other heads see."""
    position = "alibi(variant='asymmetric')"
    pos = jnp.arange(T)[None]
    at = dict(coords=Coords(pos, pos, pos + 1, X), mask=masks.full(), scale=K**-0.5)
    scheme = positions.make(position, Dims(D, H, K, T), rngs=nnx.Rngs(0))
    for text in ('talking_heads', 'multi_token(after=False)'):
        layer = make(text)
        if text == 'talking_heads':
            layer.mixing.after[...] = jnp.eye(H)
        q, k, _ = (jnp.asarray(x.swapaxes(1, 2), jnp.float32) for x in heads_of(layer))
        weights = dense.weights(q, k, position=scheme, variant=layer.variant, **at)
        np.testing.assert_array_equal(np.triu(weights[:, :2], 1), 0)
        np.testing.assert_array_equal(np.tril(weights[:, 2:], -1), 0)
        assert np.isfinite(weights).all()


def test_decoding():
    """Differential attention and talking heads continue from a cache; sums over queries need earlier ones."""
    for text in ('differential', 'talking_heads'):
        layer = make(text)
        layer.init_cache((B, T, D))
        steps = [layer(X[:, start : start + 3], decode=True) for start in (0, 3, 6)]
        np.testing.assert_allclose(jnp.concatenate(steps, 1), call(layer, X, MASKS['causal']), atol=1e-5)
    layer = make(SMALL)
    layer.init_cache((B, T, D))
    with pytest.raises(UserError, match="mixing 'multi_token' relates queries"):
        layer(X[:, :1], decode=True)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mixing='talking_head'), "unknown mixing of heads 'talking_head' - did you mean 'talking_heads'"),
        (dict(mixing='none|differential'), 'a layer has one, not 2'),
        (dict(mixing='none(1)'), 'too many arguments, it is none()'),
        (dict(mixing='differential', head_dim=3), 'divides the channels of a head among its maps, but it has 3'),
        (dict(mixing='multi_token(keys=4)'), 'keys must be odd'),
        (dict(mixing='multi_token(queries=0)'), 'queries must be at least 1'),
        (dict(mixing='talking_heads', core='blockwise'), "mixing 'talking_heads' works on whole rows"),
        (dict(mixing='multi_token', core='linear'), 'the linear core has no logits'),
        (dict(mixing='differential', position='shaw'), 'values are wider'),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        MultiHeadAttention(**dict(num_heads=H, in_features=D, head_dim=K, rngs=nnx.Rngs(0)) | options)(X)
    assert '\n' not in str(error.value)
