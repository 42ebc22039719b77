"""Learned absolute embeddings: x + W[p]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.positions.base import lookup
from mha.spec import UserError

DIMS = Dims(dim=24, heads=4, head_dim=6, max_len=20)


def make(spec, dims=DIMS):
    return positions.make(spec, dims, rngs=nnx.Rngs(0))


def test_embedding(case):
    scheme = case.make('learned')
    table = np.asarray(scheme.table[...], np.float64)
    x = case.draw('x', 2, len(case.pos), 24)
    out = scheme.embed(jnp.asarray(x, jnp.float32), jnp.asarray(case.pos)[None])
    np.testing.assert_allclose(out, x + table[case.pos], atol=1e-5)
    case.check(scheme, case.dot())


def test_each_row_of_a_batch_reads_its_own_positions():
    scheme = make('learned')
    pos = jnp.array([[0, 1, 2], [7, 3, 19]])
    np.testing.assert_allclose(scheme.embed(jnp.zeros((2, 3, 24)), pos), np.asarray(scheme.table[...])[pos], atol=1e-7)


@pytest.mark.parametrize(('spec', 'rows'), [('learned', 20), ('learned(max_position=33)', 33), ('learned(50)', 50)])
def test_size_of_the_table(spec, rows):
    scheme = make(spec)
    assert scheme.table.shape == (rows, 24)
    assert scheme.extent(rows) == rows
    with pytest.raises(ValueError, match=f'{rows} rows'):
        scheme.extent(rows + 1)


@pytest.mark.parametrize('std', [0.02, 1.0])
def test_initial_values(std):
    table = make(f'learned(max_position=500, init_std={std})').table[...]
    assert np.std(table) == pytest.approx(std, rel=0.05)
    assert abs(np.mean(table)) < 0.05 * std


def test_a_row_that_does_not_exist_reads_nan():
    """Plain indexing would clamp to the last row."""
    out = make('learned').embed(jnp.zeros((1, 4, 24)), jnp.array([[18, 19, 20, 1000]]))
    np.testing.assert_array_equal(np.isnan(out).all(-1), [[False, False, True, True]])
    np.testing.assert_array_equal(np.isnan(out).any(-1), [[False, False, True, True]])


def test_gradient_reaches_the_rows_that_were_read():
    scheme = make('learned')
    graph, state = nnx.split(scheme)

    def loss(state):
        return nnx.merge(graph, state).embed(jnp.zeros((1, 3, 24)), jnp.array([[2, 5, 5]])).sum()

    (gradient,) = jax.tree.leaves(jax.grad(loss)(state))
    expected = np.zeros((20, 1))
    expected[2], expected[5] = 1, 2
    np.testing.assert_array_equal(gradient, np.broadcast_to(expected, (20, 24)))


def test_fractional_positions_read_the_nearest_row():
    scheme = make('learned')
    out = scheme.embed(jnp.zeros((1, 2, 24)), jnp.array([[2.9, 3.2]]))
    np.testing.assert_allclose(out[0], np.asarray(scheme.table[...])[[3, 3]], atol=1e-7)


@pytest.mark.parametrize('spec', ['learned(max_position=0)', 'learned(max_position=-3)'])
def test_an_empty_table_is_refused(spec):
    with pytest.raises(UserError, match='max_position must be at least 1'):
        make(spec)


def test_a_table_below_the_longest_sequence_is_refused():
    with pytest.raises(UserError, match=r"'learned.max_position=10.': its table has 10 rows"):
        make('learned(max_position=10)')


@pytest.mark.parametrize('compiled', [False, True])
def test_rows_of_positions(compiled):
    """-1 is padding on the left; what lies further below, or beyond the end, is in no table."""
    table, pos = jnp.arange(3.0)[:, None] + 1, jnp.asarray([[-7.0, -2.0, -1.4, -1.0, 0.0, 2.0, 3.0]])
    read = jax.jit(lookup) if compiled else lookup
    nan = np.nan
    np.testing.assert_array_equal(read(table, pos)[0, :, 0], [nan, nan, 1, 1, 1, 3, nan])
    np.testing.assert_array_equal(read(table, pos.astype(int))[0, :, 0], [nan, nan, 1, 1, 1, 3, nan])


def test_positions_below_a_table_are_nan_under_cape():
    dims = Dims(8, 2, 4, max_len=5)
    scheme = positions.make('cape(max_global=50)|learned(max_position=99)', dims, rngs=nnx.Rngs(0))
    at = scheme.remap(jnp.arange(5)[None], key=jax.random.key(1), train=True)
    found = scheme.embed(jnp.zeros((1, 5, 8)), at)
    np.testing.assert_array_equal(np.isnan(found).all(-1), np.round(at) < -1)
    assert (np.round(at) < -1).any()
