"""The encoder: its layout, read-outs, schemes per layer, dropout, and the mistakes it names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.attention import MultiHeadAttention
from mha.encoder import Encoder
from mha.positions import Chain, Position
from mha.spec import UserError

VOCAB, CLASSES, B, T, DIM, HEADS = 7, 3, 2, 6, 16, 2
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (B, T)))
DEFAULTS = dict(vocab_size=VOCAB, num_classes=CLASSES, max_len=12, layers=2, dim=DIM, heads=HEADS, mlp_dim=24)


def make(seed=0, **options):
    return Encoder(**{**DEFAULTS, **options}, rngs=nnx.Rngs(seed))


@functools.cache
def shared(**options):
    return make(**options)


def call(model, tokens=TOKENS, seed=0, **options):
    """The compiled call: one program per structure of the model and shape."""
    graph, state = nnx.split(model)
    static = tuple((name, value) for name, value in options.items() if isinstance(value, bool))
    arrays = {name: value for name, value in options.items() if not isinstance(value, bool)}
    return np.asarray(run(graph, static, state, tokens, arrays, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(graph, static, state, tokens, arrays, key):
    position, dropout = jax.random.split(key)
    rngs = nnx.Rngs(position=position, dropout=dropout)
    return nnx.merge(graph, state)(tokens, rngs=rngs, **arrays, **dict(static))


def weights(model):
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}


# --- the model against its definition ---------------------------------------------------------------------------------


def reference(model, tokens, norm, causal=False):
    """Without positions, in float64 numpy from the weights: Vaswani et al. (2017) with either place of the norm."""
    w = {path: np.asarray(leaf, np.float64) for path, leaf in weights(model).items()}

    def layer_norm(x, path):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1) + 1e-6)[..., None]
        return x * w[f"{path}['scale']"] + w[f"{path}['bias']"]

    def attention(x, path):
        q, k, v = (
            np.einsum('btd,dhk->bthk', x, w[f"{path}['{name}']['kernel']"]) for name in ('query', 'key', 'value')
        )
        logits = np.einsum('bthk,bshk->bhts', q, k) / np.sqrt(q.shape[-1])
        if causal:
            logits = np.where(np.tril(np.ones(logits.shape[-2:], bool)), logits, -np.inf)
        a = np.exp(logits - logits.max(-1, keepdims=True))
        a /= a.sum(-1, keepdims=True)
        return np.einsum('bhts,bshk,hkd->btd', a, v, w[f"{path}['out']['kernel']"])

    def feed_forward(x, path):
        x = np.maximum(x @ w[f"{path}['up']['kernel']"] + w[f"{path}['up']['bias']"], 0)
        return x @ w[f"{path}['down']['kernel']"] + w[f"{path}['down']['bias']"]

    x = w["['embedding']['embedding']"][np.asarray(tokens)] * np.sqrt(DIM)
    for i in range(DEFAULTS['layers']):
        path = f"['blocks'][{i}]"
        for layer, layer_path, norm_path in (
            (attention, f"{path}['attention']", f"{path}['attention_norm']"),
            (feed_forward, path, f"{path}['mlp_norm']"),
        ):
            if norm == 'pre':
                x = x + layer(layer_norm(x, norm_path), layer_path)
            else:
                x = layer_norm(x + layer(x, layer_path), norm_path)
    if norm == 'pre':
        x = layer_norm(x, "['final_norm']")
    return x @ w["['head']['kernel']"] + w["['head']['bias']"]


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('norm', ['post', 'pre'])
def test_output(norm, causal):
    model = make(norm=norm, causal=causal)
    rng = np.random.default_rng(1)
    moved = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), nnx.state(model, nnx.Param))
    nnx.update(model, moved)
    np.testing.assert_allclose(call(model), reference(model, TOKENS, norm, causal), atol=5e-5)


@pytest.mark.parametrize(
    ('options', 'present', 'absent'),
    [
        (dict(), "['blocks'][1]['attention']['query']['kernel']", "['blocks'][0]['attention']['query']['bias']"),
        (dict(use_bias=True), "['blocks'][0]['attention']['query']['bias']", "['final_norm']['scale']"),
        (dict(norm='pre'), "['final_norm']['scale']", "['blocks'][2]['attention']['query']['kernel']"),
    ],
)
def test_parameters(options, present, absent):
    found = weights(make(**options))
    assert present in found
    assert absent not in found


def test_sizes():
    model = make(head_dim=5, heads=3, mlp_dim=None)
    assert model.blocks[0].attention.query.kernel.shape == (DIM, 3, 5)
    assert model.blocks[0].up.kernel.shape == (DIM, 4 * DIM)
    assert call(model).shape == (B, T, CLASSES)
    assert call(shared(), TOKENS[:1, :1]).shape == (1, 1, CLASSES)


def test_initial_embeddings():
    """Standard deviation 1 / sqrt(D), times sqrt(D) in the model: rows of norm one before the factor."""
    table = np.asarray(make(vocab_size=2000, dim=64).embedding.embedding[...])
    assert table.std() == pytest.approx(64**-0.5, rel=0.02)


def test_seeds():
    one, two, other = weights(make(0)), weights(make(0)), weights(make(1))
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[path])
    assert any(not np.array_equal(leaf, other[path]) for path, leaf in one.items())
    kernels = [leaf for path, leaf in one.items() if path.endswith("['query']['kernel']")]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize(
    'options',
    [
        dict(position='t5'),
        dict(position='learned'),
        dict(position='txl', position_per_layer=True),
        dict(position='txl, t5'),
        dict(position='randomize(max_position=40)|learned'),
    ],
    ids=str,
)
def test_shared_weights_start_equal_under_every_scheme(options):
    for settings in (dict(), dict(norm='pre', use_bias=True)):
        plain, other = weights(make(**settings)), weights(make(**settings, **options))
        assert set(plain) < set(other)
        for path, leaf in plain.items():
            np.testing.assert_array_equal(other[path], leaf, err_msg=path)


# --- read-out --------------------------------------------------------------------------------------------------------


def test_pooled_readout_is_the_mean_over_real_tokens():
    """The head is linear: the pooled logits are the mean of the logits per token."""
    valid = jnp.array([[True] * 6, [True] * 4 + [False] * 2])
    token, pooled = call(make(), valid=valid), call(make(readout='pooled'), valid=valid)
    assert pooled.shape == (B, CLASSES)
    np.testing.assert_allclose(pooled[0], token[0].mean(0), atol=1e-5)
    np.testing.assert_allclose(pooled[1], token[1, :4].mean(0), atol=1e-5)
    np.testing.assert_allclose(call(make(readout='pooled')), call(make()).mean(1), atol=1e-5)


def test_pooled_readout_shares_a_valid_row():
    valid = jnp.array([[True] * 4 + [False] * 2])
    one = call(make(readout='pooled'), valid=valid)
    two = call(make(readout='pooled'), valid=jnp.broadcast_to(valid, (B, T)))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_pair_readout_encodes_the_halves_apart():
    """As two calls of the pooled encoder, whose means x and y make the features [x, y, x y, x - y]."""
    pair, one = make(readout='pair', position='rope'), make(position='rope', num_classes=DIM, readout='pooled')
    mean = weights(pair) | {"['head']['kernel']": jnp.eye(DIM), "['head']['bias']": jnp.zeros(DIM)}
    state = nnx.state(one, nnx.Param)
    nnx.update(one, jax.tree_util.tree_map_with_path(lambda path, _: mean[jax.tree_util.keystr(path[:-1])], state))
    x, y = call(one, TOKENS[:, : T // 2]), call(one, TOKENS[:, T // 2 :])
    features = np.concatenate([x, y, x * y, x - y], axis=-1)
    found = call(pair)
    assert found.shape == (B, CLASSES)
    np.testing.assert_allclose(found, features @ np.asarray(pair.head.kernel[...]), atol=1e-5)


@pytest.mark.parametrize('position', ['randomize(max_position=40)|txl', 'learned'])
def test_padding_in_each_half(position):
    model, half = make(position=position, readout='pair', layers=1), T // 2
    wide = jnp.ones((B, 10), int).at[:, :half].set(TOKENS[:, :half]).at[:, 5 : 5 + half].set(TOKENS[:, half:])
    valid = (jnp.arange(10) % 5 < half)[None]
    plain, slots = call(model), jnp.tile(jnp.arange(5), 2)[None]
    np.testing.assert_allclose(call(model, wide, valid=valid), plain, atol=2e-5)
    np.testing.assert_allclose(call(model, wide, valid=valid.repeat(B, 0), pos=slots), plain, atol=2e-5)


def test_halves_of_pairs_do_not_meet_the_other_ones_length():
    """A scheme serves half of `max_len`: its table has as many rows, and the gradient reaches all that are used."""
    model = make(readout='pair', position='learned', layers=1)
    graph, state = nnx.split(model, nnx.Param)
    loss = lambda state: (nnx.merge(graph, state)(TOKENS) ** 2).sum()  # noqa: E731
    grads = weights(nnx.merge(graph, jax.jit(jax.grad(loss))(state)))
    (table,) = (leaf for path, leaf in grads.items() if 'positions' in path)
    assert table.shape[0] == DEFAULTS['max_len'] // 2
    np.testing.assert_array_equal(np.abs(table).sum(-1) > 0, np.arange(len(table)) < T // 2)
    assert all(np.abs(leaf).sum() > 0 for path, leaf in grads.items() if 'attention' not in path)


@pytest.mark.parametrize('readout', ['token', 'pooled', 'pair'])
def test_an_example_of_nothing_but_padding_is_finite(readout):
    """Such rows fill the last batch of an evaluation."""
    model = make(readout=readout, layers=1)
    valid = jnp.array([[True] * T, [False] * T])
    assert np.isfinite(call(model, valid=valid)).all()
    graph, state = nnx.split(model)
    loss = lambda state: nnx.merge(graph, state)(TOKENS, valid=valid)[0].sum()  # noqa: E731
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(state)))


@pytest.mark.parametrize('readout', ['token', 'pooled'])
@pytest.mark.parametrize('position', ['alibi', 'randomize(max_position=40)|txl', 'none, rope'])
def test_padding_in_two_layers(position, readout):
    model = make(position=position, readout=readout)
    valid = jnp.arange(10) < T
    tokens = jnp.concatenate([TOKENS, jnp.ones((B, 4), int)], axis=1)
    padded = call(model, tokens, valid=jnp.broadcast_to(valid, (B, 10)))
    one_row = call(model, tokens, valid=valid[None])
    np.testing.assert_allclose(one_row, padded, atol=1e-5)
    plain = call(model)
    np.testing.assert_allclose(padded if readout == 'pooled' else padded[:, :T], plain, atol=2e-5)


# --- schemes and layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('position', 'per_layer', 'of_layer', 'tables'),
    [
        ('t5', False, (0, 0, 0), 1),
        ('t5', True, (0, 1, 2), 3),
        ('t5, none, t5', False, (0, 1, 0), 1),
        ('t5, none, t5', True, (0, 1, 2), 2),
        ('rope, none, alibi', False, (0, 1, 2), 0),
        ('randomize(max_position=40)|t5', False, (0, 0, 0), 1),
    ],
)
def test_schemes_of_layers(position, per_layer, of_layer, tables):
    model = make(layers=3, position=position, position_per_layer=per_layer)
    assert tuple(model.scheme_of_layer) == of_layer
    assert len(model.positions) == max(of_layer) + 1
    assert sum('table' in path for path in weights(model)) == tables
    assert call(model).shape == (B, T, CLASSES)


def test_schemes_per_layer_start_different():
    one, two = (
        table for path, table in weights(make(position='t5', position_per_layer=True)).items() if 'table' in path
    )
    assert not np.array_equal(one, two)


def test_each_layer_uses_its_own_scheme():
    """Moving the table of layer i moves the output; with one scheme for all, equal tables per layer change nothing."""
    model = make(position='t5', position_per_layer=True)
    one = make(position='t5')
    table = jax.random.normal(jax.random.key(0), (32, HEADS))
    for scheme in (*model.positions, *one.positions):
        scheme.table[...] = table
    before = call(model)
    np.testing.assert_allclose(before, call(one), atol=1e-6)
    for scheme in model.positions:
        scheme.table[...] = -table
        assert np.abs(call(model) - before).max() > 1e-3
        scheme.table[...] = table


def test_a_layer_map_applies_in_order():
    first, second = call(make(position='rope, none')), call(make(position='none, rope'))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(call(make(position='rope, rope')), call(make(position='rope')), atol=1e-6)


def test_layers_of_one_scheme_share_a_draw():
    """Shared, one draw per forward pass; per layer, each draws for itself."""
    drawn = {}
    for per_layer in (False, True):
        model = make(position='randomize(max_position=1000)|rope', position_per_layer=per_layer)
        slots = jnp.arange(T)[None]
        key = nnx.Rngs(position=0).position()
        keys = [jax.random.fold_in(key, i) for i in range(len(model.positions))]
        drawn[per_layer] = [scheme.remap(slots, key=k) for scheme, k in zip(model.positions, keys, strict=True)]
    assert len(drawn[False]) == 1
    assert not np.array_equal(*drawn[True])


def test_every_example_draws_for_itself_if_asked():
    """With and without `valid`: equal rows get different outputs from different positions."""
    tokens = jnp.broadcast_to(TOKENS[:1], (B, T))
    model = make(position='randomize(max_position=1000, per_example=True)|sincos')
    common = make(position='randomize(max_position=1000)|sincos')
    for options in (dict(valid=jnp.ones((B, T), bool)), dict(), dict(valid=jnp.ones((1, T), bool))):
        rows = call(model, tokens, **options)
        assert np.abs(rows[0] - rows[1]).max() > 1e-2, options
        rows = call(common, tokens, **options)
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


class Recorder(Position):
    """Keeps the coordinates that each layer meets, in an eager call."""

    def __init__(self):
        self.met = nnx.data([])

    def qk(self, q, k, coords):
        self.met.append(np.asarray(coords.q_pos))
        return q, k


@pytest.mark.parametrize('redraw', ['forward', 'layer'])
def test_a_draw_per_forward_or_per_layer(redraw):
    model = make(layers=3, position=f"randomize(max_position=99, redraw='{redraw}')|rope")
    recorder = Recorder()
    model.positions[0] = Chain([*model.positions[0].parts, recorder], 'recorded')
    model(TOKENS, rngs=nnx.Rngs(position=0))
    distinct = {tuple(at[0]) for at in recorder.met}
    assert (len(recorder.met), len(distinct)) == (3, 1 if redraw == 'forward' else 3)


def test_logits_are_averaged_over_draws_in_evaluation():
    model = make(position="randomize(max_position=99, test='average', draws=4)|rope")
    single = make(position='randomize(max_position=99)|rope')
    keys = jax.random.split(nnx.Rngs(position=5).position(), 4)
    each = [single.logits(TOKENS, None, None, False, key, None, None, False) for key in keys]
    np.testing.assert_allclose(model(TOKENS, rngs=nnx.Rngs(position=5)), np.mean(each, 0), atol=1e-5)
    rngs = dict(position=5, dropout=1)
    np.testing.assert_array_equal(
        model(TOKENS, train=True, rngs=nnx.Rngs(**rngs)), single(TOKENS, train=True, rngs=nnx.Rngs(**rngs))
    )


def test_given_coordinates():
    model = shared(position='sincos')
    slots = jnp.arange(T)[None]
    np.testing.assert_allclose(call(model), call(model, pos=slots), atol=1e-6)
    assert np.abs(call(model) - call(model, pos=2 * slots)).max() > 1e-2
    both = call(model, pos=jnp.concatenate([slots, 2 * slots]))
    np.testing.assert_allclose(both[0], call(model)[0], atol=1e-5)
    np.testing.assert_allclose(both[1], call(model, pos=2 * slots)[1], atol=1e-5)


def test_beyond_the_table_is_an_error():
    model = make(position='learned(max_position=12)')
    with pytest.raises(
        ValueError, match=r'its table has 12 rows for 13 positions, one per token .* max_position=13 or more'
    ):
        model(jnp.zeros((1, 13), int))
    with pytest.raises(UserError, match='its table has 11 rows for 12 positions'):
        make(position='learned(max_position=11)')
    far = call(model, pos=jnp.arange(T)[None] + 10)
    assert np.isnan(far).all(-1).any()


def test_random_positions_need_a_key():
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make(position='randomize(max_position=40)|rope')(TOKENS)


# --- patterns --------------------------------------------------------------------------------------------------------


def reach(model, tokens=TOKENS, **options):
    """[T, T]: whether the output of token i depends on token j, by gradient."""
    graph, state = nnx.split(model)

    @jax.jit
    def flows(state):
        table = state['embedding']['embedding'][...]

        def outputs(x):
            model = nnx.merge(graph, state)
            model.embedding = lambda tokens: x
            return model(tokens[:1], **options)[0].sum(-1)

        return jnp.abs(jax.jacobian(outputs)(table[tokens[:1]])[:, 0]).max(-1) > 0

    return np.asarray(flows(state))


def sees(condition, length=T):
    return np.array([[condition(i, j) for j in range(length)] for i in range(length)])


@pytest.mark.parametrize(
    ('pattern', 'options', 'condition'),
    [
        ('full', dict(), lambda i, j: True),
        ('window(1)', dict(), lambda i, j: abs(i - j) <= 1),
        ('window(1)|global(1)', dict(), lambda i, j: abs(i - j) <= 1 or i == 0 or j == 0),
        ('window(1)|global(1)', dict(causal=True), lambda i, j: i - 1 <= j <= i or j == 0),
        ('dilated(1, 2)|global(1)', dict(position='t5'), lambda i, j: abs(i - j) in (0, 2) or i == 0 or j == 0),
        ('strided(2)', dict(causal=True, position='rope'), lambda i, j: j <= i and (i - j <= 2 or (i - j) % 2 == 0)),
    ],
)
def test_a_pattern_is_what_a_layer_sees(pattern, options, condition):
    np.testing.assert_array_equal(reach(make(layers=1, pattern=pattern, **options)), sees(condition))


def test_two_layers_of_a_pattern_see_further():
    one = sees(lambda i, j: abs(i - j) <= 1)
    np.testing.assert_array_equal(reach(make(pattern='window(1)')), one @ one)
    back, ahead = sees(lambda i, j: i - 2 <= j <= i), sees(lambda i, j: i <= j <= i + 1)
    np.testing.assert_array_equal(reach(make(pattern='window(2, 0), window(0, 1)')), ahead @ back)


def test_a_pattern_and_padding():
    """A real token sees what the pattern allows among the real ones; padding changes nothing."""
    model = make(layers=1, pattern='window(2)|global(1)')
    valid = jnp.arange(T)[None] < 4
    expected = sees(lambda i, j: j == i or (j < 4 and (abs(i - j) <= 2 or i == 0 or j == 0)))
    np.testing.assert_array_equal(reach(model, valid=valid), expected)
    np.testing.assert_allclose(call(model, valid=valid)[:, :4], call(model, TOKENS[:, :4]), atol=1e-5)


def test_the_number_of_visible_keys_is_that_of_the_pattern():
    met = []

    class Spy(Position):
        def __init__(self):
            pass

        def qk(self, q, k, coords):
            met.append(np.asarray(coords.visible)[0].tolist())
            return q, k

    model = make(pattern='full, window(1)', causal=True)
    model.positions[0] = Spy()
    model(TOKENS)
    assert met == [[1, 2, 3, 4, 5, 6], [1, 2, 2, 2, 2, 2]]


def test_a_pattern_has_no_parameters():
    plain, other = weights(make()), weights(make(pattern='window(1), prefix(2)|random(2, 1)'))
    assert plain.keys() == other.keys()
    for path, leaf in plain.items():
        np.testing.assert_array_equal(other[path], leaf)


# --- dropout and training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options', [dict(dropout_rate=0.5), dict(dropout_rate=0.0, attention_dropout_rate=0.5)], ids=str
)
def test_dropout_is_for_training(options):
    model, plain = make(**options), make(dropout_rate=0.0)
    np.testing.assert_allclose(call(model), call(plain), atol=1e-6)
    np.testing.assert_array_equal(call(model, seed=0), call(model, seed=1))
    one, two, again = (call(model, train=True, seed=seed) for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - call(plain)).max() > 1e-3
    np.testing.assert_array_equal(call(plain, train=True), call(plain))


@pytest.mark.parametrize(
    'options', [dict(dropout_rate=0.5), dict(dropout_rate=0.0, attention_dropout_rate=0.5)], ids=str
)
def test_training_without_a_key_is_an_error(options):
    with pytest.raises(ValueError, match='rngs'):
        make(**options)(TOKENS, train=True)


@pytest.mark.parametrize('position', ['none', 'sincos', 'rope', 'learned'])
def test_dropout_is_drawn_alike_under_every_scheme(position):
    """Embedding, attention output and feed-forward of each layer: as many keys whatever the scheme."""
    rngs = nnx.Rngs(dropout=0, position=0)
    make(position=position, dropout_rate=0.1)(TOKENS, train=True, rngs=rngs)
    assert int(rngs.dropout.count[...]) == 1 + 2 * DEFAULTS['layers']


def test_linspace_is_for_evaluation():
    model = make(position="randomize(max_position=1000, test='linspace')|sincos", dropout_rate=0.0)
    np.testing.assert_array_equal(call(model, seed=0), call(model, seed=1))
    assert np.abs(call(model, train=True, seed=0) - call(model, train=True, seed=1)).max() > 1e-2


def test_bfloat16():
    model, exact = make(dtype='bfloat16', position='sincos'), make(position='sincos')
    assert {leaf.dtype for leaf in weights(model).values()} == {jnp.dtype('float32')}
    out = call(model)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, call(exact), atol=5e-2)
    assert np.abs(out - call(exact)).max() > 0


def test_attention_maps_of_every_layer():
    model = make(position='txl', causal=True)
    out, state = nnx.capture(model, nnx.Intermediate)(TOKENS, sow_weights=True)
    maps = [leaf for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(state)) if 'weights' in str(path)]
    assert [leaf.shape for leaf in maps] == [(B, HEADS, T, T)] * 2
    for leaf in maps:
        np.testing.assert_allclose(leaf.sum(-1), 1, atol=1e-5)
        assert not np.triu(leaf, 1).any()
    np.testing.assert_allclose(out, call(model), atol=1e-5)


# --- memory ----------------------------------------------------------------------------------------------------------


def gradients(tokens=TOKENS, **options):
    """The program that computes those of all parameters in training, and what it takes."""
    rates = dict(dropout_rate=0.3, attention_dropout_rate=0.3)
    graph, params = nnx.split(make(**rates, **options), nnx.Param)
    valid = jnp.ones((1, tokens.shape[1]), bool)

    def loss(params, tokens):
        logits = nnx.merge(graph, params)(tokens, valid=valid, train=True, rngs=nnx.Rngs(dropout=1, position=2))
        return jnp.square(logits).sum()

    return jax.jit(jax.grad(loss)), (params, tokens)


@pytest.mark.parametrize(
    'options',
    [
        dict(position='t5', pattern='window(2), full'),
        dict(position='randomize_offsets(max_position=40)|t5', norm='pre'),
        dict(position='none, fox', core='blockwise', causal=True),
    ],
    ids=str,
)
def test_remat_changes_no_gradient(options):
    """With dropout: the backward pass draws again what the forward pass drew."""
    programs = (gradients(remat=remat, **options) for remat in (False, True))
    plain, again = (jax.tree.leaves(program(*given)) for program, given in programs)
    assert any(np.abs(leaf).max() > 1e-2 for leaf in plain)
    for one, two in zip(plain, again, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6 * max(1, np.abs(one).max()))


def test_remat_needs_less_memory():
    """With the barriers that a CPU's compiler would remove before it merges equal parts of a program."""
    barriers = {'xla_disable_hlo_passes': 'cse_barrier_expander'}
    bytes_needed = []
    for remat in (False, True):
        program, given = gradients(jnp.zeros((4, 32), int), layers=4, max_len=32, remat=remat)
        compiled = program.lower(*given).compile(compiler_options=barriers)
        bytes_needed.append(compiled.memory_analysis().temp_size_in_bytes)
    assert bytes_needed[1] < 0.6 * bytes_needed[0]


def test_remat_keeps_attention_maps():
    model = make(remat=True)
    _, state = nnx.capture(model, nnx.Intermediate)(TOKENS, train=True, rngs=nnx.Rngs(0), sow_weights=True)
    assert len(jax.tree.leaves(state)) == DEFAULTS['layers']


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(position='t5'), 1),
        (dict(position='none, rope, none, rope', remat=True), 2),
        (dict(pattern='window(1), window(1), window(1), window(2)'), 2),
    ],
    ids=str,
)
def test_layers_that_are_alike_are_traced_once(options, expected, monkeypatch):
    """In training, and each of them draws its own dropout: the logits are those of layers traced one by one."""
    model = make(layers=4, attention_dropout_rate=0.1, **options)
    rngs = nnx.Rngs(position=1, dropout=2)
    maps = nnx.capture(model, nnx.Intermediate)
    one_by_one, _ = maps(TOKENS, train=True, rngs=nnx.Rngs(position=1, dropout=2), sow_weights=True)
    traced, attention = [], MultiHeadAttention.__call__
    monkeypatch.setattr(
        MultiHeadAttention,
        '__call__',
        lambda self, *args, **kwargs: traced.append(0) or attention(self, *args, **kwargs),
    )
    np.testing.assert_allclose(model(TOKENS, train=True, rngs=rngs), one_by_one, atol=1e-5)
    assert len(traced) == expected


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(layers=0), 'model.layers must be at least 1, not 0'),
        (dict(dim=0), 'model.dim must be at least 1'),
        (dict(heads=-1), 'model.heads must be at least 1'),
        (dict(head_dim=0), 'model.head_dim must be at least 1'),
        (dict(mlp_dim=0), 'model.mlp_dim must be at least 1'),
        (dict(dropout_rate=1.0), 'model.dropout_rate must be at least 0 and below 1'),
        (dict(dropout_rate=-0.1), 'model.dropout_rate must be at least 0 and below 1'),
        (dict(attention_dropout_rate=1.5), 'model.attention_dropout_rate must be at least 0 and below 1'),
        (dict(heads=3), '3 heads do not divide the width 16 - choose from 1, 2, 4, 8, 16, or set model.head_dim'),
        (dict(position='ropee'), "did you mean 'rope'"),
        (dict(position='rope, none, rope'), 'lists 3 specs for 2 layers'),
        (dict(position='rope, sincos'), "layer 1 has its own 'sincos'"),
        (dict(position='none, randomize(max_position=40)|learned'), 'the first layer adds embeddings'),
        (dict(position='rope', head_dim=5), 'even'),
        (dict(position='randomize(max_position=11)|rope'), '11 positions cannot serve 12 tokens'),
        (dict(core='densely'), "unknown attention core 'densely'"),
        (dict(pattern='windw(2)'), "unknown attention pattern 'windw' - did you mean 'window'"),
        (dict(pattern='window(2), full, full'), "pattern 'window\\(2\\), full, full' lists 3 specs for 2 layers"),
        (dict(pattern='window(-2)'), "attention pattern 'window': left must be at least 0, not -2"),
        (dict(pattern='global(2'), "cannot read 'global\\(2'"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        make(**options)
    assert len(str(error.value).splitlines()) == 1


def test_tables_that_no_layer_reads_are_refused_or_absent():
    """Embeddings are added once: a table per layer would leave all but the first without a gradient."""
    try:
        model = make(position='learned', position_per_layer=True)
    except UserError:
        return
    assert sum('table' in path for path in weights(model)) == 1


def test_ranks_are_explicit():
    for options in (dict(norm='pre', use_bias=True), dict(readout='pooled', causal=True)):
        graph, state = nnx.split(make(**options))
        with jax.numpy_rank_promotion('raise'):
            jax.eval_shape(lambda s, t, g=graph: nnx.merge(g, s)(t, valid=jnp.ones((1, T), bool)), state, TOKENS)
