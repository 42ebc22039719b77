"""Masks against loops over slots: whole, tile by tile, composed, and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha import masks
from mha.masks import causal, explicit, full, padding, prefix, segments, window

T = 9
RNG = np.random.default_rng(0)
VALID = RNG.random((3, T)) < 0.6
IDS = np.sort(RNG.integers(0, 3, (3, T)), axis=1)
ALLOWED = RNG.random((3, 2, T, T)) < 0.5

# A mask, and when query slot i of row b and head h may see key slot j.
MASKS = {
    'full': (full(), lambda b, h, i, j: True),
    'causal': (causal(), lambda b, h, i, j: j <= i),
    'padding': (padding(jnp.asarray(VALID)), lambda b, h, i, j: VALID[b, j]),
    'padding of one row': (padding(jnp.asarray(VALID[:1])), lambda b, h, i, j: VALID[0, j]),
    'prefix': (prefix(4), lambda b, h, i, j: j <= i or j < 4),
    'no prefix': (prefix(0), lambda b, h, i, j: j <= i),
    'segments': (segments(jnp.asarray(IDS)), lambda b, h, i, j: IDS[b, i] == IDS[b, j]),
    'window': (window(2, 1), lambda b, h, i, j: i - 2 <= j <= i + 1),
    'past window': (window(3), lambda b, h, i, j: i - 3 <= j <= i),
    'explicit': (explicit(jnp.asarray(ALLOWED)), lambda b, h, i, j: ALLOWED[b, h, i, j]),
    'explicit of all heads': (explicit(jnp.asarray(ALLOWED[:1, :1])), lambda b, h, i, j: ALLOWED[0, 0, i, j]),
    'causal & padding': (causal() & padding(jnp.asarray(VALID)), lambda b, h, i, j: j <= i and VALID[b, j]),
    'three': (
        (causal() & window(4)) & explicit(jnp.asarray(ALLOWED)),
        lambda b, h, i, j: i - 4 <= j <= i and ALLOWED[b, h, i, j],
    ),
}


def oracle(sees):
    return np.array([[[[sees(b, h, i, j) for j in range(T)] for i in range(T)] for h in range(2)] for b in range(3)])


@pytest.fixture(params=MASKS)
def mask_and_oracle(request):
    mask, sees = MASKS[request.param]
    return mask, oracle(sees)


def test_whole(mask_and_oracle):
    mask, expected = mask_and_oracle
    dense = mask.dense(T, T)
    assert dense.dtype == bool
    assert dense.ndim == 4
    assert dense.shape[0] in (1, 3)
    assert dense.shape[1] in (1, 2)
    assert dense.shape[2:] == (T, T)
    np.testing.assert_array_equal(np.broadcast_to(dense, expected.shape), expected)


def test_tile_is_a_slice_of_the_whole(mask_and_oracle):
    """Contiguous and scattered slots, in any order."""
    mask, expected = mask_and_oracle
    for q, k in ((np.arange(2, 6), np.arange(4, 9)), (np.array([7, 0, 3]), np.array([8, 1, 1, 0]))):
        tile = mask.tile(jnp.asarray(q), jnp.asarray(k))
        assert tile.shape[2:] == (len(q), len(k))
        wide = np.broadcast_to(tile, (3, 2, len(q), len(k)))
        np.testing.assert_array_equal(wide, expected[:, :, q][:, :, :, k])


def test_masks_are_pytrees(mask_and_oracle):
    mask, expected = mask_and_oracle
    found = jax.jit(lambda mask, q: mask.tile(q, jnp.arange(T)))(mask, jnp.arange(T))
    np.testing.assert_array_equal(np.broadcast_to(found, expected.shape), expected)


def test_other_numbers_of_queries_and_keys():
    np.testing.assert_array_equal(causal().dense(2, 4)[0, 0], [[True, False, False, False], [True, True, False, False]])
    assert full().dense(2, 5).shape == (1, 1, 2, 5)
    assert padding(jnp.asarray(VALID)).dense(2, T).shape == (3, 1, 2, T)
    assert window(1, 1).dense(3, 5).sum() == 2 + 3 + 3


def test_the_length_of_a_prefix_may_be_traced():
    found = jax.jit(lambda n: prefix(n).dense(T, T))(jnp.int32(4))
    np.testing.assert_array_equal(found, prefix(4).dense(T, T))


def test_as_mask():
    assert masks.as_mask(None).dense(T, T).all()
    assert masks.as_mask(None).dense(T, T).shape == (1, 1, T, T)
    one = causal()
    assert masks.as_mask(one) is one
    np.testing.assert_array_equal(masks.as_mask(jnp.asarray(ALLOWED)).dense(T, T), ALLOWED)


def test_masks_are_compared_and_hashed_by_what_they_are():
    assert causal() == causal()
    assert window(2) == window(2, 0)
    assert window(2) != window(3)
    assert window(2) != causal()


def test_a_mask_says_what_it_needs():
    with pytest.raises(NotImplementedError):
        masks.Mask().dense(2, 2)


def test_ranks_are_explicit(mask_and_oracle):
    with jax.numpy_rank_promotion('raise'):
        jax.eval_shape(lambda: mask_and_oracle[0].dense(T, T))
