"""T5's buckets against the published formula in 50-digit decimals, and against values of the released code."""

import decimal
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Dims
from mha.spec import UserError

# (D = query minus key, bucket) of the released `_relative_position_bucket` with 32 buckets, max_distance 128.
RELEASED = {
    True: [(-5, 0), (0, 0), (1, 1), (15, 15), (16, 16), (18, 16), (19, 17), (32, 21), (64, 26), (112, 30), (113, 31),
           (128, 31), (5000, 31)],
    False: [(0, 0), (7, 7), (8, 8), (11, 8), (12, 9), (32, 12), (90, 14), (91, 15), (5000, 15), (-1, 17), (-7, 23),
            (-8, 24), (-90, 30), (-91, 31), (-5000, 31)],
}  # fmt: skip


def oracle(distance, causal, buckets=32, max_distance=128):
    """The bucket of one offset D, straight from the paper's appendix."""
    n, start = int(distance), 0
    if causal:
        n = max(n, 0)
    else:
        buckets //= 2
        start, n = (buckets if n < 0 else 0), abs(n)
    exact = buckets // 2
    if n < exact:
        return start + n
    with decimal.localcontext() as context:
        context.prec = 50
        share = (decimal.Decimal(n) / exact).ln() / (decimal.Decimal(max_distance) / exact).ln()
        row = exact + math.floor((share * (buckets - exact)).quantize(decimal.Decimal(10) ** -30))
    return start + min(row, buckets - 1)


def make(text, causal=False, heads=4):
    return positions.make(text, Dims(24, heads, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('settings', [(32, 128), (8, 20), (16, 1000)])
def test_weights(settings, case):
    buckets, max_distance = settings
    scheme = case.make(f't5(buckets={buckets}, max_distance={max_distance})')
    table = np.asarray(scheme.table[...], np.float64)
    rows = np.vectorize(lambda d: oracle(d, case.causal, buckets, max_distance))(case.offset)
    case.check(scheme, case.dot() + np.moveaxis(table[rows], -1, 0))


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('settings', [(32, 128), (32, 512), (64, 128), (10, 50), (8, 9), (128, 4096)])
def test_buckets(settings, causal):
    buckets, max_distance = settings
    scheme = make(f't5(buckets={buckets}, max_distance={max_distance})', causal)
    offset = np.concatenate([np.arange(-600, 601), [max_distance - 1, max_distance, max_distance + 1, 10**6, -(10**6)]])
    expected = [oracle(d, causal, buckets, max_distance) for d in offset]
    found = scheme.bucket(jnp.asarray(offset))
    np.testing.assert_array_equal(found, expected)
    assert found.min() >= 0
    assert found.max() == buckets - 1


@pytest.mark.parametrize('causal', [False, True])
def test_released_values(causal):
    offset, expected = zip(*RELEASED[causal], strict=True)
    np.testing.assert_array_equal(make('t5', causal).bucket(jnp.array(offset)), expected)
    assert [oracle(d, causal) for d in offset] == list(expected)


def test_whole_offsets_leave_one_bucket_of_an_encoder_empty():
    """Half of the table is for the future, and its first row would be D = 0."""
    rows = np.unique(make('t5').bucket(jnp.arange(-300, 301)))
    assert sorted(set(range(32)) - set(rows.tolist())) == [16]


@pytest.mark.parametrize('causal', [False, True])
def test_boundaries_of_a_huge_range(causal):
    scheme = make('t5(buckets=32, max_distance=2147483647)', causal)
    exact = 16 if causal else 8
    np.testing.assert_array_equal(np.diff(scheme.starts[:exact]), 1)
    for row, start in enumerate(scheme.starts, 1):
        assert scheme.bucket(jnp.array([start - 1, start])).tolist() == [row - 1, row]
    for row, start in zip(range(exact + 1, 2 * exact), scheme.starts[exact:], strict=True):
        assert [oracle(d, causal, 32, 2147483647) for d in (start - 1, start)] == [row - 1, row]


def test_sign_of_the_offset():
    """A key after the query reads the upper half of the table."""
    scheme = make('t5')
    scheme.table[...] = jnp.repeat(jnp.arange(32.0)[:, None], 4, axis=1)
    bias = scheme.bias(jnp.array([[10]]), jnp.array([[9, 10, 11]]))
    np.testing.assert_array_equal(bias[0, 0, 0], [1, 0, 17])


def test_each_head_reads_its_own_column():
    scheme = make('t5')
    scheme.table[...] = jnp.broadcast_to(jnp.arange(4.0), (32, 4))
    bias = scheme.bias(jnp.arange(5)[None], jnp.arange(7)[None])
    np.testing.assert_array_equal(bias, np.broadcast_to(np.arange(4)[None, :, None, None], (1, 4, 5, 7)))


def test_argument_causal_overrides_the_model():
    offset = jnp.arange(-30, 31)
    np.testing.assert_array_equal(make('t5(causal=True)').bucket(offset), make('t5', causal=True).bucket(offset))
    np.testing.assert_array_equal(make('t5(causal=False)', causal=True).bucket(offset), make('t5').bucket(offset))


def test_fractional_offsets_count_as_the_distance_below():
    np.testing.assert_array_equal(make('t5').bucket(jnp.array([3.9, 4.0, -3.9, -0.5])), [3, 4, 19, 16])


def test_initial_values_are_small():
    table = make('t5(buckets=512, max_distance=1000)', heads=12).table[...]
    assert table.shape == (512, 12)
    assert np.std(table) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ('text', 'causal', 'message'),
    [
        ('t5(buckets=7)', True, 'even and at least 4'),
        ('t5(buckets=2)', True, 'even and at least 4'),
        ('t5(buckets=6)', False, 'even and at least 8'),
        ('t5(buckets=-8)', False, 'even and at least 8'),
        ('t5(max_distance=8)', False, 'max_distance must be above 8 for 32 buckets'),
        ('t5(max_distance=2147483648)', False, 'below 2.31'),
        ('t5(max_distance=16)', True, 'max_distance must be above 16 for 32 buckets'),
    ],
)
def test_errors(text, causal, message):
    with pytest.raises(UserError, match=message):
        make(text, causal)


@pytest.mark.parametrize(('text', 'std'), [('t5', 0.02), ('t5(init_std=0.5)', 0.5)])
def test_initial_values(text, std):
    table = make(text, heads=64).table[...]
    assert np.std(table) == pytest.approx(std, rel=0.05)
