"""MultiHeadAttention: parity with `flax.nnx.MultiHeadAttention`, and what it adds."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.cores import dense
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError, load

B, T, S, D, HEADS = 2, 5, 7, 12, 4
RNG = np.random.default_rng(0)
X, Y, Z = (jnp.asarray(RNG.standard_normal((B, length, D)), jnp.float32) for length in (T, S, S))
# Every query sees something: on rows without a key the two differ on purpose (zeros here, a mean there).
MASK = jnp.asarray((RNG.random((B, 1, T, S)) < 0.5) | (np.arange(S) == 0))
HEAD_MASK = jnp.asarray((RNG.random((1, HEADS, T, S)) < 0.5) | (np.arange(S) == 1))


def make(num_heads=HEADS, in_features=D, seed=0, **options):
    return MultiHeadAttention(num_heads, in_features, rngs=nnx.Rngs(seed), **options)


compiled = nnx.jit(lambda layer, *inputs, **options: layer(*inputs, **options))
"""The call of a layer as one program: faster than its operations one by one where their shapes are those of no other
test."""


def pair(**options):
    """Ours and flax's, with equal random weights, biases and norms."""
    flax = nnx.MultiHeadAttention(HEADS, D, decode=False, deterministic=True, rngs=nnx.Rngs(0), **options)
    ours = make(seed=1, **options)
    leaves, tree = jax.tree.flatten(nnx.state(flax, nnx.Param))
    rng = np.random.default_rng(1)
    leaves = [jnp.asarray(0.5 * rng.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves]
    nnx.update(flax, jax.tree.unflatten(tree, leaves))
    ours_paths = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(nnx.state(ours, nnx.Param))}
    flax_paths = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(nnx.state(flax, nnx.Param))}
    assert ours_paths == flax_paths
    nnx.update(ours, nnx.state(flax, nnx.Param))
    return ours, flax


# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(num_kv_heads=1, use_bias=False),
        dict(num_kv_heads=2, normalize_qk=True),
        dict(qkv_features=24, out_features=6),
        dict(in_kv_features=7, num_kv_heads=2, qkv_features=8),
        *(
            pytest.param(options, marks=pytest.mark.slow)  # one by one
            for options in (
                dict(use_bias=False),
                dict(normalize_qk=True),
                dict(num_kv_heads=2),
                dict(qkv_features=8),
                dict(in_kv_features=7),
            )
        ),
    ],
    ids=str,
)
def test_same_weights_same_output(options):
    """Self-attention, cross-attention with two and with three inputs, and both kinds of mask."""
    ours, flax = pair(**options)
    y, z = (other[..., : options.get('in_kv_features', D)] for other in (Y, Z))
    calls = [((X, y, z), MASK), ((X, y), HEAD_MASK)]
    if not options or 'in_kv_features' in options:
        calls += [((X, y), None), ((X, y, z), None)]
    if 'in_kv_features' not in options:
        calls += [((X,), None), ((X,), jnp.tril(jnp.ones((1, 1, T, T), bool)))]
    run = nnx.jit(lambda layer: [layer(*inputs, mask=mask) for inputs, mask in calls])
    for one, other in zip(run(ours), run(flax), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_same_gradients():
    ours, flax = pair(num_kv_heads=2)

    def gradients(layer):
        graph, state = nnx.split(layer)
        loss = lambda state, x: (nnx.merge(graph, state)(x, Y, Z, mask=MASK) ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1)))(state, X)

    one, two = gradients(ours), gradients(flax)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-4)  # entries of order 40


def test_initial_weights_are_flaxs():
    """Those of the same seed, by default and by initialisers of one's own."""
    normal, ones = jax.nn.initializers.normal(), jax.nn.initializers.ones
    for options in (dict(), dict(kernel_init=normal, bias_init=ones), dict(out_kernel_init=normal, out_bias_init=ones)):
        flax = nnx.MultiHeadAttention(HEADS, D, rngs=nnx.Rngs(0), **options)
        ours, theirs = (jax.tree.leaves(nnx.state(layer, nnx.Param)) for layer in (make(**options), flax))
        assert len(ours) == len(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_same_mask_in_either_form():
    layer = make()
    valid = jnp.asarray(RNG.random((B, T)) < 0.7).at[:, 0].set(True)
    mask = masks.causal() & masks.padding(valid)
    np.testing.assert_allclose(layer(X, mask=mask), layer(X, mask=mask.dense(T, T)), atol=1e-6)
    assert np.abs(layer(X, mask=mask) - layer(X)).max() > 1e-3


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32, jnp.dtype('bfloat16')], ids=str)
def test_types(dtype):
    layer = make(dtype=dtype)
    assert layer(X).dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))} == {jnp.dtype('float32')}
    exact = make(dtype=jnp.float32)(X)
    np.testing.assert_allclose(np.asarray(layer(X), np.float32), exact, atol=5e-2 if dtype == jnp.bfloat16 else 1e-6)
    half = make(param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half, nnx.Param))} == {jnp.dtype('bfloat16')}


# --- what it adds ----------------------------------------------------------------------------------------------------


def test_head_dim():
    layer = make(head_dim=5, out_features=9)
    assert layer.query.kernel.shape == (D, HEADS, 5)
    assert layer.out.kernel.shape == (HEADS, 5, 9)
    out = compiled(layer, X)
    assert out.shape == (B, T, 9)
    same = make(qkv_features=20, out_features=9)
    nnx.update(same, nnx.state(layer))
    np.testing.assert_array_equal(out, compiled(same, X))
    assert compiled(make(head_dim=5, qkv_features=20), X).shape == (B, T, D)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_heads=5), '5 heads do not divide the width 12'),
        (dict(qkv_features=10), '4 heads do not divide the width 10'),
        (dict(num_kv_heads=3), '3 key/value heads do not divide 4 heads'),
        (dict(head_dim=4, qkv_features=12), '4 heads of 4 are not qkv_features=12'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_head_mask():
    """Zero removes a head's output, one keeps it, and the heads add up."""
    layer = make()
    np.testing.assert_allclose(layer(X, head_mask=jnp.ones(HEADS)), layer(X), atol=1e-6)
    bias = np.asarray(layer.out.bias[...])
    np.testing.assert_allclose(layer(X, head_mask=jnp.zeros(HEADS)), np.broadcast_to(bias, (B, T, D)), atol=1e-6)
    alone = sum(np.asarray(layer(X, head_mask=jnp.eye(HEADS)[h])) - bias for h in range(HEADS))
    np.testing.assert_allclose(alone, np.asarray(layer(X)) - bias, atol=1e-5)
    without = layer(X, head_mask=jnp.array([1, 0, 1, 1]))
    pruned = make()
    nnx.update(pruned, nnx.state(layer))
    pruned.out.kernel[...] = pruned.out.kernel[...].at[1].set(0)
    np.testing.assert_allclose(without, pruned(X), atol=1e-6)


def test_head_mask_ranks_are_explicit():
    graph, state = nnx.split(make())
    with jax.numpy_rank_promotion('raise'):
        jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x, head_mask=jnp.ones(HEADS)), state, X)
        jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x, mask=masks.causal(), sow_weights=True), state, X)


@pytest.mark.parametrize('kv_heads', [1, 2, 4])
def test_grouped_heads_are_repeated_heads(kv_heads):
    """Query head h reads key/value head h // (heads / kv_heads)."""
    grouped, full = make(num_kv_heads=kv_heads), make()
    assert grouped.key.kernel.shape == (D, kv_heads, 3)
    for name in ('query', 'out'):
        nnx.update(getattr(full, name), nnx.state(getattr(grouped, name)))
    for name in ('key', 'value'):
        source, target = getattr(grouped, name), getattr(full, name)
        target.kernel[...] = source.kernel[...][:, np.arange(HEADS) * kv_heads // HEADS]
    np.testing.assert_allclose(grouped(X, Y, Z), full(X, Y, Z), atol=1e-6)


@pytest.mark.parametrize('spec', ['rope(fraction=0.7)', 'alibi', 't5', 'txl', 'alibi|txl'])
def test_position_of_the_layer_or_of_the_call(spec):
    scheme = positions.make(spec, Dims(D, HEADS, 3, max_len=8), rngs=nnx.Rngs(3))
    own, given = make(position=scheme), make()
    for name in ('query', 'key', 'value', 'out'):
        nnx.update(getattr(given, name), nnx.state(getattr(own, name)))
    np.testing.assert_allclose(own(X), given(X, position=scheme), atol=1e-6)
    assert np.abs(own(X) - given(X)).max() > 1e-4
    slots = jnp.arange(T)[None]
    np.testing.assert_allclose(own(X), own(X, q_pos=slots, k_pos=slots), atol=1e-6)
    assert np.abs(own(X) - own(X, q_pos=3 * slots, k_pos=slots)).max() > 1e-4


@pytest.mark.parametrize('core', ['dense', 'blockwise', 'linear'])
def test_padding_of_another_length_is_refused(core):
    """When a program is traced, by every core; the mistake to make is the padding of the queries."""
    layer = make(core=core)
    with pytest.raises(ValueError, match='is for 5 keys, but there are 7'):
        jax.eval_shape(lambda x, y: layer(x, y, mask=masks.padding(jnp.ones((1, T), bool))), X, Y)


def test_coordinates_are_handed_to_the_scheme():
    seen = []

    class Spy(positions.Position):
        def qk(self, q, k, coords):
            seen.append(coords)
            return q, k

    spy = Spy(Dims(D, HEADS, 3, max_len=8), rngs=nnx.Rngs(0))
    valid = jnp.array([[True] * 5 + [False] * 2, [True] * 7])
    make(position=spy)(X, Y, mask=masks.padding(valid))
    (coords,) = seen
    np.testing.assert_array_equal(coords.q_pos, np.arange(T)[None])
    np.testing.assert_array_equal(coords.k_pos, np.arange(S)[None])
    np.testing.assert_array_equal(coords.visible, [[5] * T, [7] * T])
    np.testing.assert_array_equal(coords.x, X)
    make(position=spy)(X, mask=masks.causal())
    np.testing.assert_array_equal(seen[-1].visible, np.arange(1, T + 1)[None])


def test_a_layer_does_not_own_the_scheme_of_a_call():
    layer = make()
    scheme = positions.make('t5', Dims(D, HEADS, 3, max_len=8), rngs=nnx.Rngs(0))
    before = len(jax.tree.leaves(nnx.state(layer)))
    layer(X, position=scheme)
    assert len(jax.tree.leaves(nnx.state(layer))) == before


@pytest.mark.parametrize('spec', ['rope(fraction=0.7)', 't5', 'ssmax|alibi'])
def test_a_spec_is_a_position(spec):
    """The layer builds it for its own heads; the projections start as without it."""
    layer, plain = make(position=spec), make()
    np.testing.assert_array_equal(layer.query.kernel[...], plain.query.kernel[...])
    scheme = positions.make(spec, Dims(D, HEADS, 3, max_len=2048), rngs=nnx.Rngs(0))
    params = nnx.state(layer.position, nnx.Param)
    nnx.update(scheme, params)
    np.testing.assert_allclose(layer(X), plain(X, position=scheme), atol=1e-6)
    assert jax.tree.structure(nnx.state(scheme, nnx.Param)) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ('spec', 'hook'),
    [('sincos', 'embed'), ('learned', 'embed'), ('pi(scale=2)|rope(fraction=0.7)', 'remap'), ('randomize', 'remap')],
)
def test_what_a_layer_alone_does_not_apply_is_refused(spec, hook):
    """By name; where a call says by its coordinates, or by a scheme of its own, that it was done, it is as the rest."""
    layer = make(position=spec)
    with pytest.raises(UserError, match=rf"position '{re.escape(spec)}' has a '{hook}' hook"):
        layer(X)
    at = jnp.arange(T)[None] / 2
    last = make(position=spec.rpartition('|')[2]) if '|' in spec else make()
    np.testing.assert_allclose(layer(X, q_pos=at, k_pos=at), last(X, q_pos=at, k_pos=at), atol=1e-6)
    np.testing.assert_allclose(layer(X, position=layer.position, q_pos=at, k_pos=at), layer(X, q_pos=at, k_pos=at))
    assert layer(X, position=layer.position).shape == X.shape


@pytest.mark.parametrize('dims', [Dims(D, 2, 3, 8), Dims(D, HEADS, 6, 8)])
def test_a_scheme_for_other_heads_is_refused(dims):
    scheme = positions.make('alibi', dims, rngs=nnx.Rngs(0))
    message = f"'alibi' was made for {dims.heads} heads of {dims.head_dim}, but the layer has 4 of 3"
    for call in (lambda: make(position=scheme), lambda: make()(X, position=scheme)):
        with pytest.raises(UserError, match=message):
            call()


def test_a_table_serves_as_many_tokens_as_the_layer_says():
    with pytest.raises(UserError, match='its table has 8 rows'):
        make(position='learned(max_position=8)', max_len=9)
    make(position='learned(max_position=8)', max_len=8)
    with pytest.raises(UserError, match='causal attention only'):
        make(position='cable')
    make(position='cable', is_causal=True)(X, mask=masks.causal())


def test_inputs_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r'inputs_k must be \[B, T, 12\], not \(2, 7, 11\)'):
        make()(X, Y[..., 1:])


# --- attention maps --------------------------------------------------------------------------------------------------


def capture(layer, *inputs, **options):
    """The output, and what the layer keeps of its computation."""
    graph, state = nnx.split(layer)
    run = jax.jit(lambda state: nnx.capture(nnx.merge(graph, state), nnx.Intermediate)(*inputs, **options))
    return run(state)


def maps(state):
    return [
        leaf for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(state)) if 'attention_weights' in str(path)
    ]


@pytest.mark.parametrize('options', [dict(), dict(num_kv_heads=2, normalize_qk=True)], ids=str)
@pytest.mark.parametrize('spec', ['none', 'alibi', 'txl'])
def test_attention_maps(spec, options):
    """Rows sum to one, hidden keys have none of it, and the maps are those that made the output."""
    scheme = positions.make(spec, Dims(D, HEADS, 3, max_len=8), rngs=nnx.Rngs(3))
    layer = make(position=scheme, use_bias=False, **options)
    out, state = capture(layer, X, Y, Z, mask=MASK, sow_weights=True)
    (weights,) = maps(state)
    assert weights.shape == (B, HEADS, T, S)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert not np.asarray(weights)[~np.broadcast_to(MASK, weights.shape)].any()

    v = np.repeat(layer.value(Z), HEADS // layer.num_kv_heads, axis=2)
    expected = np.einsum('bhts,bshv,hvd->btd', weights, v, layer.out.kernel[...])
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(out, layer(X, Y, Z, mask=MASK), atol=1e-6)


def test_attention_maps_are_the_weights_of_the_dense_core():
    layer = make(use_bias=False)
    _, state = capture(layer, X, mask=masks.causal(), sow_weights=True)
    slots = jnp.arange(T)[None]
    coords = Coords(q_pos=slots, k_pos=slots, visible=slots + 1, x=X)
    options = dict(position=layer.position, coords=coords, mask=masks.causal(), scale=3**-0.5)
    np.testing.assert_allclose(maps(state)[0], dense.weights(layer.query(X), layer.key(X), **options), atol=1e-6)


def test_nothing_is_kept_unless_asked_for():
    layer = make()
    _, state = capture(layer, X)
    assert not maps(state)
    layer(X)
    assert not jax.tree.leaves(nnx.state(layer, nnx.Intermediate))


def test_linear_attention_has_no_map():
    with pytest.raises(ValueError, match='no attention weights'):
        capture(make(core='linear'), X, sow_weights=True)


def test_maps_outside_capture_do_not_pile_up():
    """Two calls with maps, but nobody to capture them: the layer stays as it was, eager and compiled."""
    layer = make()
    before = jax.tree.structure(nnx.state(layer))
    for _ in range(2):
        layer(X, sow_weights=True)
    assert jax.tree.structure(nnx.state(layer)) == before


# --- dropout ---------------------------------------------------------------------------------------------------------


def test_dropout_only_where_it_is_asked_for():
    layer, plain = make(dropout_rate=0.5), make()
    np.testing.assert_array_equal(layer(X), plain(X))
    np.testing.assert_array_equal(layer(X, rngs=nnx.Rngs(dropout=0)), plain(X))
    np.testing.assert_array_equal(plain(X, deterministic=False, rngs=nnx.Rngs(dropout=0)), plain(X))
    one, two, again = (layer(X, deterministic=False, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - plain(X)).max() > 1e-3


def test_dropout_of_the_constructor():
    """`deterministic` of the constructor is that of a call that says nothing; flax's `train` and `eval` set it."""
    layer = make(dropout_rate=0.5, deterministic=False)
    dropped = layer(X, rngs=nnx.Rngs(dropout=0))
    np.testing.assert_array_equal(dropped, layer(X, deterministic=False, rngs=nnx.Rngs(dropout=0)))
    layer.eval()
    np.testing.assert_array_equal(layer(X), make()(X))
    layer.train()
    np.testing.assert_array_equal(layer(X, rngs=nnx.Rngs(dropout=0)), dropped)


def test_dropout_needs_a_key():
    """Training without a key is a mistake, not training without dropout."""
    with pytest.raises(ValueError, match='rngs'):
        make(dropout_rate=0.5)(X, deterministic=False)


# --- decoding ---------------------------------------------------------------------------------------------------------

SUMS_OVER_INPUTS = {'fox', 'cable', 'path', 'selective_rope', 'wall'}
"""Their bias needs the layer's inputs of all tokens, which no cache keeps."""


def decoded(layer, x, sizes, mask=None, reach=None, **options):
    """Outputs of a decoding in steps of so many tokens."""
    layer.init_cache(x.shape, reach=reach)
    step = nnx.jit(lambda layer, x, **options: layer(x, mask=mask, decode=True, **options))
    parts = [slice(*ends) for ends in itertools.pairwise(np.cumsum([0, *sizes]))]
    x, options = np.asarray(x), {name: np.asarray(value) for name, value in options.items()}
    steps = [step(layer, x[:, part], **{name: value[:, part] for name, value in options.items()}) for part in parts]
    return np.concatenate(steps, axis=1)


def every_scheme():
    """The shortest spec of each, slow where a scheme before it acts in the same hooks and is placed alike."""
    met = {}
    for name in positions.names():
        kind = load(positions, name, positions.Position, 'position scheme')
        acts = tuple(
            getattr(kind, hook) is not getattr(positions.Position, hook) for hook in (*positions.HOOKS, 'extent')
        )
        path = (acts, kind.per_example, kind.first_only, kind.wraps, name in SUMS_OVER_INPUTS, name == 'ssmax')
        marks = [pytest.mark.slow] if met.setdefault(path, name) != name else []
        yield pytest.param(positions.example(name), marks=marks)


@pytest.mark.parametrize('spec', [*every_scheme(), 'rope|t5', "txl(form='channels')"])
def test_decoding_token_by_token_is_the_full_pass(spec):
    """With every scheme that allows it, placed before where it has to be; grouped heads."""
    dims = Dims(16, 4, 8, max_len=8, causal=True)
    scheme = positions.make(spec, dims, rngs=nnx.Rngs(1))
    layer = MultiHeadAttention(4, 16, num_kv_heads=2, head_dim=8, position=scheme, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 7, 16))
    if spec in SUMS_OVER_INPUTS:
        with pytest.raises(ValueError, match='self-attention'):
            decoded(layer, x, [1, 1])
        return
    slots = jnp.arange(7)[None]
    placed = dict(q_pos=slots) if any(map(scheme.overrides, ('remap', 'embed'))) else {}
    whole = jax.jit(lambda x: layer(x, mask=masks.causal(), q_pos=slots, k_pos=slots))(x)
    np.testing.assert_allclose(decoded(layer, x, 7 * [1], **placed), whole, atol=1e-5)
    assert layer.cache_index[...] == 7


def test_decoding_keeps_the_coordinates_of_cached_keys():
    scheme = positions.make('rope|alibi', Dims(16, 2, 8, max_len=99, causal=True), rngs=nnx.Rngs(1))
    layer = MultiHeadAttention(2, 16, position=scheme, normalize_qk=True, rngs=nnx.Rngs(0))
    x, pos = jax.random.normal(jax.random.key(0), (2, 6, 16)), jnp.array([[3, 4, 9, 30, 31, 80], [0, 2, 4, 6, 8, 10]])
    whole = compiled(layer, x, mask=masks.causal(), q_pos=pos, k_pos=pos)
    np.testing.assert_allclose(decoded(layer, x, [1, 2, 1, 1, 1], q_pos=pos), whole, atol=1e-5)


def test_decoding_equals_flax():
    """The same weights, the same cache, token by token."""
    theirs = nnx.MultiHeadAttention(2, 16, decode=True, rngs=nnx.Rngs(0))
    ours = MultiHeadAttention(2, 16, decode=True, rngs=nnx.Rngs(1))
    nnx.update(ours, nnx.state(theirs, nnx.Param))
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    for layer in (ours, theirs):
        layer.init_cache(x.shape)
    for t in range(5):
        one, other = (compiled(layer, np.asarray(x)[:, t : t + 1]) for layer in (ours, theirs))
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize('sizes', [[1] * 9, [5, 1, 1, 2], [1, 7, 1]])
@pytest.mark.parametrize('reach', [0, 2])
def test_decoding_under_a_window(reach, sizes):
    """With and without the keys beyond it, in steps of one token and of more than it shows."""
    layer = MultiHeadAttention(2, 16, position='cope|rope', num_kv_heads=1, is_causal=True, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 9, 16))
    mask = masks.window(reach, 0)
    whole = compiled(layer, x, mask=mask)
    for kept in (None, mask.reach):
        np.testing.assert_allclose(decoded(layer, x, sizes, mask=mask, reach=kept), whole, atol=1e-5)
    assert layer.cached_key.shape == (2, reach, 1, 8)


def test_decoding_mistakes():
    layer = MultiHeadAttention(2, 16, rngs=nnx.Rngs(0))
    x = jnp.zeros((2, 3, 16))
    with pytest.raises(ValueError, match='call init_cache first'):
        layer(x, decode=True)
    layer.init_cache((2, 4, 16))
    nnx.jit(lambda layer: layer(x, decode=True))(layer)
    with pytest.raises(ValueError, match='room for 2 sequences of 4 tokens, 3 are in it'):
        layer(x, decode=True)
    with pytest.raises(ValueError, match='self-attention'):
        layer(x[:, :1], x, decode=True)


@pytest.mark.parametrize('core', ['dense', 'blockwise', 'linear'])
def test_tokens_beyond_the_cache_are_nan_where_their_number_is_traced(core):
    layer, x = MultiHeadAttention(2, 16, core=core, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 5, 16))
    layer.init_cache((2, 3, 16))
    step = nnx.jit(lambda layer, x: layer(x, mask=masks.full(), decode=True))
    if core == 'linear':  # it has no mask for a step of decoding
        with pytest.raises(UserError, match="no 'later' mask"):
            step(layer, x[:, :1])
        return
    out = np.concatenate([step(layer, np.asarray(x)[:, t : t + 1]) for t in range(5)], 1)
    np.testing.assert_allclose(out[:, :3], compiled(layer, x[:, :3], mask=masks.causal()), atol=1e-5)
    assert np.isnan(out[:, 3:]).all()


def test_decoding_with_wide_integers():
    with jax.enable_x64(True):
        layer = MultiHeadAttention(2, 16, position='rope', rngs=nnx.Rngs(0))
        x = jnp.asarray(RNG.standard_normal((2, 5, 16)), jnp.float32)
        whole = compiled(layer, x, mask=masks.causal())
        np.testing.assert_allclose(decoded(layer, x, [1, 2, 1, 1]), whole, atol=1e-5)


@pytest.mark.parametrize(
    'spec',
    [
        'ntk(dynamic=True, original_length=3)',
        'longrope(factors=(4., 9.), short_factors=(1., 2.), scale=2, original_length=3)',
    ],
)
def test_scales_of_the_length_see_all_tokens(spec):
    """Whatever a pattern hides: weights in proportion are those of the full pass; padded and decoded, too."""
    layer = MultiHeadAttention(2, 8, position=spec, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 8)), jnp.float32)
    mask = masks.window(1, 0)
    _, state = capture(layer, x, sow_weights=True)
    local_out, local = capture(layer, x, mask=mask, sow_weights=True)
    (whole,), (near,) = maps(state), maps(local)
    seen = np.where(mask.dense(7, 7), whole, 0)
    np.testing.assert_allclose(near, seen / seen.sum(-1, keepdims=True), atol=1e-5)
    longer = mask & masks.padding(jnp.arange(11)[None] < 7)
    padded = jax.jit(lambda x: layer(jnp.pad(x, ((0, 0), (0, 4), (0, 0))), mask=longer))(x)
    np.testing.assert_allclose(np.asarray(padded)[:, :7], local_out, atol=1e-5)
    last = decoded(layer, x, 7 * [1], mask=mask)[:, -1:]
    np.testing.assert_allclose(last, np.asarray(local_out)[:, -1:], atol=1e-5)
