"""Masks against loops over slots: whole, tile by tile, composed, and under jit; patterns as a person types them."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.nn import masks
from mha.nn.masks import (
    causal,
    dilated,
    explicit,
    full,
    global_,
    later,
    padding,
    prefix,
    random,
    segments,
    strided,
    window,
)
from mha.spec import UserError

T = 9
RNG = np.random.default_rng(0)
VALID = RNG.random((3, T)) < 0.6
IDS = np.sort(RNG.integers(0, 3, (3, T)), axis=1)
ALLOWED = RNG.random((3, 2, T, T)) < 0.5

PAIRS = {(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (1, 0), (2, 0), (3, 2), (4, 1)}  # blocks of random(2, 1, 5), as ever

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
    'past window': (window(3, 0), lambda b, h, i, j: i - 3 <= j <= i),
    'window on both sides': (window(2), lambda b, h, i, j: abs(i - j) <= 2),
    'dilated': (dilated(2, 3), lambda b, h, i, j: abs(i - j) in (0, 3, 6)),
    'strided': (strided(3), lambda b, h, i, j: abs(i - j) <= 3 or (i - j) % 3 == 0),
    'global': (global_(2), lambda b, h, i, j: i < 2 or j < 2),
    'random': (random(2, 1, 5), lambda b, h, i, j: (max(i, j) // 2, min(i, j) // 2) in PAIRS),
    'explicit': (explicit(jnp.asarray(ALLOWED)), lambda b, h, i, j: ALLOWED[b, h, i, j]),
    'explicit of all heads': (explicit(jnp.asarray(ALLOWED[:1, :1])), lambda b, h, i, j: ALLOWED[0, 0, i, j]),
    'local heads': (masks.make('local(2)', 2), lambda b, h, i, j: h == 1 or abs(i - j) <= 2),
    'hard alibi': (masks.make('hard_alibi(2)', 2) & causal(), lambda b, h, i, j: i - h <= j <= i),
    'causal & padding': (causal() & padding(jnp.asarray(VALID)), lambda b, h, i, j: j <= i and VALID[b, j]),
    'Longformer': (window(1) | global_(1), lambda b, h, i, j: abs(i - j) <= 1 or i < 1 or j < 1),
    'causal dilated': (causal() & dilated(3, 2), lambda b, h, i, j: i - j in (0, 2, 4, 6)),
    'causal strided': (strided(4) & causal(), lambda b, h, i, j: 0 <= i - j <= 4 or i - j == 8),
    'three': (
        (causal() & window(4)) & explicit(jnp.asarray(ALLOWED)),
        lambda b, h, i, j: i - 4 <= j <= i and ALLOWED[b, h, i, j],
    ),
}


def oracle(sees, queries=T, keys=T):
    rows = range(3), range(2), range(queries), range(keys)
    return np.array([sees(*at) for at in itertools.product(*rows)], bool).reshape(3, 2, queries, keys)


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
    """Contiguous and scattered slots, in any order; as many of each, for which one program serves."""
    mask, expected = mask_and_oracle
    for q, k in ((np.arange(2, 6), np.arange(4, 9)), (np.array([7, 0, 3, 8]), np.array([8, 1, 1, 0, 5]))):
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
    assert window(2) == window(2, 2)
    assert hash(window(2)) == hash(window(2, 2))
    assert window(2) != window(2, 0)
    assert window(2) | global_(1) == window(2, 2) | global_(1)
    assert window(2) != causal()


LONE = jnp.asarray(ALLOWED[:, :, :1])


@pytest.mark.parametrize(
    ('mask', 'queries', 'keys', 'message'),
    [
        (padding(jnp.asarray(VALID)), 4, T + 1, 'the mask (padding) is for 9 keys, but there are 10'),
        (padding(jnp.asarray(VALID)), T, T - 1, 'the mask (padding) is for 9 keys, but there are 8'),
        (explicit(jnp.asarray(ALLOWED)), T + 1, T, 'the mask (a boolean array) is for 9 queries, but there are 10'),
        (explicit(jnp.asarray(ALLOWED)), T, T - 1, 'the mask (a boolean array) is for 9 keys, but there are 8'),
        (explicit(LONE), 3, T + 1, 'the mask (a boolean array) is for 9 keys, but there are 10'),
        (segments(jnp.asarray(IDS)), T + 1, T, 'the mask (segments) is for 9 tokens, but there are 10'),
        (segments(jnp.asarray(IDS)), T, T + 1, 'the mask (segments) is for 9 tokens, but there are 10'),
        (causal() & (window(2) | padding(jnp.asarray(VALID))), 5, 5, 'is for 9 keys, but there are 5'),
        (masks.later(padding(jnp.asarray(VALID)), jnp.int32(3), 0, 5), 2, 5, 'is for 9 keys, but there are 5'),
    ],
)
def test_arrays_of_other_lengths_are_refused(mask, queries, keys, message):
    """When a program is traced: past its end, an array would repeat its last entry."""
    for act in (mask.dense, mask.count):
        with pytest.raises(ValueError, match=re.escape(message)):
            jax.eval_shape(lambda act=act: act(queries, keys))


def test_arrays_of_one_query_or_key_serve_all():
    both = explicit(LONE).dense(5, T)
    np.testing.assert_array_equal(both, np.broadcast_to(LONE, (3, 2, 5, T)))
    rows = explicit(jnp.asarray(ALLOWED[..., :1]))
    np.testing.assert_array_equal(rows.dense(T, 4), np.broadcast_to(ALLOWED[..., :1], (3, 2, T, 4)))
    assert rows.count(T, 4).max() == 4


def test_a_mask_says_what_it_needs():
    with pytest.raises(NotImplementedError):
        masks.Mask().dense(2, 2)


def test_ranks_are_explicit(mask_and_oracle):
    with jax.numpy_rank_promotion('raise'):
        jax.eval_shape(lambda: mask_and_oracle[0].dense(T, T))


# --- tiles that no query sees, and keys that each query sees ---------------------------------------------------------


EXACT = ['full', 'causal', 'prefix', 'no prefix', 'window', 'past window', 'window on both sides', 'dilated', 'strided',
         'global', 'random', 'Longformer', 'causal dilated', 'causal strided']  # fmt: skip
EXACT_MASKS = {name: MASKS[name][0] for name in EXACT} | {
    'causal window': causal() & window(3),
    'BigBird': window(2) | global_(2) | random(3, 2, seed=5),
    'random of many': random(2, 3, seed=1),
    'random of none': random(3, 0),
    'wide steps': dilated(2, 7),
    'wide stride': strided(11),
}


def blocks(mask, queries, keys, q_size, k_size):
    """`block` of every tile, and whether the tile has a pair that sees each other."""
    q, k = np.arange(0, queries, q_size), np.arange(0, keys, k_size)
    q_stop, k_stop = np.minimum(q + q_size, queries), np.minimum(k + k_size, keys)
    said = mask.block(q[:, None], q_stop[:, None], k[None, :], k_stop[None, :])
    dense = np.asarray(mask.dense(queries, keys)).any((0, 1))
    true = np.array(
        [[dense[a:b, c:d].any() for c, d in zip(k, k_stop, strict=True)] for a, b in zip(q, q_stop, strict=True)]
    )
    return said, true


SIZES = [(1, 1), (4, 4), (2, 5), (7, 3)]


@pytest.mark.parametrize('name', EXACT_MASKS)
def test_block_is_exact(name):
    """True for a tile if and only if a query of it sees a key of it, for any sizes of tiles."""
    for sizes in SIZES:
        said, true = blocks(EXACT_MASKS[name], 31, 26, *sizes)
        assert said.dtype == bool
        np.testing.assert_array_equal(said, true, err_msg=str(sizes))


@pytest.mark.parametrize('name', MASKS)
def test_block_hides_no_pair(name):
    for sizes in SIZES:
        said, true = blocks(MASKS[name][0], T, T, *sizes)
        assert said.shape == true.shape
        assert (said >= true).all()


def test_block_of_what_is_not_known():
    """Data, or a traced length: a tile may hold something. What is known beside it still counts."""
    unknown = [
        padding(jnp.asarray(VALID)),
        segments(jnp.asarray(IDS)),
        explicit(jnp.asarray(ALLOWED)),
        prefix(jnp.int32(2)),
    ]
    for mask in unknown:
        assert mask.block(0, 4, 5, 9).all()
        assert not (mask & causal()).block(0, 4, 5, 9).any()
        assert (mask | causal()).block(0, 4, 5, 9).all()


def test_block_broadcasts():
    for mask in (full(), *EXACT_MASKS.values()):
        assert np.shape(mask.block(0, 4, 4, 8)) == ()
        q, k = np.arange(0, 12, 4)[:, None], np.arange(0, 20, 4)[None]
        every = mask.block(q, q + 4, k, k + 4)
        assert every.shape == (3, 5)
        assert every[1, 4] == mask.block(4, 8, 16, 20)


def test_block_of_a_long_sequence():
    """No array of all pairs: 16 million slots."""
    start = np.arange(0, 2**24, 2**15)
    mask = causal() & (window(1000) | random(2**14, 2) | global_(1))
    said = mask.block(start[:, None], start[:, None] + 2**15, start[None], start[None] + 2**15)
    assert said[:, 0].all()
    assert np.diag(said).all()
    assert np.diag(said, -1).all()
    assert not np.triu(said, 1).any()
    assert 3 < said.sum(1).mean() < 8


@pytest.mark.parametrize('name', MASKS)
def test_count(name, monkeypatch):
    """Row by row, by several rows with some left over, and all in one."""
    mask, sees = MASKS[name]
    cases = [(T, T, 1), (5, T, 20), (7, 4, 2**20)]
    if jax.tree.leaves(mask):  # what it holds is for these
        cases = [(T, T, chunk) for _, _, chunk in cases]

    @jax.jit
    def counts(mask):
        found = []
        for queries, keys, chunk in cases:
            monkeypatch.setattr(masks, 'CHUNK', chunk)
            found.append(mask.count(queries, keys))
        return found

    for (queries, keys, _), count in zip(cases, counts(mask), strict=True):
        assert count.shape[0] in (1, 3)
        expected = oracle(sees, queries, keys).sum(-1).swapaxes(1, 2)  # by head, if the mask has heads
        by_head = mask.dense(T, T).shape[1] > 1
        assert count.shape[1:] == ((queries, 2) if by_head else (queries,))
        count = count if by_head else count[:, :, None]
        np.testing.assert_array_equal(np.broadcast_to(count, expected.shape), expected)


def test_present():
    """Padding alone says what is a token, and an array what no query sees; patterns hide tokens that are there."""
    valid = jnp.arange(T)[None] < jnp.asarray([[5], [7]])
    every = np.ones((1, T), bool)
    for mask, expected in (
        (window(1) | global_(1), every),
        (causal() & padding(valid) & window(2), valid),
        (explicit(jnp.ones((1, 2, T, T), bool).at[:, :, :, 3].set(False)), np.arange(T)[None] != 3),
        (later(padding(valid), jnp.int32(3), 0, T), valid & (np.arange(T)[None] < 3 + 2)),
    ):
        np.testing.assert_array_equal(mask.present(2 if isinstance(mask, later) else T, T), expected)


@pytest.mark.parametrize('text', ['window(2)', 'dilated(2, 3)', 'window(1)|dilated(1, 4)', 'window(9)'])
def test_beyond_its_reach_a_mask_shows_nothing(text):
    mask = masks.make(text) & causal()
    back = np.arange(T)[:, None] - np.arange(T)
    seen = np.asarray(mask.dense(T, T))[0, 0]
    assert not seen[back > mask.reach].any()
    assert seen[(back == mask.reach) & (back >= 0)].all()
    for endless in (causal(), mask | global_(1), mask | causal(), masks.strided(2), masks.random(2)):
        assert endless.reach is None


def test_count_needs_no_array_of_all_pairs():
    mask = (causal() & window(10)) | global_(1)
    compiled = jax.jit(lambda: mask.count(2**15, 2**15)).lower().compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**25


# --- random blocks ---------------------------------------------------------------------------------------------------


def block_graph(mask, blocks):
    dense = jax.jit(lambda: mask.dense(blocks * mask.size, blocks * mask.size))  # one program, and not one per step
    return np.asarray(dense())[0, 0, :: mask.size, :: mask.size]


@pytest.mark.parametrize('draws', [1, 3])
def test_random_blocks(draws):
    """Each block sees itself and `draws` others before it, or all there are; what sees is seen."""
    graph = block_graph(random(2, draws, seed=3), 40)
    np.testing.assert_array_equal(np.tril(graph, -1).sum(1), np.minimum(np.arange(40), draws))
    np.testing.assert_array_equal(graph, graph.T)
    assert graph.diagonal().all()
    whole = np.asarray(random(2, draws, seed=3).dense(80, 80))[0, 0]
    np.testing.assert_array_equal(whole, np.kron(graph, np.ones((2, 2), bool)))


def test_random_blocks_depend_on_the_seed_alone():
    one, other = (block_graph(random(1, 2, seed=seed), 50) for seed in (0, 1))
    np.testing.assert_array_equal(one, block_graph(random(1, 2), 50))
    np.testing.assert_array_equal(one[:20, :20], block_graph(random(1, 2), 20))
    assert (one != other).mean() > 0.05


def test_random_blocks_are_drawn_uniformly():
    """How often block 8 sees each of those before it, over seeds: 2 of 8."""
    drawn = [random(1, 2, seed=seed).drawn(np.arange(9), np.where) for seed in range(2000)]
    seen = np.bincount([pick[8] for pair in drawn for pick in pair], minlength=8) / 2000
    np.testing.assert_allclose(seen, 0.25, atol=0.04)


# --- as a person types them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'mask'),
    [
        ('full', full()),
        ('window(64)', window(64)),
        ('window(64, 0)', window(64, 0)),
        ('window(left=3, right=1)', window(3, 1)),
        ('dilated(4, step=2)', dilated(4, 2)),
        ('strided(8)', strided(8)),
        ('prefix(5)', prefix(5)),
        ('global(2)', global_(2)),
        ('random(64, seed=1)', random(64, 3, 1)),
        ('window(64)|global(2)', window(64) | global_(2)),
        ('window(3) | global(1) | random(4, 2)', (window(3) | global_(1)) | random(4, 2)),
    ],
)
def test_make(text, mask):
    assert masks.make(text) == mask


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('windw(3)', "unknown attention pattern 'windw' - did you mean 'window'? (choices: dilated, full, global, "),
        ('globl(3)', "did you mean 'global'?"),
        ('global_(3)', "unknown attention pattern 'global_' - did you mean 'global'?"),
        ('padding(3)', "unknown attention pattern 'padding'"),
        ('And(3)', "unknown attention pattern 'And'"),
        ('window', "attention pattern 'window' needs 'left': window(left, right=None)"),
        ('global()', "attention pattern 'global' needs 'tokens': global(tokens)"),
        ('global(1, 2)', "attention pattern 'global(1, 2)': too many arguments, it is global(tokens)"),
        ('window(2.5)', "attention pattern 'window': left must be a whole number, not 2.5"),
        ("prefix('a')", "attention pattern 'prefix': length must be a whole number, not 'a'"),
        ('window(2, by=1)', "unknown argument of attention pattern 'window': 'by'"),
        ('window(-1)', "attention pattern 'window': left must be at least 0, not -1"),
        ('window(1, -1)', 'right must be at least 0'),
        ('dilated(-1, 1)', 'window must be at least 0'),
        ('dilated(1, 0)', 'step must be at least 1'),
        ('strided(0)', 'stride must be at least 1'),
        ('prefix(-1)', 'length must be at least 0'),
        ('global(-1)', "attention pattern 'global': tokens must be at least 0"),
        ('random(0)', 'size must be at least 1'),
        ('random(1, -1)', 'draws must be at least 0'),
        ('random(1, seed=-1)', 'seed must be from 0 to 4,294,967,295, not -1'),
        ('local(2)', "attention pattern 'local' needs the number of heads: masks.make('local(2)', heads=8)"),
        ('window(3)|', 'cannot read'),
        ('window(3)&global(2)', "cannot read 'window(3)&global(2)'"),
    ],
)
def test_mistakes_are_one_line(text, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        masks.make(text)
    assert len(str(error.value).splitlines()) == 1


def test_patterns_of_heads():
    assert masks.make('local(3)', 5) == masks.by_head((3, 3, -1, -1, -1))
    assert masks.make('hard_alibi', 5) == masks.by_head((0, 1, -1, -1, -1))
    with pytest.raises(UserError, match='heads must be at most 4, the number of all heads, not 5'):
        masks.make('local(3, heads=5)', 4)


def test_masks_of_some_heads():
    mask = (masks.make('local(2)', 4) | global_(1)) & explicit(jnp.asarray(RNG.random((1, 4, T, T)) < 0.5))
    cut = masks.of_heads(mask & causal(), (1, 3), 4)
    np.testing.assert_array_equal(cut.dense(T, T), (mask & causal()).dense(T, T)[:, (1, 3)])
    assert masks.of_heads(causal(), (1, 3), 4) == causal()
