"""Randomised offsets: Toeplitz distances from a drawn table, whatever scheme of distances consumes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError

HEADS, LENGTH = 2, 9
SPECS = ('alibi', "alibi(variant='symmetric')", 't5', 'txl', 'shaw', 'fire', 'kerple')
ARGUMENTS = ('', 'both_sides=True', 'released=True')


def make(inner='', arguments='', causal=False, max_len=LENGTH):
    text = f'randomize_offsets(max_position=64{", " if arguments else ""}{arguments})'
    dims = Dims(16, HEADS, 8, max_len=max_len, causal=causal)
    return positions.make(f'{text}|{inner}' if inner else text, dims, rngs=nnx.Rngs(0))


def table(scheme, length=LENGTH, seed=0, valid=None):
    """D for i - j = -(T - 1) .. T - 1."""
    placed, _ = scheme.place(jnp.arange(length)[None], key=jax.random.key(seed), valid=valid)
    return np.asarray(placed.offsets)


def matrix(offsets):
    """D [T, T] of one table."""
    i = np.arange((len(offsets) + 1) // 2)
    return offsets[i[:, None] - i[None] + len(i) - 1]


@pytest.mark.parametrize('both_sides', [False, True])
def test_the_table(both_sides):
    """Zero for the own slot, then distinct rising distances; the future mirrors the past or has a draw of its own."""
    scheme = make(arguments='both_sides=True' if both_sides else '')
    drawn = np.stack([table(scheme, seed=seed)[0] for seed in range(60)])
    assert (drawn[:, LENGTH - 1] == 0).all()
    assert (np.diff(drawn, axis=1) > 0).all()
    past, future = drawn[:, LENGTH:], -drawn[:, LENGTH - 2 :: -1]
    assert past.min() == future.min() == 1
    assert past.max() == future.max() == 63
    assert (past == future).all() is np.bool_(not both_sides)


def test_distances_are_toeplitz_and_do_not_add_up():
    distance = matrix(table(make())[0])
    for apart in range(1 - LENGTH, LENGTH):
        assert len(set(np.diag(distance, apart))) == 1
    assert any(distance[k, 0] != distance[k, j] + distance[j, 0] for k in range(2, LENGTH) for j in range(1, k))


def test_all_distances_where_there_is_no_choice():
    scheme = make(max_len=64)
    np.testing.assert_array_equal(table(scheme, 64)[0], np.arange(-63, 64))


def test_padding_does_not_change_the_draw():
    valid = jnp.arange(LENGTH)[None] < 5
    padded, short = table(make(), valid=valid)[0], table(make(), 5)[0]
    np.testing.assert_array_equal(padded[LENGTH - 5 : LENGTH + 4], short)


@pytest.mark.parametrize(
    ('arguments', 'inner'),
    [
        pytest.param(arguments, inner, marks=[pytest.mark.slow] * (arguments != '' and inner not in ('t5', 'txl')))
        for arguments in ARGUMENTS
        for inner in SPECS
    ],
)
@pytest.mark.parametrize('causal', [False, True])
def test_every_pair_meets_the_inner_scheme_at_its_distance(inner, arguments, causal):
    """Bias and content of pair (i, j) are those of the inner scheme for one query and one key D_ij apart.

    The arguments change the distances, whoever reads them: the quick tests have a bias and a content each."""
    if causal and arguments == 'released=True':
        pytest.skip('refused, see below')
    scheme = make(inner, arguments, causal)
    rng = np.random.default_rng(0)
    own = nnx.state(scheme, nnx.Param)
    nnx.update(scheme, jax.tree.map(lambda x: x + rng.standard_normal(x.shape, np.float32), own))
    pos = jnp.arange(LENGTH)[None]
    placed, at = scheme.place(pos, key=jax.random.key(1))
    distance = matrix(np.asarray(placed.offsets)[0])
    q, k = (rng.standard_normal((2, LENGTH, HEADS, 8), np.float32) for _ in range(2))
    whole = jax.jit(lambda: {'bias': placed.bias(at, at), 'content': placed.content(q, k, at, at)})
    terms = {name: None if term is None else np.asarray(term) for name, term in whole().items()}
    assert any(term is not None for term in terms.values())
    inner_bias, inner_content = jax.jit(scheme.inner.bias), jax.jit(scheme.inner.content)
    for i, j in [(0, 0), (8, 0), (3, 2), *([] if causal else [(0, 8), (2, 7)])]:
        one, other = np.zeros((1, 1), np.float32), np.full((1, 1), -distance[i, j], np.float32)
        if terms['bias'] is not None:
            np.testing.assert_allclose(
                terms['bias'][0, :, i, j], np.asarray(inner_bias(one, other))[0, :, 0, 0], rtol=1e-5, atol=1e-5
            )
        if terms['content'] is not None:
            pair = np.asarray(inner_content(q[:, i : i + 1], k[:, j : j + 1], one, other))
            np.testing.assert_allclose(terms['content'][:, :, i, j], pair[:, :, 0, 0], atol=1e-4)


@pytest.mark.parametrize('case', [(causal, 12, 'contiguous') for causal in (False, True)], indirect=True, ids=str)
def test_weights(case):
    """Against ALiBi's bias at the drawn distances, which are between slots, and the half slope that the released code
    takes off the past."""
    scheme = case.make('randomize_offsets(max_position=256)|alibi')
    placed, _ = scheme.place(jnp.asarray(case.pos)[None], key=jax.random.key(2))
    distance = matrix(np.asarray(placed.offsets, np.float64)[0])
    power = 2 ** int(np.log2(case.heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-4 * (h + 1) / power) for h in range(0, 2 * power, 2)][: case.heads - power]
    penalty = np.abs(distance) if case.causal else np.abs(distance) - 0.5 * (distance > 0)
    case.check(placed, case.dot() - np.array(slopes)[:, None, None] * penalty)


def test_values_too():
    scheme = make('shaw(k=3)')
    nnx.update(scheme, jax.tree.map(lambda x: x + jnp.arange(x.size).reshape(x.shape), nnx.state(scheme, nnx.Param)))
    placed, at = scheme.place(jnp.arange(LENGTH)[None], key=jax.random.key(1))
    distance = matrix(np.asarray(placed.offsets)[0])
    weights = jax.random.uniform(jax.random.key(0), (1, HEADS, LENGTH, LENGTH))
    gain = placed.values(weights, at, at)
    expected = sum(
        scheme.inner.values(
            weights[:, :, 4:5, j : j + 1], jnp.zeros((1, 1)), jnp.full((1, 1), -distance[4, j], jnp.float32)
        )
        for j in range(LENGTH)
    )
    np.testing.assert_allclose(gain[:, 4], expected[:, 0], rtol=1e-4)


def test_released_reads_one_row_for_the_future():
    """The past at distance r meets r - 64, all else the last row."""
    drawn, released = table(make())[0], table(make(arguments='released=True'))[0]
    np.testing.assert_array_equal(released[:LENGTH], -63)
    np.testing.assert_array_equal(released[LENGTH:], drawn[LENGTH:] - 64)


def test_left_padding_counts_slots_from_the_first_real_token():
    scheme = make('alibi')
    pos = jnp.asarray([[-1, -1, 0, 1, 2]])
    placed, at = scheme.place(pos, key=jax.random.key(0), valid=pos >= 0)
    short, at_short = scheme.place(jnp.arange(3)[None], key=jax.random.key(0))
    np.testing.assert_allclose(placed.bias(at, at)[:, :, 2:, 2:], short.bias(at_short, at_short))


@pytest.mark.parametrize(
    ('inner', 'arguments', 'words'),
    [
        ('rope', '', "its 'qk' hook"),
        ('sincos', '', "its 'embed' hook"),
        ('learned', '', "its 'embed' hook"),
        ('randomize|alibi', '', "its 'remap' hook"),
        ('alibi', 'released=True, both_sides=True', 'one table'),
    ],
)
def test_what_does_not_consume_distances_is_refused(inner, arguments, words):
    with pytest.raises(UserError, match=words):
        make(inner, arguments)


def test_released_is_bidirectional():
    with pytest.raises(UserError, match='bidirectional'):
        make('alibi', 'released=True', causal=True)


def test_too_long():
    with pytest.raises(UserError, match=r'64 distances cannot serve 65 tokens, .* set max_position=65 or more'):
        make('alibi', max_len=65)


def test_using_it_undrawn_is_an_error():
    with pytest.raises(ValueError, match='drawn nothing yet'):
        make('alibi').bias(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
