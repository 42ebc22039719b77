"""Randomised positions: distinct, sorted, uniform, one draw for queries and keys, the same under padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError

LENGTH = 8


def make(text='randomize(max_position=32)', max_len=LENGTH):
    return positions.make(text, Dims(16, 2, 8, max_len=max_len), rngs=nnx.Rngs(0))


def draws(text='randomize(max_position=32)', keys=400, rows=1, length=LENGTH, valid=None, **kwargs):
    """[keys, rows, length]: tokens placed once per key, compiled."""
    scheme = make(text, length)
    pos = jnp.broadcast_to(jnp.arange(length), (rows, length))

    def place(key):
        return scheme.place(pos, valid=valid, key=key, **kwargs)[1]

    return np.asarray(jax.jit(jax.vmap(place))(jax.random.split(jax.random.key(1), keys)))


@pytest.mark.parametrize('train', [False, True])
def test_distinct_sorted_and_in_range(train):
    drawn = draws(train=train)
    assert np.all(np.diff(drawn, axis=-1) > 0)
    assert drawn.min() == 0
    assert drawn.max() == 31
    assert np.issubdtype(drawn.dtype, np.integer)


def test_every_position_is_equally_likely():
    keys = 2000
    counts = np.bincount(draws(keys=keys).ravel(), minlength=32)
    share = LENGTH / 32
    sigma = np.sqrt(keys * share * (1 - share))
    assert np.abs(counts - keys * share).max() < 5 * sigma


def test_every_subset_is_equally_likely():
    keys = 3000
    drawn = draws('randomize(max_position=5)', keys=keys, length=3)[:, 0]
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 10
    assert np.abs(counts - keys / 10).max() < 5 * np.sqrt(keys * 0.1 * 0.9)


def test_all_positions_when_there_is_no_choice():
    np.testing.assert_array_equal(draws('randomize(max_position=8)', keys=3), np.broadcast_to(np.arange(8), (3, 1, 8)))


def test_draws_vary_with_the_key_and_with_nothing_else():
    scheme, pos = make(), jnp.arange(LENGTH)[None]
    one = scheme.remap(pos, key=jax.random.key(0))
    np.testing.assert_array_equal(one, scheme.remap(pos, key=jax.random.key(0)))
    np.testing.assert_array_equal(one, scheme.remap(pos, key=jax.random.key(0), train=True))
    assert not np.array_equal(one, scheme.remap(pos, key=jax.random.key(1)))


@pytest.mark.parametrize('per_example', [False, True])
def test_rows_share_one_draw_unless_per_example(per_example):
    drawn = draws(f'randomize(max_position=32, per_example={per_example})', keys=5, rows=4)
    assert drawn.shape == (5, 4, 8)
    for rows in drawn:
        assert len(np.unique(rows, axis=0)) == (4 if per_example else 1)


@pytest.mark.parametrize('per_example', [False, True])
def test_rows_of_other_lengths(per_example):
    """`pos` [1, T] with `valid` [B, T]: the real tokens of each row are distinct and sorted."""
    scheme = make(f'randomize(max_position=32, per_example={per_example})')
    count = np.array([8, 5, 5, 1])
    valid = jnp.asarray(np.arange(LENGTH) < count[:, None])
    drawn = np.asarray(scheme.place(jnp.arange(LENGTH)[None], valid=valid, key=jax.random.key(3))[1])
    assert drawn.shape == (4, LENGTH)
    for row, real in zip(drawn, count, strict=True):
        assert np.all(np.diff(row[:real]) > 0)
    assert np.all((drawn >= 0) & (drawn < 32))
    assert np.array_equal(drawn[1, :5], drawn[2, :5]) is not per_example


def test_the_marginal_of_padded_rows_is_uniform_too():
    """Taking the smallest positions of a longer draw would crowd short rows towards zero."""
    keys, real = 2000, 3
    valid = jnp.arange(LENGTH)[None] < real
    counts = np.bincount(draws(keys=keys, valid=valid)[..., :real].ravel(), minlength=32)
    share = real / 32
    assert np.abs(counts - keys * share).max() < 5 * np.sqrt(keys * share * (1 - share))


@pytest.mark.parametrize('text', ['randomize(max_position=32)', "randomize(max_position=32, test='linspace')"])
def test_padding_does_not_move_real_tokens(text):
    key = jax.random.key(5)
    alone = make(text).remap(jnp.arange(5)[None], key=key)
    right = make(text, 12).remap(jnp.arange(12)[None], valid=jnp.arange(12)[None] < 5, key=key)
    np.testing.assert_array_equal(right[:, :5], alone)
    valid = jnp.arange(12)[None] >= 7
    left = make(text, 12).remap(jnp.cumsum(valid, -1) - 1, valid=valid, key=key)
    np.testing.assert_array_equal(left[:, 7:], alone)


def test_equal_coordinates_stay_equal():
    """Packed or repeated coordinates: the n-th position of the draw goes to coordinate n."""
    scheme, key = make(), jax.random.key(2)
    drawn = scheme.remap(jnp.arange(LENGTH)[None], key=key)[0]
    packed = scheme.remap(jnp.array([[0, 1, 2, 0, 1, 2, 2, 7]]), key=key)[0]
    np.testing.assert_array_equal(packed, drawn[jnp.array([0, 1, 2, 0, 1, 2, 2, 7])])


@pytest.mark.parametrize(('length', 'last'), [(1, 99), (2, 99), (5, 100), (8, 2047), (100, 99)])
def test_linspace(length, last):
    scheme = make(f"randomize(max_position={last + 1}, test='linspace')", length)
    spaced = scheme.remap(jnp.arange(length)[None])
    expected = np.round(np.arange(length) * last / max(length - 1, 1))
    np.testing.assert_array_equal(spaced[0], expected)
    assert np.all(np.diff(spaced[0]) > 0)


def test_linspace_is_for_evaluation_only():
    text = "randomize(max_position=32, test='linspace')"
    assert len(np.unique(draws(text, keys=20)[:, 0], axis=0)) == 1
    assert len(np.unique(draws(text, keys=20, train=True)[:, 0], axis=0)) == 20


def test_a_draw_needs_a_key():
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make().remap(jnp.arange(4)[None])


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(UserError, match=r'positions cannot serve 8 tokens, .* set max_position=8 or more'):
        make('randomize(max_position=7)')
    with pytest.raises(UserError, match='max_position must be at least 1, not 0'):
        make('randomize(max_position=0)')


def test_more_tokens_than_positions_are_refused_at_the_call():
    with pytest.raises(ValueError, match='8 positions cannot serve 9 tokens'):
        make('randomize(max_position=8)').remap(jnp.arange(9)[None], key=jax.random.key(0))


@pytest.mark.parametrize(
    ('length', 'max_position', 'test'),
    [
        *((length, n, 'sample') for length, n in ((1, 1), (1, 7), (7, 7), (7, 8), (64, 64), (50, 2048), (300, 2048))),
        *((length, n, 'linspace') for length, n in ((1, 1), (7, 8), (64, 64), (300, 2048))),
        *(pytest.param(*each, 'linspace', marks=pytest.mark.slow) for each in ((1, 7), (7, 7), (50, 2048))),
    ],
)
def test_positions_never_collide_and_never_leave_the_range(length, max_position, test):
    text = f'randomize(max_position={max_position}, per_example=True, test={test!r})'
    valid = jnp.arange(length)[None] < jnp.array([[length], [(length + 1) // 2], [1]])
    drawn = draws(text, keys=20, rows=3, length=length, valid=valid)
    assert drawn.min() >= 0
    assert drawn.max() < max_position
    for row, real in enumerate(np.asarray(valid.sum(-1))):
        assert np.all(np.diff(drawn[:, row, :real], axis=-1) > 0)


@pytest.mark.parametrize(
    ('arguments', 'per_layer', 'number'),
    [
        ('', False, 1),
        (", redraw='forward'", False, 1),
        (", redraw='layer'", True, 1),
        (", test='average', draws=5", False, 5),
        (", redraw='layer', test='average', draws=2", True, 2),
    ],
)
def test_what_the_encoder_is_asked_for(arguments, per_layer, number):
    scheme, chain = make(f'randomize(32{arguments})'), make(f'randomize(32{arguments})|rope')
    assert (scheme.per_layer, scheme.draws) == (chain.per_layer, chain.draws) == (per_layer, number)


def test_average_and_layer_draw_as_sample_does():
    """One remap is one draw: the encoder calls it again for another layer, or another term of the average."""
    for train in (False, True):
        expected = draws(keys=3, train=train)
        for arguments in ("test='average', draws=4", "redraw='layer'"):
            np.testing.assert_array_equal(draws(f'randomize(32, {arguments})', keys=3, train=train), expected)


@pytest.mark.parametrize('arguments', ['draws=3', "test='linspace', draws=2", "test='average'"])
def test_draws_without_average_are_refused(arguments):
    with pytest.raises(UserError, match='with draws of 2 or more'):
        make(f'randomize(32, {arguments})')
