"""PaTH attention against products of Householder matrices in float64, and against keys that later tokens reflect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims
from tests.positions.cases import causal_cases
from tests.positions.conftest import BATCH, LENGTH


def reflections(scheme, x):
    """w [B, T, H, K] and beta [B, T, H]."""
    down, up, taps, b, c = (np.asarray(getattr(scheme, n)[...], np.float64) for n in ('down', 'up', 'taps', 'b', 'c'))
    u, mixed = x @ down @ up, np.zeros((*x.shape[:2], up.shape[1]))
    for t, tap in np.ndindex(x.shape[1], 3):
        if t - 2 + tap >= 0:
            mixed[:, t] += u[:, t - 2 + tap] * taps[tap]
    w = (mixed / (1 + np.exp(-mixed))).reshape(*x.shape[:2], scheme.heads, scheme.head_dim)
    return w / np.linalg.norm(w, axis=-1, keepdims=True), 2 / (1 + np.exp(-(x @ b + c)))


def by_matrices(q, k, w, beta):
    """Products q_i . H_i .. H_(j+1) k_j, with every matrix written out."""
    out = np.zeros((len(q), q.shape[2], q.shape[1], q.shape[1]))
    for b, h, i in np.ndindex(out.shape[:3]):
        between = np.eye(q.shape[-1])
        for j in reversed(range(i + 1)):
            out[b, h, i, j] = q[b, i, h] @ between @ k[b, j, h]
            between = between @ (np.eye(q.shape[-1]) - beta[b, j, h] * np.outer(w[b, j, h], w[b, j, h]))
    return out


def by_updates(q, k, w, beta):
    """The same, by reflecting all earlier keys when a token arrives."""
    out, keys = np.zeros((len(q), q.shape[2], q.shape[1], q.shape[1])), k.copy()
    for t in range(q.shape[1]):
        along = np.einsum('bhk,bjhk->bjh', w[:, t], keys[:, :t])
        keys[:, :t] -= (beta[:, t][:, None] * along)[..., None] * w[:, t][:, None]
        out[:, :, t, : t + 1] = np.einsum('bhk,bjhk->bhj', q[:, t], keys[:, : t + 1])
    return out


@causal_cases
def test_three_forms_agree(case):
    scheme, x = case.make('path(rank=3)'), case.draw('x', BATCH, LENGTH, 24)
    matrices = by_matrices(case.q, case.k, *reflections(scheme, x)) / np.sqrt(8)
    np.testing.assert_allclose(by_updates(case.q, case.k, *reflections(scheme, x)) / np.sqrt(8), matrices, atol=1e-12)
    case.check(scheme, matrices, atol=2e-5)


@causal_cases
def test_with_forgetting(case):
    x = case.draw('x', BATCH, LENGTH, 24)
    scheme = case.make('path(rank=3)|fox')
    path, fox = scheme.parts
    f = x @ np.asarray(fox.w[...], np.float64) + np.asarray(fox.b[...], np.float64)
    sums = np.cumsum(-np.logaddexp(0, -f), axis=1).swapaxes(1, 2)
    products = by_matrices(case.q, case.k, *reflections(path, x)) / np.sqrt(8)
    case.check(scheme, products + sums[..., :, None] - sums[..., None, :], atol=3e-5)


def call(length=9, visible=None):
    rng = np.random.default_rng(0)
    x, q, k = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((1, 9, 24), *[(1, 9, 4, 8)] * 2))
    at = jnp.arange(length)[None]
    visible = at + 1 if visible is None else visible
    return q[:, -length:], k[:, -length:], Coords(q_pos=at, k_pos=at, visible=visible, x=x[:, -length:])


def make(text='path'):
    return positions.make(text, Dims(24, 4, 8, 32, causal=True), rngs=nnx.Rngs(0))


def test_without_reflections_it_is_none():
    q, k, coords = call()
    found = make('path(bias_init=-100)').product(q, k, coords)
    np.testing.assert_allclose(found, np.einsum('bthk,bshk->bhts', q, k), atol=1e-5)


def test_padding_reflects_nothing():
    """On the left, padding sees no key; on the right, it comes after all that count."""
    q, k, coords = call(visible=jnp.maximum(jnp.arange(9) - 3, 0)[None])
    whole = make().product(q, k, coords)[:, :, 4:, 4:]
    np.testing.assert_allclose(np.tril(whole), np.tril(make().product(*call(5))), atol=1e-5)


def test_gradients_are_finite_and_reach_all_parameters():
    q, k, coords = call()
    graph, params = nnx.split(make())

    def loss(params, q, k):
        return (jnp.tril(nnx.merge(graph, params).product(q, k, coords)) ** 2).sum()

    gradients = jax.grad(loss, (0, 1, 2))(params, q, k)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))


def test_it_is_for_one_sequence():
    q, k, coords = call()
    with pytest.raises(ValueError, match='9 queries meet 5 keys'):
        make().product(q, k[:, :5], coords)
