"""Relative position representations against equations 3 to 5 of Shaw et al. (2018), with every vector of every pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, positions
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError


def pairs(table, k, heads, offset):
    """The vector of every pair [T, S, H, K]; `offset` is D = p_i - p_j, the paper's distance is j - i."""
    table = np.broadcast_to(np.asarray(table, np.float64), (heads, *table.shape[1:]))
    rows = np.clip(-offset, -k, k) + k
    return np.moveaxis(table[:, rows], 0, 2)


def logits(case, scheme, k):
    keys = case.k[:, None] + pairs(scheme.key_table[...], k, case.heads, case.offset)
    return np.einsum('bthk,btshk->bhts', case.q, keys) / 8**0.5


def make(text, heads=2):
    return positions.make(text, Dims(24, heads, 8, max_len=32), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('k', [1, 3, 16])
@pytest.mark.parametrize('share', [True, False])
def test_weights(k, share, case):
    scheme = case.make(f'shaw(k={k}, values=False, share_heads={share})')
    assert scheme.key_table.shape == (1 if share else case.heads, 2 * k + 1, 8)
    assert [hook for hook in positions.HOOKS if scheme.overrides(hook)] == ['content']
    case.check(scheme, logits(case, scheme, k))


@pytest.mark.parametrize('k', [1, 3, 16])
@pytest.mark.parametrize('share', [True, False])
def test_outputs(k, share, case):
    """z_i = sum_j A_ij (v_j + a_c)."""
    scheme = case.make(f'shaw(k={k}, share_heads={share})')
    assert [hook for hook in positions.HOOKS if scheme.overrides(hook)] == ['content', 'values']
    v = case.draw('v', 2, 13, case.heads, 8)
    seen = v[:, None] + pairs(scheme.value_table[...], k, case.heads, case.offset)
    expected = np.einsum('bhts,btshk->bthk', case.softmax(logits(case, scheme, k)), seen)
    pos = jnp.asarray(case.pos)[None]
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.full((1, 13), 13), x=jnp.zeros((2, 13, 24)))
    out = cores.attend(
        *(jnp.asarray(a, jnp.float32) for a in (case.q, case.k, v)),
        position=scheme,
        coords=coords,
        mask=masks.causal() if case.causal else masks.full(),
    )
    np.testing.assert_allclose(out, expected, atol=3e-5)


def test_positions_per_row_fractions_and_appended_channels():
    """Each example by its own positions, rounded distances, and only the first K channels of wider queries."""
    scheme = make('shaw(k=3)')
    q, k = np.random.default_rng(0).standard_normal((2, 2, 5, 2, 12)).astype(np.float32)
    q_pos, k_pos = np.array([[0, 1, 2, 7, 9], [0, 3, 4, 5, 6]]), np.array([[0, 2, 3, 5, 8], [1, 2, 4, 6, 9]])
    whole = scheme.content(*map(jnp.asarray, (q, k, q_pos, k_pos)))
    for b in range(2):
        vectors = pairs(scheme.key_table[...], 3, 2, q_pos[b][:, None] - k_pos[b])
        expected = np.einsum('thk,tshk->hts', q[b, :, :, :8], vectors) / 8**0.5
        np.testing.assert_allclose(whole[b], expected, atol=1e-5)
    near = scheme.content(*map(jnp.asarray, (q, k, q_pos + np.float32(0.3), k_pos + np.float32(0.1))))
    np.testing.assert_allclose(near, whole, atol=1e-6)


def test_values_are_summed_over_tiles():
    scheme = make('shaw(k=3)')
    weights = jax.random.normal(jax.random.key(0), (2, 2, 6, 9))
    pos = jnp.arange(9)[None]
    whole = scheme.values(weights, pos[:, :6], pos)
    parts = [scheme.values(weights[..., at], pos[:, :6], pos[:, at]) for at in (slice(0, 4), slice(4, 9))]
    np.testing.assert_allclose(parts[0] + parts[1], whole, atol=1e-5)


def test_no_array_has_a_vector_for_every_pair():
    """Compiled with gradients, the temporary memory is a few arrays [H, T, T]."""
    scheme = make('shaw(k=16)')
    q, pos = jnp.zeros((1, 256, 2, 8)), jnp.arange(256)[None]
    run = jax.grad(lambda q, k: scheme.values(scheme.content(q, k, pos, pos), pos, pos).sum())
    compiled = jax.jit(run).lower(q, q).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 6 * (4 * 2 * 256 * 256)


@pytest.mark.parametrize(('text', 'message'), [('shaw(k=0)', 'k must be at least 1'), ('shaw(k=2.5)', 'whole number')])
def test_errors(text, message):
    with pytest.raises(UserError, match=message):
        make(text)
