"""The dense core against attention in float64 loops: every hook, every mask, rows without keys, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores
from mha.cores import dense
from mha.nn import masks
from mha.positions import Coords, Dims, Position
from mha.spec import UserError

B, T, S, H, K, V = 2, 5, 7, 3, 4, 6
RNG = np.random.default_rng(0)
Q, KEYS, VALUES = (
    RNG.standard_normal(shape).astype(np.float32) for shape in ((B, T, H, K), (B, S, H, K), (B, S, H, V))
)
BIAS = RNG.standard_normal((1, H, T, S)).astype(np.float32)
CONTENT = RNG.standard_normal((B, H, T, S)).astype(np.float32)
VISIBLE = RNG.random((B, H, T, S)) < 0.6
VISIBLE[0, :, 2] = False
COORDS = Coords(
    q_pos=jnp.arange(T)[None], k_pos=jnp.arange(S)[None], visible=jnp.full((1, T), S), x=jnp.zeros((B, T, 8))
)


class Plain(Position):
    """Every hook at its default."""


class Everything(Position):
    """Each hook does something that is easy to repeat: a longer, wider query and key, a bias and a content term."""

    def qk(self, q, k, coords):
        return jnp.concatenate([2 * q, q[..., :1]], -1), jnp.concatenate([k, 3 * k[..., :1]], -1)

    def bias(self, q_pos, k_pos):
        return jnp.asarray(BIAS)

    def content(self, q, k, q_pos, k_pos):
        return jnp.asarray(CONTENT)


class Uniform(Position):
    """Replaces the softmax: equal weights for what is visible."""

    def weights(self, logits, mask, q, coords):
        seen = jnp.broadcast_to(mask, logits.shape)
        return seen / jnp.maximum(seen.sum(-1, keepdims=True), 1)


def make(kind):
    return kind(Dims(8, H, K, max_len=S), rngs=nnx.Rngs(0))


def oracle(kind, visible=None):
    """Attention weights by loops, in float64."""
    q, k = Q.astype(np.float64), KEYS.astype(np.float64)
    a = np.zeros((B, H, T, S))
    for b, h, i in np.ndindex(B, H, T):
        logits = np.zeros(S)
        for j in range(S):
            dot = q[b, i, h] @ k[b, j, h]
            if kind is Everything:
                dot = 2 * dot + 3 * q[b, i, h, 0] * k[b, j, h, 0]
            logits[j] = dot / np.sqrt(K)
            if kind is Everything:
                logits[j] += BIAS[0, h, i, j] + CONTENT[b, h, i, j]
        seen = np.ones(S, bool) if visible is None else visible[b, h, i]
        if kind is Uniform:
            logits = np.zeros(S)
        if seen.any():
            weights = np.where(seen, np.exp(logits - logits[seen].max()), 0)
            a[b, h, i] = weights / weights.sum()
    return a


def attend(kind, mask=None, q=Q, k=KEYS, v=VALUES, **options):
    options = {'core': 'dense', **options}
    return cores.attend(
        jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), position=make(kind), coords=COORDS, mask=mask, **options
    )


@pytest.mark.parametrize('kind', [Plain, Everything, Uniform])
@pytest.mark.parametrize('visible', [None, VISIBLE], ids=['full', 'masked'])
def test_values(kind, visible):
    mask = None if visible is None else jnp.asarray(visible)
    expected = np.einsum('bhts,bshv->bthv', oracle(kind, visible), VALUES)
    np.testing.assert_allclose(attend(kind, mask), expected, atol=1e-5)
    np.testing.assert_allclose(attend(kind, mask, core='auto'), expected, atol=1e-5)


def test_the_scale_is_that_of_the_head_before_it_was_widened():
    wide = attend(Everything)
    q, k = make(Everything).qk(jnp.asarray(Q), jnp.asarray(KEYS), COORDS)
    same = dense.Dense().attend(
        q, k, jnp.asarray(VALUES), position=make(Everything), coords=COORDS, mask=masks.full(), scale=K**-0.5
    )
    np.testing.assert_allclose(wide, same, atol=1e-6)


def test_rows_without_a_visible_key_are_zero_and_their_gradients_finite():
    mask = masks.explicit(jnp.asarray(VISIBLE))
    np.testing.assert_array_equal(attend(Everything, mask)[0, 2], 0)

    def loss(q, k, v):
        out = cores.attend(q, k, v, position=make(Everything), coords=COORDS, mask=mask)
        return (out**2).sum()

    gradients = jax.grad(loss, (0, 1, 2))(jnp.asarray(Q), jnp.asarray(KEYS), jnp.asarray(VALUES))
    assert all(np.isfinite(leaf).all() for leaf in gradients)
    np.testing.assert_array_equal(gradients[0][0, 2], 0)


def test_hidden_keys_may_hold_anything():
    """A mask removes a key whatever its logits: no sum of large numbers, no overflow, in float16 too."""
    visible = np.ones((1, 1, T, S), bool)
    visible[..., 5:] = False
    k, v = KEYS.copy(), VALUES.copy()
    k[:, 5:], v[:, 5:] = 1e35, 1e35
    np.testing.assert_array_equal(attend(Plain, jnp.asarray(visible), k=k, v=v), attend(Plain, jnp.asarray(visible)))
    for dtype in (jnp.float16, jnp.bfloat16):
        q, k, v = (jnp.asarray(x, dtype) for x in (Q, KEYS, VALUES))
        both = masks.explicit(jnp.asarray(visible)) & masks.causal() & masks.window(2)
        out = attend(Everything, both, q=q, k=k, v=v)
        assert out.dtype == dtype
        assert np.isfinite(np.asarray(out, np.float32)).all()


def test_large_logits_neither_overflow_nor_flatten():
    q = np.zeros_like(Q)
    q[..., 0] = 300.0
    k = np.zeros_like(KEYS)
    k[:, 3, :, 0] = 300.0
    np.testing.assert_allclose(attend(Plain, q=q, k=k), np.broadcast_to(VALUES[:, 3:4], (B, T, H, V)), atol=1e-6)


def test_the_softmax_is_in_float32():
    """Weights of bfloat16 inputs are those of float32 inputs of the same values."""
    q, k = jnp.asarray(Q, jnp.bfloat16), jnp.asarray(KEYS, jnp.bfloat16)
    settings = dict(position=make(Plain), coords=COORDS, mask=masks.full(), scale=0.5)
    low = dense.weights(q, k, **settings)
    high = dense.weights(q.astype(jnp.float32), k.astype(jnp.float32), **settings)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, high, atol=1e-6)
    np.testing.assert_allclose(low.sum(-1), 1, atol=1e-6)


def test_dropout():
    """Weights are dropped and the rest scaled up: right on average, and zeros at the rate asked for."""
    rate = 0.25
    eye = np.broadcast_to(np.eye(S, dtype=np.float32)[None, :, None], (B, S, H, S))
    kept = attend(Plain, v=eye)
    many = jax.vmap(lambda key: attend(Plain, v=eye, dropout_rate=rate, rngs=nnx.Rngs(dropout=key)))(
        jax.random.split(jax.random.key(0), 300)
    )
    assert np.mean(np.asarray(many) == 0) == pytest.approx(rate, abs=0.01)
    surviving = np.asarray(many)[np.asarray(many) != 0]
    whole = np.broadcast_to(np.asarray(kept) / (1 - rate), many.shape)[np.asarray(many) != 0]
    np.testing.assert_allclose(surviving, whole, rtol=1e-5)
    np.testing.assert_array_equal(attend(Plain, dropout_rate=rate), attend(Plain))
    np.testing.assert_array_equal(attend(Plain, dropout_rate=0.0, rngs=nnx.Rngs(dropout=0)), attend(Plain))


def test_names_and_errors():
    assert 'dense' in cores.names()
    with pytest.raises(UserError, match="unknown attention core 'densely' - did you mean 'dense'"):
        attend(Plain, core='densely')


@pytest.mark.parametrize('core', cores.names())
def test_every_core_has_a_name_that_runs(core):
    assert callable(cores.attend)
    if core == 'dense':
        assert attend(Plain, core=core).shape == (B, T, H, V)


def test_ranks_are_explicit():
    with jax.numpy_rank_promotion('raise'):
        jax.eval_shape(lambda q: attend(Everything, masks.causal(), q=q), Q)
        jax.eval_shape(
            lambda q: attend(Plain, jnp.asarray(VISIBLE), q=q, dropout_rate=0.1, rngs=nnx.Rngs(dropout=0)), Q
        )
