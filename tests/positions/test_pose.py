"""PoSE against its law, by enumeration: runs of tokens, skips that grow, positions below the target."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError


def make(text):
    return positions.make(text, Dims(16, 2, 8, max_len=8), rngs=nnx.Rngs(0))


def draws(text, length, keys, rows=1):
    pos = jnp.broadcast_to(jnp.arange(length), (rows, length))
    remap = jax.jit(jax.vmap(lambda key: make(text).remap(pos, key=key, train=True)))
    return np.asarray(remap(jax.random.split(jax.random.key(2), keys)))


def law(length, target, chunks):
    """Probability of every outcome, by walking the tree of draws."""
    outcomes = collections.Counter()

    def walk(probability, done, skip, run, tokens):
        rest = length - len(tokens)
        if run == chunks:
            outcomes[(*tokens, *(len(tokens) + i + skip for i in range(rest)))] += probability
            return
        sizes = range(1, -(-rest // (chunks - run + 1)) + 1) if rest else [0]
        for size in sizes:
            start = len(tokens)
            held = (*tokens, *(start + i + skip for i in range(size)))
            skips = range(skip, target - length + 1)
            for further in skips:
                walk(probability / len(sizes) / len(skips), done + size, further, run + 1, held)

    walk(1.0, 0, 0, 1, ())
    return outcomes


@pytest.mark.parametrize(('length', 'target', 'chunks'), [(4, 6, 2), (5, 7, 2), (5, 7, 3), (2, 4, 3), (1, 3, 2)])
def test_the_law(length, target, chunks):
    keys, expected = 8000, law(length, target, chunks)
    drawn = collections.Counter(
        map(tuple, draws(f'pose(target_length={target}, chunks={chunks})', length, keys)[:, 0].tolist())
    )
    assert sum(expected.values()) == pytest.approx(1)
    assert set(drawn) == set(expected)
    for outcome, share in expected.items():
        assert abs(drawn[outcome] - keys * share) < 5 * np.sqrt(keys * share) + 1, outcome


@pytest.mark.parametrize('chunks', [2, 3, 8])
def test_increasing_and_below_the_target(chunks):
    drawn = draws(f'pose(target_length=50, chunks={chunks})', 8, 500, rows=3)
    assert np.all(np.diff(drawn, axis=-1) > 0)
    assert drawn[..., 0].max() == drawn.min() == 0
    assert drawn.max() == 49
    assert np.all((np.diff(drawn, axis=-1) > 1).sum(-1) < chunks)
    assert np.mean((drawn[:, 0] == drawn[:, 1]).all(-1)) < 0.05


def test_evaluation_and_long_sequences_keep_their_positions():
    pos = jnp.arange(8)[None]
    np.testing.assert_array_equal(make('pose(target_length=50)').remap(pos), pos)
    for target in (3, 8):
        np.testing.assert_array_equal(draws(f'pose(target_length={target})', 8, 5), np.tile(pos, (5, 1, 1)))


def test_padding_does_not_move_real_tokens_and_stays_in_range():
    scheme = make('pose(target_length=20, chunks=3)')
    for seed in range(5):
        key = jax.random.key(seed)
        alone = scheme.remap(jnp.broadcast_to(jnp.arange(5), (2, 5)), key=key, train=True)
        valid = jnp.broadcast_to(jnp.arange(9) < 5, (2, 9))
        right = scheme.remap(jnp.broadcast_to(jnp.arange(9), (2, 9)), valid=valid, key=key, train=True)
        np.testing.assert_array_equal(right[:, :5], alone)
        assert right.max() < 20
        left = scheme.remap(jnp.cumsum(valid[:, ::-1], -1) - 1, valid=valid[:, ::-1], key=key, train=True)
        np.testing.assert_array_equal(left[:, 4:], alone)


def test_coordinates_of_another_remap_stay_below_the_target():
    scheme = make('pose(target_length=20)')
    pos = jnp.array([[0.5, 3.0, 7.25, 11.5]])
    drawn = np.concatenate([scheme.remap(pos, key=jax.random.key(i), train=True) for i in range(50)])
    assert np.all(np.diff(drawn) > 0)
    assert 17 < drawn.max() <= 19


@pytest.mark.parametrize(('length', 'extent'), [(8, 50), (50, 50), (60, 60)])
def test_extent(length, extent):
    assert make('pose(target_length=50)').extent(length) == extent


def test_errors():
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make('pose(target_length=50)').remap(jnp.arange(8)[None], train=True)
    with pytest.raises(UserError, match='chunks must be at least 2, not 1'):
        make('pose(target_length=50, chunks=1)')
    with pytest.raises(UserError, match='target_length must be at least 1'):
        make('pose(target_length=0)')
    with pytest.raises(UserError, match="needs 'target_length'"):
        make('pose')
