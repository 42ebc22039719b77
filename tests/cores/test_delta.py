"""Gated delta rule against the recurrence in float64, one token after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, positions
from mha.cores.delta import CHUNK
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError

B, H, K = 2, 2, 4
DIMS = Dims(6, H, K, 128, causal=True)


def inputs(length, seed=0):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((B, length, H, K)) for _ in range(3))
    return q, k, v, rng.standard_normal((B, length, DIMS.dim))


def made(core, strong=False):
    rates = cores.make(core).parameters(DIMS, rngs=nnx.Rngs(0))
    if strong:
        rates.log_a[...] = jnp.full(H, np.log(20.0))
        rates.c[...] = jnp.full(H, 1.0)
    return rates


def attend(core, rates, q, k, v, x, mask=None, position='none'):
    at, mask = jnp.arange(q.shape[1])[None], masks.causal() if mask is None else masks.causal() & mask
    coords = Coords(q_pos=at, k_pos=at, visible=mask.count(q.shape[1], q.shape[1]), x=jnp.asarray(x, jnp.float32))
    call = dict(position=positions.make(position, DIMS, rngs=nnx.Rngs(0)), coords=coords, mask=mask, core=core)
    arrays = (jnp.asarray(array, jnp.float32) for array in (q, k, v))
    return cores.attend(*arrays, **call, variant=cores.Variant(parameters=rates))


def oracle(rates, q, k, v, x, negative, seen=None):
    q, k = (y / np.sqrt((y**2).sum(-1, keepdims=True) + 1e-6) for y in (q, k))
    b, log_a = (np.asarray(y, np.float64) for y in rates(jnp.asarray(x, jnp.float32)))
    b, out = b * (2 if negative else 1), np.zeros(v.shape)
    for n, h in np.ndindex(B, H):
        memory = np.zeros((K, K))
        for t in range(q.shape[1]):
            if seen is None or seen[n, t]:
                memory = np.exp(log_a[n, t, h]) * memory
                memory += b[n, t, h] * np.outer(k[n, t, h], v[n, t, h] - memory.T @ k[n, t, h])
            out[n, t, h] = memory.T @ q[n, t, h] / np.sqrt(K)
    return out


@pytest.mark.parametrize('length', [1, CHUNK - 1, CHUNK, CHUNK + 1, 70])
def test_lengths(length):
    arrays, rates = inputs(length), made('delta')
    np.testing.assert_allclose(attend('delta', rates, *arrays), oracle(rates, *arrays, True), atol=2e-5)


@pytest.mark.parametrize('core', ['delta(gated=False)', 'delta(negative=False)', 'delta(gated=False, negative=False)'])
def test_forms(core):
    arrays, rates = inputs(40), made(core)
    expected = oracle(rates, *arrays, 'negative=False' not in core)
    np.testing.assert_allclose(attend(core, rates, *arrays), expected, atol=2e-5)


def test_gates_far_below_zero_do_not_overflow():
    arrays, rates = inputs(70), made('delta', strong=True)
    assert np.asarray(rates(jnp.asarray(arrays[3], jnp.float32))[1]).cumsum(1).min() < -1000
    np.testing.assert_allclose(attend('delta', rates, *arrays), oracle(rates, *arrays, True), atol=2e-5)


@pytest.mark.parametrize('left', [False, True])
def test_padding_leaves_the_memory_alone(left):
    arrays, rates = inputs(40), made('delta')
    seen = np.ones((B, 40), bool)
    seen[0, :9] = seen[0, :9] & (not left)
    seen[0, 31:] = seen[0, 31:] & left
    arrays[1][0, ~seen[0]] = arrays[3][0, ~seen[0]] = np.nan
    out = np.asarray(attend('delta', rates, *arrays, mask=masks.padding(jnp.asarray(seen))))
    arrays[1][0, ~seen[0]] = arrays[3][0, ~seen[0]] = 0
    np.testing.assert_allclose(out[seen], oracle(rates, *arrays, True, seen)[seen], atol=2e-5)


@pytest.mark.parametrize('which', [1, 2, 3])
def test_what_is_not_finite_reaches_later_queries_only(which):
    arrays, rates = inputs(40), made('delta')
    clean = attend('delta', rates, *arrays)
    arrays[which][0, 20] = [np.nan, np.inf][which % 2]
    out = attend('delta', rates, *arrays)
    np.testing.assert_array_equal(out[0, :20], clean[0, :20])
    assert np.isnan(out[0, 20:]).all()
    np.testing.assert_array_equal(out[1], clean[1])


def test_the_future_changes_nothing_and_gradients_are_those_of_a_loop():
    (q, k, v, x), rates = inputs(40), made('delta')
    whole, part = attend('delta', rates, q, k, v, x), attend('delta', rates, *(y[:, :33] for y in (q, k, v, x)))
    np.testing.assert_allclose(whole[:, :33], part, atol=1e-6)

    def loop(q, k, v, x):
        q, k = (y * jax.lax.rsqrt((y**2).sum(-1, keepdims=True) + 1e-6) for y in (q, k))
        b, log_a = rates(x)

        def step(memory, token):
            q, k, v, b, a = token
            memory = a[..., None, None] * memory
            u = 2 * b[..., None] * (v - jnp.einsum('bhkv,bhk->bhv', memory, k))
            memory = memory + jnp.einsum('bhk,bhv->bhkv', k, u)
            return memory, jnp.einsum('bhkv,bhk->bhv', memory, q) / np.sqrt(K)

        tokens = tuple(jnp.moveaxis(y, 1, 0) for y in (q, k, v, b, jnp.exp(log_a)))
        return jnp.moveaxis(jax.lax.scan(step, jnp.zeros((B, H, K, K)), tokens)[1], 0, 1)

    arrays = tuple(jnp.asarray(y, jnp.float32) for y in (q, k, v, x))
    found = jax.grad(lambda *a: (attend('delta', rates, *a) ** 2).sum(), (0, 1, 2, 3))(*arrays)
    expected = jax.grad(lambda *a: (loop(*a) ** 2).sum(), (0, 1, 2, 3))(*arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_it_recalls_what_is_stored_under_a_key():
    rates = made('delta(gated=False, negative=False)')
    rates.w[...] = rates.w[...] * 0 + 100  # b = 1
    keys = np.broadcast_to(np.eye(K)[None, :, None], (B, K, H, K))
    v = np.random.default_rng(0).standard_normal((B, K, H, K))
    x = np.ones((B, 2 * K, DIMS.dim))
    twice = [np.concatenate([y, y], axis=1) for y in (keys, keys, v)]
    out = attend('delta(gated=False, negative=False)', rates, *twice, x)
    np.testing.assert_allclose(out[:, K:], v / np.sqrt(K), atol=1e-5)


@pytest.mark.parametrize(
    ('position', 'mask', 'words'),
    [
        ('alibi', None, "the delta core forms no logits or weights.*'bias'"),
        ('fox', None, 'through channels that it appends'),
        ('none', masks.window(2), "the delta core .* has no 'window' mask"),
    ],
)
def test_refusals(position, mask, words):
    arrays, rates = inputs(5), made('delta')
    with pytest.raises(UserError, match=words):
        attend('delta', rates, *arrays, mask=mask, position=position)


def test_it_needs_a_layer_and_an_order():
    arrays, layer = inputs(5), MultiHeadAttention(2, 8, core='delta', rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match='learns rates: use a layer'):
        attend('delta', None, *arrays)
    with pytest.raises(UserError, match='reads tokens in order'):
        layer(jnp.ones((1, 3, 8)))


def test_a_layer_without_some_heads():
    layer = MultiHeadAttention(4, 8, core='delta', is_causal=True, rngs=nnx.Rngs(0))
    x, mask = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 8)), jnp.float32), masks.causal()
    expected = layer(x, mask=mask, head_mask=jnp.array([1.0, 0, 1, 0]))
    layer.keep((0, 2))
    np.testing.assert_allclose(layer(x, mask=mask), expected, atol=1e-6)
