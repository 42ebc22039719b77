"""Kernelised attention against the sums of the papers in float64, and against softmax where it tends to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores
from mha.cores import linear
from mha.model.encoder import Encoder
from mha.nn import masks
from mha.positions import Coords, Dims, Position
from mha.spec import UserError

B, T, H, K, V = 2, 23, 3, 4, 5
RNG = np.random.default_rng(0)
Q, KEYS, VALUES = (
    RNG.standard_normal(shape).astype(np.float32) for shape in ((B, T, H, K), (B, T, H, K), (B, T, H, V))
)
VALID = np.arange(T)[None] < np.array([[17], [T]])
VALID[0, :6] = VALID[1, 9] = False  # padding on both sides, and a hole
FEATURES = {'elu+1': dict(features='elu+1'), 'performer': dict(features='performer', count=7)}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(linear, 'CHUNK', 4)


class Plain(Position):
    """Every hook at its default."""


def make(kind=Plain):
    return kind(Dims(8, H, K, max_len=T), rngs=nnx.Rngs(0))


def run(q=Q, k=KEYS, v=VALUES, *, mask=None, position=None, core=None, dropout_rate=0.0, **options):
    """One core, the linear one with `options` unless given."""
    core = core or linear.Linear(**options)
    coords = Coords(
        q_pos=jnp.arange(q.shape[1])[None],
        k_pos=jnp.arange(k.shape[1])[None],
        visible=jnp.ones((1, q.shape[1])),
        x=jnp.zeros((len(q), q.shape[1], 8)),
    )
    position = position or make()

    @jax.jit
    def attend(q, k, v, mask):
        return cores.attend(q, k, v, position=position, coords=coords, mask=mask, core=core, dropout_rate=dropout_rate)

    return attend(*(jnp.asarray(x) for x in (q, k, v)), mask)


def mask_of(causal, valid=None):
    mask = masks.causal() if causal else masks.full()
    return mask if valid is None else mask & masks.padding(jnp.asarray(valid))


def features(x, options):
    """phi(x), in float64 from the papers."""
    x = np.asarray(x, np.float64)
    if options['features'] == 'elu+1':
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
    x = x / K**0.25
    w = np.asarray(linear._directions(options['count'], K, options.get('seed', 0)), np.float64)
    return np.exp(x @ w.T - (x**2).sum(-1, keepdims=True) / 2) / np.sqrt(len(w))


def oracle(options, causal, valid, q=Q, k=KEYS, v=VALUES):
    pairs = np.einsum('bthm,bshm->bhts', features(q, options), features(k, options))
    seen = np.broadcast_to(valid[:, None, None, :], pairs.shape)
    pairs = np.where(np.tril(seen) if causal else seen, pairs, 0)
    total = pairs.sum(-1, keepdims=True)
    return np.einsum('bhts,bshv->bthv', pairs / np.where(total > 0, total, 1), v)


cases = pytest.mark.parametrize('options', FEATURES.values(), ids=FEATURES)
directions = pytest.mark.parametrize('causal', [False, True], ids=['both ways', 'causal'])


# --- the papers ------------------------------------------------------------------------------------------------------


@directions
@cases
def test_values_and_gradients(options, causal):
    """Rows without a key are zero; gradients are those of the plain [T, T] form."""
    cotangent = RNG.standard_normal(VALUES.shape).astype(np.float32)

    def plain(q, k, v):
        fq, fk = (jnp_features(x, options) for x in (q, k))
        pairs = jnp.einsum('bthm,bshm->bhts', fq, fk) * mask_of(causal, VALID).dense(T, T)
        total = pairs.sum(-1, keepdims=True)
        return jnp.einsum('bhts,bshv->bthv', pairs / jnp.where(total > 0, total, 1), v)

    def both(function):
        return jax.jit(lambda *x: (function(*x), jax.grad(lambda *x: (function(*x) * cotangent).sum(), (0, 1, 2))(*x)))

    out, gradients = both(functools.partial(run, mask=mask_of(causal, VALID), **options))(Q, KEYS, VALUES)
    np.testing.assert_allclose(out, oracle(options, causal, VALID), rtol=2e-5, atol=2e-6)
    for one, other in zip(gradients, both(plain)(Q, KEYS, VALUES)[1], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    if causal:
        np.testing.assert_array_equal(out[0, :6], 0)
        np.testing.assert_array_equal(gradients[0][0, :6], 0)


def jnp_features(x, options):
    if options['features'] == 'elu+1':
        return jax.nn.elu(x) + 1
    x, w = x / K**0.25, linear._directions(options['count'], K, 0)
    return jnp.exp(jnp.einsum('bthk,mk->bthm', x, w) - (x**2).sum(-1, keepdims=True) / 2)


@pytest.mark.parametrize('causal', [False, pytest.param(True, marks=pytest.mark.slow)], ids=['both ways', 'causal'])
def test_features_tend_to_softmax(causal):
    """The error falls like one over the root of their number."""
    small = functools.partial(run, Q / 2, KEYS / 2, mask=mask_of(causal, VALID))  # the variance is exp(|q + k|^2)
    exact = small(core='dense')

    def error(count):
        seeds = [small(features='performer', count=count, seed=seed) - exact for seed in range(3)]
        return float(np.sqrt(np.mean(np.square(seeds))))

    few, more, many = error(16), error(256), error(4096)
    assert 2.5 < few / more < 7
    assert 2.5 < more / many < 7
    assert many < 0.01


def test_directions():
    """Orthogonal in blocks of the width, each as long as a normal vector, the same whenever drawn from one seed."""
    w = linear._directions(4 * 500 + 2, 4, seed=3)
    assert w.shape == (2002, 4)
    for block in (w[:4], w[396:400]):
        np.testing.assert_allclose(block @ block.T, np.diag((block**2).sum(-1)), atol=1e-5)
    np.testing.assert_allclose(w.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(w.T @ w / len(w), np.eye(4), atol=0.12)
    np.testing.assert_array_equal(w, linear._directions(2002, 4, seed=3))
    assert np.abs(w - linear._directions(2002, 4, seed=4)).max() > 1


# --- masks -----------------------------------------------------------------------------------------------------------


@cases
def test_causality(options):
    """No gradient flows back in time, and no huge later key reaches what came before, not even by underflow."""
    out = functools.partial(run, mask=masks.causal(), **options)
    flows = jax.jit(jax.grad(lambda k, v, row: out(k=k, v=v)[:, row].sum(), (0, 1)))
    for row in (0, 6, T - 1):
        for leaf in flows(KEYS, VALUES, row):
            reached = np.abs(leaf).max((0, 2, 3)) > 0
            assert reached[: row + 1].all() or row == 0  # one key has weight 1, whatever it is
            assert not reached[row + 1 :].any()
    k = KEYS.copy()
    k[:, 14:] = 80.0
    np.testing.assert_allclose(out(k=k)[:, :14], out()[:, :14], atol=1e-6)


@directions
@cases
def test_padding_changes_nothing(options, causal):
    pad = lambda x: np.concatenate([x, np.full((B, 6, *x.shape[2:]), 9.0, np.float32)], 1)  # noqa: E731
    valid = np.arange(T + 6)[None] < T
    padded = run(pad(Q), pad(KEYS), pad(VALUES), mask=mask_of(causal, valid), **options)
    np.testing.assert_allclose(padded[:, :T], run(mask=mask_of(causal), **options), atol=2e-6)


@directions
@cases
def test_other_numbers_of_queries_and_keys(options, causal):
    for queries, keys in ((3, T), (T, 5), (1, 1)):
        q, k, v = Q[:, :queries], KEYS[:, :keys], VALUES[:, :keys]
        valid = np.ones((1, keys), bool)
        pairs = np.einsum('bthm,bshm->bhts', features(q, options), features(k, options))
        pairs = np.tril(pairs) if causal else pairs
        expected = np.einsum('bhts,bshv->bthv', pairs / pairs.sum(-1, keepdims=True), v)
        np.testing.assert_allclose(run(q, k, v, mask=mask_of(causal, valid), **options), expected, atol=5e-6)


@directions
@cases
def test_rows_without_a_key(options, causal):
    """Zeros, and finite gradients."""
    nothing = masks.padding(jnp.zeros((1, T), bool)) & mask_of(causal)
    value, gradients = jax.value_and_grad(lambda *x: run(*x, mask=nothing, **options).sum(), (0, 1, 2))(
        *(jnp.asarray(x) for x in (Q, KEYS, VALUES))
    )
    assert value == 0
    for leaf in gradients:
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize(
    ('mask', 'name'),
    [
        (masks.window(3), 'window'),
        (masks.causal() & masks.global_(2), 'global'),
        (masks.causal() | masks.full(), 'Or'),
        (masks.prefix(3), 'prefix'),
        (jnp.ones((1, 1, T, T), bool), 'explicit'),
    ],
    ids=lambda x: x if isinstance(x, str) else '',
)
def test_other_masks_are_refused(mask, name):
    with pytest.raises(UserError, match=f"has no '{name}' mask"):
        run(mask=mask)


# --- numerics --------------------------------------------------------------------------------------------------------


@directions
@cases
def test_bfloat16(options, causal):
    """All sums are float32: only inputs and output are rounded."""
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in (Q, KEYS, VALUES))
    out = run(q, k, v, mask=mask_of(causal), **options)
    assert out.dtype == jnp.bfloat16
    exact = run(*(x.astype(jnp.float32) for x in (q, k, v)), mask=mask_of(causal), **options)
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


@directions
@cases
def test_extreme_inputs_are_finite(options, causal):
    """Sums and weights may be far below or above what float32 holds, such as exp(1e8); their ratio is not."""

    def total(q, k):
        out = run(q, k, mask=mask_of(causal, VALID), **options)
        return out.sum(), out

    derive = jax.jit(jax.grad(total, (0, 1), has_aux=True))
    for size in (30.0, 1e4):
        gradients, out = derive(*(np.float32(size) * x for x in (Q, KEYS)))
        assert np.isfinite(out).all()
        assert all(np.isfinite(leaf).all() for leaf in gradients)
        assert np.abs(out).max() <= np.abs(VALUES).max() + 1e-5  # an average of values


def test_negative_inputs_do_not_underflow():
    """elu(x) + 1 = exp(x) is 0 in float32 below -104; its ratios are not."""
    far = oracle(FEATURES['elu+1'], False, np.ones((1, T), bool), Q - 120, KEYS - 120)
    np.testing.assert_allclose(run(Q - 120, KEYS - 120), far, atol=1e-4)


# --- schemes, specs, mistakes ----------------------------------------------------------------------------------------


class Turned(Plain):
    def qk(self, q, k, coords):
        return q[..., ::-1], 2 * k


class Widened(Plain):
    def qk(self, q, k, coords):
        return jnp.concatenate([q, q], -1), jnp.concatenate([k, k], -1)


@cases
def test_queries_and_keys_may_be_turned(options):
    expected = oracle(options, False, np.ones((1, T), bool), Q[..., ::-1], 2 * KEYS)
    np.testing.assert_allclose(run(position=make(Turned), **options), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hook', ['bias', 'content', 'weights', 'values'])
def test_hooks_that_need_logits_are_refused(hook):
    kind = type('Other', (Plain,), {hook: lambda self, *args: None})
    with pytest.raises(UserError, match=f"a '{hook}' hook"):
        run(position=make(kind))


def test_other_mistakes():
    with pytest.raises(UserError, match='through channels that it appends'):
        run(position=make(Widened))
    with pytest.raises(UserError, match='no weights to drop out'):
        run(dropout_rate=0.1)
    with pytest.raises(UserError, match='count must be at least 1, not 0'):
        cores.make('linear(features="performer", count=0)')


def test_arguments_in_the_name_of_a_core():
    text = "linear(features='performer', count=16, seed=1)"
    assert cores.make(text) == linear.Linear(features='performer', count=16, seed=1)
    np.testing.assert_array_equal(run(core=text), run(features='performer', count=16, seed=1))
    assert np.abs(run(core=text) - run(features='performer', count=16)).max() > 1e-3


@pytest.mark.parametrize(
    ('core', 'message'),
    [
        ('liner', "unknown attention core 'liner' - did you mean 'linear'"),
        ('linear(feature=1)', "unknown argument of attention core 'linear': 'feature' - did you mean 'features'"),
        ("linear(features='elu')", "features must be 'elu\\+1' or 'performer', not 'elu'"),
        ('linear(count=2.5)', 'count must be a whole number'),
        ('linear(scale=1.0)', "unknown argument of attention core 'linear': 'scale'"),
        ('linear(dropout_rate=0.5)', "unknown argument of attention core 'linear': 'dropout_rate'"),
        ('linear(256)', 'too many arguments'),
        ('dense(count=2)', "unknown argument of attention core 'dense': 'count' \\(choices: none"),
        ('auto(1)', 'too many arguments'),
        ('dense|linear', 'one core computes a layer, not 2'),
        ('linear(', 'cannot read'),
    ],
)
def test_mistakes_in_the_name_of_a_core(core, message):
    with pytest.raises(UserError, match=message) as error:
        cores.make(core)
    assert len(str(error.value).splitlines()) == 1


def test_an_encoder():
    sizes = dict(vocab_size=5, num_classes=3, max_len=T, layers=1, dim=16, heads=2, causal=True, rngs=nnx.Rngs(0))
    core, tokens = "linear(features='performer', count=16)", jnp.asarray(RNG.integers(0, 5, (B, T)))
    valid = jnp.arange(T)[None] < 9
    graph, state = nnx.split(Encoder(core=core, position='rope', **sizes))
    call = jax.jit(lambda tokens, valid: nnx.merge(graph, state)(tokens, valid=valid))
    np.testing.assert_allclose(call(tokens, valid)[:, :9], call(tokens[:, :9], None), atol=1e-5)
    with pytest.raises(UserError, match="a 'bias' hook"):
        Encoder(core=core, position='alibi', **sizes)(tokens)
    with pytest.raises(UserError, match="no 'window' mask"):
        Encoder(core=core, pattern='window(3)', **sizes)(tokens)


def test_memory_is_linear():
    """Temporary memory of values and gradients at four times the length: four times, not sixteen."""

    def bytes_at(length, causal):
        x = jax.ShapeDtypeStruct((1, length, 1, 16), jnp.float32)
        loss = lambda q, k, v: run(q, k, v, mask=mask_of(causal), position=none).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    none = make()
    linear.CHUNK = 64
    for causal in (False, True):
        assert bytes_at(8192, causal) < 6 * bytes_at(2048, causal) < 6 * 2048**2


@directions
def test_ranks_are_explicit(causal):
    for options in FEATURES.values():
        with jax.numpy_rank_promotion('raise'):
            jax.eval_shape(lambda q, o=options: run(q, mask=mask_of(causal, VALID[:1]), **o), Q)
