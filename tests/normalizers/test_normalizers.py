"""Normalizers against oracles in float64, their limits, and what hidden keys may hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, normalizers, positions
from mha.cores import Variant
from mha.nn import masks
from mha.normalizers.entmax import entmax
from mha.positions import Coords, Dims
from mha.spec import UserError
from tests.normalizers import oracles

B, H, T, S, D = 2, 3, 6, 7, 12
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.standard_normal((B, H, T, S)).astype(np.float32)
ALLOWED = RNG.random((B, H, T, S)) < 0.7
ALLOWED[0, :, 2] = False  # a query that sees nothing
ALLOWED[1, 1, 3] = np.arange(S) == 4  # and one that sees one key
X = jnp.asarray(RNG.standard_normal((B, T, D)), jnp.float32)
COORDS = Coords(
    q_pos=jnp.arange(T)[None], k_pos=jnp.arange(S)[None], visible=jnp.asarray(ALLOWED.sum(-1)).swapaxes(1, 2), x=X
)


def make(text, causal=True):
    """Normalizer with random parameters."""
    made, rng = (
        normalizers.make(text, Dims(D, H, 4, max_len=16, causal=causal), rngs=nnx.Rngs(0)),
        np.random.default_rng(1),
    )
    params = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), nnx.state(made, nnx.Param))
    nnx.update(made, params)
    return made


def of_sink(made, z, b, h, i):
    s = made.init if made.s is None else made.s[h]
    return oracles.sink(z, s if made.w is None else s + X[b, i] @ np.asarray(made.w)[:, h])


ORACLES = {
    'softmax': lambda made, z, *at: oracles.softmax(z),
    'sink': of_sink,
    "sink(kind='query', init=0.5)": of_sink,
    "sink(kind='fixed')": of_sink,
    "sink(kind='fixed', init=-1.5)": of_sink,
    'sigmoid': lambda made, z, *at: oracles.sigmoid(z, -np.log(len(z))),
    'sigmoid(bias=-2.5)': lambda made, z, *at: oracles.sigmoid(z, -2.5),
    'softpick': lambda made, z, *at: oracles.softpick(z),
    'softpick(epsilon=0.5)': lambda made, z, *at: oracles.softpick(z, 0.5),
    **{f'entmax(alpha={a})': lambda made, z, *at, a=a: oracles.entmax(z, a) for a in (1.2, 1.5, 2.0, 3.0)},
    'stickbreaking': lambda made, z, *at: oracles.stickbreaking(z),
    "stickbreaking(remainder='self')": lambda made, z, *at: oracles.stickbreaking(z, 'self'),
}


@functools.cache
def program(text):
    """Normalizer, and its compiled weights."""
    made = make(text)
    return made, jax.jit(lambda logits, mask: made.weights(logits, mask, made.level(COORDS)))


def test_all_normalizers_have_an_oracle():
    assert {text.partition('(')[0] for text in ORACLES} == set(normalizers.names())


@pytest.mark.parametrize('text', ORACLES)
def test_weights_are_those_of_the_paper(text):
    """Logits of hidden keys are NaN, as those of a key that is not finite."""
    made, weights = program(text)
    found = weights(jnp.where(ALLOWED, LOGITS, jnp.nan), jnp.asarray(ALLOWED))
    seen = ALLOWED.any(-1, keepdims=True)
    expected = oracles.rows(functools.partial(ORACLES[text], made), LOGITS, ALLOWED)
    np.testing.assert_allclose(np.where(seen, found, 0), expected, atol=3e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize('text', ORACLES)
def test_gradients_are_slopes(text):
    """Along a random direction of the logits of visible keys; large logits and hidden NaN leave them finite."""
    _, weights = program(text)
    allowed, mix = jnp.asarray(ALLOWED & ALLOWED.any(-1, keepdims=True)), RNG.standard_normal((B, H, T, S))
    loss = lambda z: (weights(z, allowed) * np.where(ALLOWED, mix, 0)).sum()  # noqa: E731
    gradient = jax.grad(loss)(jnp.where(ALLOWED, LOGITS, jnp.nan))
    np.testing.assert_array_equal(np.where(ALLOWED, 0, gradient), 0)
    way = np.where(ALLOWED, RNG.standard_normal((B, H, T, S)), 0).astype(np.float32)
    step = 2e-3
    slope = (loss(LOGITS + step * way) - loss(LOGITS - step * way)) / (2 * step)
    assert float(slope) == pytest.approx(float((gradient * way).sum()), rel=2e-2, abs=2e-2)
    for factor in (50, -50, 1e4):
        assert np.isfinite(weights(factor * LOGITS, allowed)).all()
        assert np.isfinite(jax.grad(loss)(jnp.where(ALLOWED, factor * LOGITS, jnp.nan))).all()


def weights_of(text, logits, **parameters):
    """Weights over visible keys, with these parameters instead of random ones."""
    made = make(text)
    for name, value in parameters.items():
        getattr(made, name)[...] = jnp.full(getattr(made, name).shape, value)
    logits = jnp.asarray(logits, jnp.float32)
    shape = (1, H, *logits.shape)
    queries, keys = logits.shape
    pos = jnp.arange(queries)[None], jnp.arange(keys)[None]
    level = made.level(Coords(*pos, jnp.full((1, queries), keys), X[:1, :queries]))
    return made.weights(jnp.broadcast_to(logits, shape), jnp.ones((1, 1, *logits.shape), bool), level)[0, 0]


def test_limits_of_sinks():
    """A sink far below all keys is the softmax. One at s takes the share 1 - sigmoid(lse - s)."""
    z = LOGITS[0, 0]
    plain = weights_of('softmax', z)
    np.testing.assert_allclose(weights_of('sink', z, s=-100), plain, atol=1e-6)
    lse = jax.nn.logsumexp(z, -1, keepdims=True)
    np.testing.assert_allclose(weights_of('sink', z, s=0.7), plain * jax.nn.sigmoid(lse - 0.7), atol=1e-6)
    fixed = weights_of("sink(kind='fixed')", z)  # softmax1
    np.testing.assert_allclose(fixed, np.exp(z) / (1 + np.exp(z).sum(-1, keepdims=True)), atol=1e-6)
    assert not jax.tree.leaves(nnx.state(make("sink(kind='fixed')"), nnx.Param))
    np.testing.assert_allclose(weights_of('sink', z - 1e4, s=0), 0)
    np.testing.assert_array_equal(normalizers.make("sink(kind='query')", Dims(D, H, 4, 16), rngs=nnx.Rngs(0)).w[...], 0)


def test_limits_of_entmax():
    z = LOGITS[0, 0]
    for alpha in (1.5, 2.0):
        exact, halved = (weights_of(f'entmax(alpha={a})', z) for a in (alpha, alpha + 1e-6))
        np.testing.assert_allclose(exact, halved, atol=2e-5)
        np.testing.assert_allclose(exact.sum(-1), 1, atol=1e-6)
        assert (np.asarray(exact) == 0).any()
    np.testing.assert_allclose(weights_of('entmax(alpha=1.001)', z), weights_of('softmax', z), atol=3e-3)
    for alpha in (1.3, 1.5, 2.0):
        np.testing.assert_array_equal(weights_of(f'entmax(alpha={alpha})', [[-3.0]]), 1)  # of one key
        np.testing.assert_allclose(weights_of(f'entmax(alpha={alpha})', [[5.0] * 4]), 0.25, atol=1e-6)
    lengths = jax.jit(lambda z: entmax(1.5, z))(jnp.asarray(10 * RNG.standard_normal((3, 2000)), jnp.float32))
    np.testing.assert_allclose(lengths.sum(-1), 1, atol=1e-5)


def test_limits_of_softpick():
    """Logits of at most 0 get no weight. Large ones do not overflow."""
    np.testing.assert_array_equal(weights_of('softpick', [[0.0, 0.0], [-1.0, -200.0]]), 0)
    np.testing.assert_allclose(weights_of('softpick', [[1e4, 1e4, -1e4]]), [[0.5, 0.5, 0]])
    np.testing.assert_allclose(weights_of('softpick', [[1.0, -1.0]])[0, 1], 0)


def test_levels_of_the_sigmoid():
    """By default, equal logits of 0 make weights of about 1 / n each."""
    zero = weights_of('sigmoid', np.zeros((1, 50)))
    np.testing.assert_allclose(zero.sum(-1), 50 / 51, atol=1e-6)
    np.testing.assert_allclose(weights_of('sigmoid(bias=0)', np.zeros((1, 50))), 0.5)


@pytest.mark.parametrize('remainder', ['zero', 'self'])
def test_stickbreaking_is_that_of_the_position_scheme(remainder):
    text, dims = f'stickbreaking(remainder={remainder!r})', Dims(D, H, 4, max_len=16, causal=True)
    scheme = positions.make(text, dims, rngs=nnx.Rngs(0))
    z, mask = jnp.asarray(LOGITS), jnp.asarray(ALLOWED)
    expected = scheme.weights(jnp.where(mask, z, 0), mask, None, None)
    np.testing.assert_array_equal(make(text).weights(z, mask, None), expected)


@pytest.mark.parametrize('text', ["sink(kind='query')", 'entmax', 'sigmoid', 'softpick', 'stickbreaking'])
def test_attention(text):
    """Queries without keys get zeros. Keys and values that nobody sees may be NaN: they change neither the output nor a
    gradient."""
    dims, seen = Dims(D, H, 4, max_len=16, causal=True), ALLOWED.copy()
    seen[..., 5] = False
    mask, variant = masks.explicit(jnp.asarray(seen)), Variant(make(text))
    q, k, v = (jnp.asarray(RNG.standard_normal((B, n, H, 4)), jnp.float32) for n in (T, S, S))
    scheme = positions.make('none', dims, rngs=nnx.Rngs(0))

    @jax.jit
    def run(*qkv):
        def loss(*qkv):
            out = cores.attend(*qkv, position=scheme, coords=COORDS, mask=mask, core='dense', variant=variant)
            return (out**2).sum(), out

        gradients, out = jax.grad(loss, (0, 1, 2), has_aux=True)(*qkv)
        return out, *gradients

    plain = run(q, k, v)
    np.testing.assert_array_equal(plain[0][0, 2], 0)
    np.testing.assert_array_equal(plain[1][0, 2], 0)
    assert np.abs(plain[0][0, 1]).max() > 0
    for one, other in zip(run(q, k.at[:, 5].set(jnp.nan), v.at[:, 5].set(jnp.nan)), plain, strict=True):
        np.testing.assert_array_equal(one, other)


def test_heads_can_be_removed():
    for text in ('sink', "sink(kind='query')", "sink(kind='fixed', init=2.0)", 'sigmoid', 'sigmoid(bias=-1)'):
        made = make(text)
        before = jnp.broadcast_to(made.level(COORDS), (B, T, H))
        made.keep((0, 2))
        coords = Coords(COORDS.q_pos, COORDS.k_pos, COORDS.visible[..., np.array([0, 2])], X)
        np.testing.assert_allclose(jnp.broadcast_to(made.level(coords), (B, T, 2)), before[..., np.array([0, 2])])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('sofmax', "unknown normalizer 'sofmax' - did you mean 'softmax'"),
        ('sink|entmax', 'a layer has one, not 2'),
        ('entmax(alpha=1)', 'alpha must be above 1'),
        ('entmax(alpha=9)', 'at most 4'),
        ("sink(kind='layer')", "'head' or 'query' or 'fixed'"),
        ('softpick(epsilon=0)', 'above 0'),
        ('stickbreaking', 'causal attention only'),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message) as error:
        make(text, causal=False)
    assert '\n' not in str(error.value)
