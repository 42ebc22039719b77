"""The blockwise core against the dense one: values and all gradients, tile by tile, and what tiles are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mha import cores, positions
from mha.cores import blockwise
from mha.model.encoder import Encoder
from mha.nn import masks
from mha.positions import Coords, Dims, Position
from mha.spec import UserError

HEADS, HEAD_DIM = 2, 4


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(blockwise, 'SIDES', (8,))


class Everything(Position):
    """Parameters in every hook that a tile has, and one that no tile reads. The bias depends on the example."""

    def __init__(self, dims, *, rngs):
        draw = lambda *shape: nnx.Param(jax.random.normal(rngs.params(), shape))  # noqa: E731
        self.rate, self.turn, self.table = draw(dims.heads), draw(dims.heads, dims.head_dim), draw(dims.head_dim)
        self.embedding = draw(dims.max_len, dims.dim)
        self.shift = jnp.arange(dims.heads)  # no parameter, and an integer

    def bias(self, q_pos, k_pos):
        offset = (q_pos[:, :, None] - k_pos[:, None, :])[:, None]
        shift = self.shift[None, :, None, None]
        return jnp.sin(self.rate[...][None, :, None, None] * (offset + shift)) * jnp.cos(q_pos)[:, None, :, None]

    def content(self, q, k, q_pos, k_pos):
        return jnp.einsum('bqhk,bphk,hk->bhqp', q, k, self.turn[...]) / (1 + k_pos[:, None, None, :] ** 2)

    def values(self, weights, q_pos, k_pos):
        sums = (weights * jnp.cos(q_pos[:, None, :, None] - k_pos[:, None, None, :])).sum(-1)
        return sums.swapaxes(1, 2)[..., None] * self.table[...][None, None, None]


def inputs(batch, queries, keys, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(batch, n, HEADS, HEAD_DIM) for n in (queries, keys, keys, queries)]
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def slots(queries, keys, contiguous=False):
    visible = jnp.full((1, queries), keys)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, queries, 16)), jnp.float32)
    return Coords(jnp.arange(queries)[None], jnp.arange(keys)[None], visible, x, contiguous)


def scheme(spec, causal=False, keys=64):
    """A scheme with parameters away from their initial values, placed as the encoder does."""
    dims = Dims(16, HEADS, HEAD_DIM, max_len=64, causal=causal)
    position = (
        Everything(dims, rngs=nnx.Rngs(0)) if spec is Everything else positions.make(spec, dims, rngs=nnx.Rngs(0))
    )
    params = nnx.state(position, nnx.Param)
    rng = np.random.default_rng(2)
    moved = jax.tree.map(lambda p: p + 0.3 * jnp.asarray(rng.standard_normal(p.shape), p.dtype), params)
    nnx.update(position, moved)
    return position.place(jnp.arange(keys)[None], key=jax.random.key(3))[0]


def outcome(core, position, arrays, coords, mask, **options):
    """The output, and the gradients of q, k, v and of each parameter."""
    *qkv, cotangent = arrays
    graph, params, rest = nnx.split(position, nnx.Param, ...)

    @jax.jit
    def run(params, mask, *qkv):
        def loss(params, *qkv):
            placed = nnx.merge(graph, params, rest)
            out = cores.attend(*qkv, position=placed, coords=coords, mask=mask, core=core, **options)
            return jnp.vdot(out.astype(jnp.float32), cotangent.astype(jnp.float32)), out

        gradients, out = jax.grad(loss, tuple(range(1 + len(qkv))), has_aux=True)(params, *qkv)
        return out, gradients

    out, (of_params, *of_qkv) = run(params, mask, *qkv)
    return [np.asarray(x, np.float32) for x in (out, *of_qkv, *jax.tree.leaves(of_params))]


def assert_agree(position, arrays, coords, mask, *others, tolerance=1e-4):
    """At `coords` and, in blocks, also at other objects of the same coordinates."""
    expected = outcome('dense', position, arrays, coords, mask)
    for at in (coords, *others):
        for one, other in zip(outcome('blockwise', position, arrays, at, mask), expected, strict=True):
            # Where a gradient is zero but for rounding, as that of a constant in the logits, so is the other.
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max() + 1e-5)


RNG = np.random.default_rng(0)
ANY = RNG.random((2, HEADS, 32, 32)) < 0.4
ANY[0, 0, 5] = False  # rows that see nothing
ANY[1, :, 17:] = False
MASKS = {
    'full': lambda t, s: masks.full(),
    'causal': lambda t, s: masks.causal(),
    'window': lambda t, s: masks.window(3, 2),
    'padding of examples': lambda t, s: masks.padding(jnp.arange(s)[None] < jnp.asarray([[s], [1]])),
    'padding of all': lambda t, s: masks.causal() & masks.padding(jnp.arange(s)[None] < 0),
    'left padding': lambda t, s: masks.causal() & masks.padding(jnp.arange(s)[None] >= s // 2),
    'explicit': lambda t, s: masks.explicit(jnp.asarray(ANY[:, :, :t, :s])),
    'explicit per head': lambda t, s: masks.causal() & masks.explicit(jnp.asarray(ANY[:1, :, :t, :s])),
    'segments': lambda t, s: masks.segments(jnp.asarray([np.arange(32) // 9, np.arange(32) // 17])),
}


any_shape = given(
    queries=st.integers(1, 27),
    keys=st.integers(1, 27),
    mask=st.sampled_from(sorted(MASKS)),
    examples=st.sampled_from((1, 2)),
)
UNSHRUNK = dict(deadline=None, derandomize=True, phases=[Phase.generate])
"""Failures are not shrunk: each try takes two compilations."""


@settings(max_examples=4, **UNSHRUNK)
@any_shape
def test_any_shape_and_mask(queries, keys, mask, examples):
    assert_agree_anywhere(queries, keys, mask, examples)


@pytest.mark.slow
@settings(max_examples=20, **UNSHRUNK)
@any_shape
def test_many_shapes_and_masks(queries, keys, mask, examples):
    assert_agree_anywhere(queries, keys, mask, examples)


def assert_agree_anywhere(queries, keys, mask, examples):
    """Coordinates are fractional, and of every example where `examples` is 2."""
    rng = np.random.default_rng(queries + keys)
    q_pos, k_pos = (jnp.asarray(np.sort(5 * rng.random((examples, n))), jnp.float32) for n in (queries, keys))
    coords = Coords(q_pos, k_pos, jnp.full((1, queries), keys), jnp.zeros((2, queries, 16)))
    assert_agree(scheme(Everything), inputs(2, queries, keys), coords, MASKS[mask](queries, keys))


SPECS = (
    't5',
    'fire',
    'shaw',
    'txl',
    'dca(chunk=6)',
    'fox',
    'randomize_offsets(max_position=64)|t5',
)
MORE_SPECS = (
    'none',
    'alibi(learned=True)',
    'learned|kerple(kind="power", weighted=True)',
    'deberta(k=4)',
    'learned|rope',
    'cpb',
    'rope|t5|kerple',
    'alibi|shaw(values=False)',
    'txl(form="channels")',
    'dape',
    'randomize_offsets(max_position=64)|shaw',
)


@pytest.mark.parametrize('spec', SPECS + tuple(pytest.param(spec, marks=pytest.mark.slow) for spec in MORE_SPECS))
def test_schemes(spec):
    """At slot numbers, where a bias of the offset takes its short cut, under masks that suit the scheme."""
    causal = spec.startswith(('dca', 'fox'))
    mask = masks.causal() if causal else masks.padding(jnp.arange(19)[None] < jnp.asarray([[19], [11]]))
    assert_agree(scheme(spec, causal, keys=19), inputs(2, 19, 19), slots(19, 19, contiguous=True), mask)


@pytest.mark.parametrize('spec', ['t5', pytest.param('kerple(kind="power")', marks=pytest.mark.slow)])
def test_biases_of_the_offset_with_and_without_their_short_cut(spec):
    for queries, keys in ((9, 20), (21, 5)):
        plain, contiguous = (slots(queries, keys, contiguous) for contiguous in (False, True))
        assert_agree(scheme(spec), inputs(1, queries, keys), plain, masks.window(12, 4), contiguous)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_low_precision(dtype):
    """As near to float32 arithmetic on the same values as dense is, and of the same type."""
    arrays, coords, mask = inputs(2, 21, 21, dtype), slots(21, 21), masks.causal()
    position = scheme(Everything)
    exact = outcome('dense', position, [x.astype(jnp.float32) for x in arrays], coords, mask)
    for core in ('dense', 'blockwise'):
        for one, other in zip(outcome(core, position, arrays, coords, mask), exact, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-2 * np.abs(other).max())
    attend = functools.partial(cores.attend, position=position, coords=coords, mask=mask, core='blockwise')
    assert jax.eval_shape(attend, *arrays[:3]).dtype == dtype


@pytest.mark.parametrize('mask', [pytest.param(masks.full(), marks=pytest.mark.slow), masks.causal()])
def test_low_precision_where_attention_is_peaked(mask):
    """q = k = v: the two sums of a backward pass nearly cancel."""
    x, _, _, cotangent = inputs(1, 200, 200)
    x = (4 * x).astype(jnp.bfloat16)
    position, coords = scheme('t5', keys=200), slots(200, 200)
    given = [x, x, x, cotangent.astype(jnp.bfloat16)]
    exact = outcome('dense', position, [array.astype(jnp.float32) for array in given], coords, mask)

    def errors(core):
        found = outcome(core, position, given, coords, mask)
        return [np.sqrt(np.mean((one - other) ** 2)) for one, other in zip(found, exact, strict=True)]

    for one, other in zip(errors('blockwise'), errors('dense'), strict=True):
        assert one <= max(3 * other, 0.01)  # without float32 on the way: 9 to 14 times, 0.06


def test_rows_without_a_visible_key():
    mask = masks.explicit(jnp.asarray(ANY))
    out, *gradients = outcome('blockwise', scheme(Everything), inputs(2, 32, 32), slots(32, 32), mask)
    np.testing.assert_array_equal(out[0, 5, 0], 0)
    np.testing.assert_array_equal(out[1, 17:], 0)
    np.testing.assert_array_equal(gradients[0][1, 17:], 0)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


class Lifted(Position):
    """So large a constant that the logarithm of a sum drowns in it."""

    def bias(self, q_pos, k_pos):
        return jnp.full((1, HEADS, q_pos.shape[1], k_pos.shape[1]), 2.0**17)


def test_large_logits():
    position = Lifted(Dims(16, HEADS, HEAD_DIM, max_len=64), rngs=nnx.Rngs(0))
    q, k, v, cotangent = inputs(1, 20, 20)
    out, _, _, dv = outcome('blockwise', position, (0 * q, k, v, cotangent), slots(20, 20), masks.full())
    np.testing.assert_allclose(out, np.broadcast_to(v.mean(1, keepdims=True), v.shape), atol=1e-6)
    np.testing.assert_allclose(dv, np.broadcast_to(cotangent.mean(1, keepdims=True), v.shape), atol=1e-6)


def dropped(key, rate=0.25, spec='none', arrays=None, **extra):
    """The output as a function of a parameter's state, q, k and v, for one key."""
    position = scheme(spec)
    graph, state = nnx.split(position)

    def run(state, q, k, v):
        options = dict(coords=slots(q.shape[1], k.shape[1]), core='blockwise', mask=masks.causal())
        rngs = nnx.Rngs(dropout=key)
        return cores.attend(q, k, v, position=nnx.merge(graph, state), dropout_rate=rate, rngs=rngs, **options)

    return run, state


def test_dropout_drops_weights_at_the_rate_and_keeps_the_mean():
    q, k, *_ = inputs(2, 24, 24)
    eye = jnp.broadcast_to(jnp.eye(24)[None, :, None], (2, 24, HEADS, 24))
    whole, state = dropped(jax.random.key(0), rate=0.0)
    whole = np.asarray(whole(state, q, k, eye))

    @jax.jit
    def draw(key):
        run, state = dropped(key)
        return run(state, q, k, eye)

    many = np.stack([draw(key) for key in jax.random.split(jax.random.key(0), 60)])
    seen = np.broadcast_to(whole > 0, many.shape)
    assert np.mean(many[seen] == 0) == pytest.approx(0.25, abs=0.01)
    kept = seen & (many != 0)
    np.testing.assert_allclose(many[kept], np.broadcast_to(whole / 0.75, many.shape)[kept], rtol=1e-5)
    # No two tiles share a draw: each of the first eight queries of a tile has its own pattern.
    patterns = (many[0] == 0)[:, 8:16, :, :8], (many[0] == 0)[:, 16:24, :, 8:16], (many[0] == 0)[:, 16:24, :, :8]
    assert all((one != other).any() for one, other in zip(patterns, patterns[1:] + patterns[:1], strict=True))


def test_dropout_is_the_same_forward_and_backward():
    q, k, v, cotangent = inputs(2, 20, 20)
    run, state = dropped(jax.random.key(5), spec='shaw')
    loss = jax.jit(lambda *x: jnp.vdot(run(*x), cotangent))
    arguments = state, q, k, v
    gradients = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*arguments)
    rng = np.random.default_rng(4)
    for index in range(4):
        direction = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), arguments[index])

        def moved(step, index=index, direction=direction):
            there = jax.tree.map(lambda x, d: x + step * d, arguments[index], direction)
            return float(loss(*arguments[:index], there, *arguments[index + 1 :]))

        slope = (moved(1e-2) - moved(-1e-2)) / 2e-2
        pairs = zip(jax.tree.leaves(gradients[index]), jax.tree.leaves(direction), strict=True)
        assert slope == pytest.approx(float(sum(jnp.vdot(*pair) for pair in pairs)), rel=2e-3, abs=2e-3)


def test_a_scheme_that_replaces_the_softmax_is_refused():
    with pytest.raises(UserError, match='core=dense'):
        outcome('blockwise', scheme('cope', causal=True), inputs(1, 8, 8), slots(8, 8), masks.causal())


VISITED = []


class Counting(Position):
    """Notes the first key of every tile that is computed."""

    def bias(self, q_pos, k_pos):
        jax.debug.callback(lambda first: VISITED.append(int(first)), k_pos[0, 0])
        return jnp.zeros((1, HEADS, q_pos.shape[1], k_pos.shape[1]))


@pytest.mark.parametrize(
    ('mask', 'tiles'),
    [
        (masks.full(), 64),
        (masks.causal(), 36),
        (masks.window(8, 0), 8 + 7),
        (masks.window(1, 1), 8 + 7 + 7),
        (masks.padding(jnp.asarray(np.arange(64)[None] < 10)), 8 * 2),
        (masks.segments(jnp.asarray(np.arange(64) // 16)[None]), 4 * 4),
        (masks.causal() & masks.segments(jnp.asarray(np.arange(64) // 16)[None]), 4 * 3),
    ],
    ids=['full', 'causal', 'window', 'two-sided window', 'padding', 'segments', 'causal segments'],
)
def test_empty_tiles_are_not_computed(mask, tiles):
    """64 x 64 slots in tiles of 8 x 8."""
    VISITED.clear()
    position = Counting(Dims(16, HEADS, HEAD_DIM, max_len=64), rngs=nnx.Rngs(0))
    q, k, v, _ = inputs(1, 64, 64)
    jax.block_until_ready(cores.attend(q, k, v, position=position, coords=slots(64, 64), mask=mask, core='blockwise'))
    jax.effects_barrier()
    assert len(VISITED) == tiles


@pytest.mark.parametrize(
    ('backend', 'low', 'high'),
    [('cpu', 0, blockwise.CPU_TILE_BYTES), ('gpu', blockwise.CPU_TILE_BYTES, blockwise.TILE_BYTES)],
)
def test_tiles_suit_the_device(backend, low, high, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(blockwise, 'SIDES', (512, 256, 128, 64, 32))
    grid = blockwise.Grid.choose(masks.full(), 4096, 4096, matrices=1024)
    assert low < 4 * 1024 * grid.height * grid.width <= high


def test_long_sequences_have_few_tiles(monkeypatch):
    """The table of tiles fits into memory, and what is longer is refused before it is made."""
    monkeypatch.setattr(blockwise, 'SIDES', (512, 256, 128, 64, 32))
    grid = blockwise.Grid.choose(masks.window(3), 500_000, 500_000, matrices=2)
    assert grid.active.size <= blockwise.TILES
    with pytest.raises(UserError, match='8,000,000 queries and 8,000,000 keys are too many for attention'):
        blockwise.Grid.choose(masks.window(3), 8_000_000, 8_000_000, matrices=2)


def test_tiles_suit_the_mask_and_the_batch(monkeypatch):
    monkeypatch.setattr(blockwise, 'SIDES', (512, 256, 128, 64, 32))

    def cut(mask, length, matrices=8):
        return blockwise.Grid.choose(mask, length, length, matrices)

    full, window = cut(masks.full(), 4096), cut(masks.window(100), 4096)
    assert window.height < full.height
    assert cut(masks.full(), 4096, matrices=512).height < full.height
    assert 4 * 512 * cut(masks.full(), 4096, matrices=512).height ** 2 <= blockwise.CPU_TILE_BYTES
    assert cut(masks.full(), 40).active.shape == (1, 1)
    assert cut(masks.full(), 5).padded_keys == 8
    for length in (1, 7, 257, 600, 1023):
        grid = cut(masks.causal(), length)
        assert length <= grid.padded_queries < length + 8 * grid.active.shape[0]
    sizes = [cut(masks.window(100), n).active.sum() for n in (4096, 8192, 16384)]
    assert sizes[2] < 2.1 * sizes[1] < 4.4 * sizes[0]


def test_memory_grows_linearly(monkeypatch):
    monkeypatch.setattr(blockwise, 'SIDES', (64,))
    position = scheme('t5')
    graph, state = nnx.split(position)

    def temporary(core, length):
        def loss(state, q, k, v):
            coords = slots(length, length, contiguous=True)
            return cores.attend(
                q, k, v, position=nnx.merge(graph, state), coords=coords, mask=masks.full(), core=core
            ).sum()

        shape = jax.ShapeDtypeStruct((1, length, HEADS, HEAD_DIM), jnp.float32)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(state, shape, shape, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, middle, large = (temporary('blockwise', n) for n in (1024, 2048, 4096))
    assert large - middle == pytest.approx(2 * (middle - small), rel=0.1)
    assert large < temporary('dense', 1024)


def test_under_vmap():
    """As when seeds train side by side: the mask's data is batched, so that no tile can be left out."""
    position, coords = scheme('t5'), slots(16, 16)
    q, k, v, _ = inputs(3, 16, 16)
    valid = jnp.arange(16)[None] < jnp.asarray([[16], [3], [9]])

    def run(q, k, v, valid):
        mask = masks.causal() & masks.padding(valid[None])
        arrays = (x[None] for x in (q, k, v))
        return cores.attend(*arrays, position=position, coords=coords, mask=mask, core='blockwise')[0].sum()

    together = jax.jit(jax.vmap(jax.grad(run)))(q, k, v, valid)
    derive = jax.jit(jax.grad(run))
    alone = [derive(*row) for row in zip(*map(np.asarray, (q, k, v, valid)), strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_in_the_encoder():
    sizes = dict(
        vocab_size=7, num_classes=3, max_len=20, layers=1, dim=16, heads=2, position='learned|alibi(learned=True)'
    )
    models = {core: Encoder(**sizes, core=core, rngs=nnx.Rngs(0)) for core in ('dense', 'blockwise')}
    tokens = jnp.asarray(RNG.integers(0, 7, (2, 20)))
    valid = jnp.arange(20)[None] < jnp.asarray([[20], [6]])

    @functools.partial(jax.jit, static_argnums=0)
    def run(graph, state):
        def loss(state):
            logits = nnx.merge(graph, state)(tokens, valid=valid)
            return (logits**2 * valid[..., None]).mean()

        return jax.value_and_grad(loss)(state)

    dense, tiled = (jax.tree.leaves(run(*nnx.split(model))) for model in models.values())
    for one, other in zip(tiled, dense, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
