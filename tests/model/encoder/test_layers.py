"""Which scheme serves which layer, and what it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.model.encoder import Inputs
from mha.positions import Chain, Position
from mha.spec import UserError
from tests.model.encoder.models import CLASSES, DIM, HEADS, TOKENS, B, T, call, make, shape, weights


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
    assert shape(model) == (B, T, CLASSES)


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
    model = make(position='randomize(max_position=1000, per_example=True)|sincos', layers=1)
    common = make(position='randomize(max_position=1000)|sincos', layers=1)
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
    model = make(position="randomize(max_position=99, test='average', draws=4)|rope", layers=1)
    single = make(position='randomize(max_position=99)|rope', layers=1)
    keys = jax.random.split(nnx.Rngs(position=5).position(), 4)
    each = [single(TOKENS, position_key=key) for key in keys]
    np.testing.assert_allclose(model(TOKENS, rngs=nnx.Rngs(position=5)), np.mean(each, 0), atol=1e-5)
    rngs = dict(position=5, dropout=1)
    np.testing.assert_array_equal(
        model(TOKENS, train=True, rngs=nnx.Rngs(**rngs)), single(TOKENS, train=True, rngs=nnx.Rngs(**rngs))
    )


def test_given_coordinates():
    model = make(position='sincos', layers=1)
    slots = jnp.arange(T)[None]
    np.testing.assert_allclose(call(model), call(model, pos=slots), atol=1e-6)
    assert np.abs(call(model) - call(model, pos=2 * slots)).max() > 1e-2
    both = call(model, pos=jnp.concatenate([slots, 2 * slots]))
    np.testing.assert_allclose(both[0], call(model)[0], atol=1e-5)
    np.testing.assert_allclose(both[1], call(model, pos=2 * slots)[1], atol=1e-5)


def test_beyond_the_table_is_an_error():
    model = make(position='learned(max_position=12)', layers=1)
    with pytest.raises(
        UserError, match=r'its table has 12 rows for 13 positions, one per token .* max_position=13 or more'
    ):
        model(jnp.zeros((1, 13), int))
    with pytest.raises(UserError, match='its table has 11 rows for 12 positions'):
        make(position='learned(max_position=11)')
    far = call(model, pos=jnp.arange(T)[None] + 10)
    assert np.isnan(far).all(-1).any()


def test_random_positions_need_a_key():
    with pytest.raises(ValueError, match='pass rngs with a key'):
        make(position='randomize(max_position=40)|rope')(TOKENS)


def test_linspace_is_for_evaluation():
    model = make(position="randomize(max_position=1000, test='linspace')|sincos", dropout_rate=0.0, layers=1)
    np.testing.assert_array_equal(call(model, seed=0), call(model, seed=1))
    assert np.abs(call(model, train=True, seed=0) - call(model, train=True, seed=1)).max() > 1e-2


@pytest.mark.parametrize(
    ('options', 'parameters'),
    [
        (dict(norm_kind='rms'), ('scale',)),
        (dict(mlp='gelu'), ('up', 'down')),
        (dict(mlp='gelu_exact'), ('up', 'down')),
        (dict(mlp='swiglu(width=10)'), ('up', 'down', 'gate')),
        (dict(mlp='geglu'), ('up', 'down', 'gate')),
        (dict(mlp='none'), ()),
        (dict(kv_heads=1), None),
        (dict(qk_norm='rms'), ('query_ln', 'key_ln')),
        (dict(qk_norm='layer', norm='pre', norm_kind='rms'), ('query_ln', 'key_ln')),
        (dict(embedding_norm='rms'), ('embedding_norm',)),
        (dict(output='mlm'), ('transform',)),
        (dict(output='mlm', tied=True), ('transform',)),
    ],
    ids=str,
)
def test_blocks_by_choice(options, parameters):
    """Each choice computes something else than the default, trains, and has the parameters that it names."""
    model = make(position='rope', layers=1, **options)
    out = call(model)
    assert np.isfinite(out).all()
    assert np.abs(out - call(make(position='rope', layers=1))).max() > 1e-3
    named = {str(part) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)) for part in path}
    if parameters is not None:
        assert {*parameters} <= named
        assert parameters or not {'up', 'down', 'mlp_norm'} & named


def test_gated_layers_are_as_large_as_plain_ones():
    count = lambda model: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.blocks, nnx.Param)))  # noqa: E731
    plain, gated = (nnx.eval_shape(lambda mlp=mlp: make(mlp=mlp, dim=48, heads=2)) for mlp in ('relu', 'swiglu'))
    assert count(gated) == pytest.approx(count(plain), rel=0.02)


def test_grouped_queries_equal_repeated_keys():
    """Two heads that share a key and a value equal two heads with the same ones."""
    shared_, full = (make(position='rope', layers=1, **options) for options in (dict(kv_heads=1), dict()))
    for name in ('key', 'value'):
        for block, other in zip(shared_.blocks, full.blocks, strict=True):
            kernel = getattr(block.attention, name).kernel[...]
            getattr(other.attention, name).kernel[...] = jnp.repeat(kernel, HEADS, axis=1)
    for part in ('embedding', 'head'):
        nnx.update(getattr(full, part), nnx.state(getattr(shared_, part)))
    for block, other in zip(shared_.blocks, full.blocks, strict=True):
        for part in ('up', 'down'):
            nnx.update(getattr(other, part), nnx.state(getattr(block, part)))
        for part in ('query', 'out'):
            nnx.update(getattr(other.attention, part), nnx.state(getattr(block.attention, part)))
    np.testing.assert_allclose(call(shared_), call(full), atol=1e-5)


def test_tied_readout_reads_the_embedding():
    model = make(tied=True)
    x = model.encode(Inputs(TOKENS, None, None, False, None, None, None, False, False))
    table = model.embedding.embedding[...][:CLASSES]
    np.testing.assert_allclose(model(TOKENS), x @ table.T, atol=1e-5)
    with pytest.raises(UserError, match=r'model\.tied needs a class per symbol'):
        make(tied=True, readout='pair')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(mlp='swigl'), "did you mean 'swiglu'"),
        (dict(mlp='relu(width=0)'), 'width must be at least 1, not 0'),
        (dict(mlp='none(width=3)'), 'width'),
        (dict(norm_kind='batch'), "unknown model.norm_kind 'batch'"),
        (dict(embedding_norm='l2'), "unknown model.embedding_norm 'l2'"),
        (dict(output='bert'), "'linear' or 'mlm', not 'bert'"),
        (dict(qk_norm='l2'), "unknown model.qk_norm 'l2'"),
        (dict(kv_heads=3), 'does not divide'),
        (dict(norm_eps=0.0), 'norm_eps must be above 0'),
        (dict(init='glorot'), "unknown init 'glorot'"),
        (dict(init='haiku(std=0.0)'), 'std must be above 0'),
        (dict(init='haiku|haiku'), 'do not compose'),
    ],
    ids=str,
)
def test_mistakes_in_the_choice_of_blocks(options, words):
    with pytest.raises(UserError, match=words):
        make(**options)


SIZES = dict(vocab_size=500, dim=64, heads=4, head_dim=32, mlp_dim=256, num_classes=64)


@pytest.mark.parametrize(
    ('init', 'embedding', 'kernel', 'cut'),
    [('default', 1.0, 0.125, 2.28), ('haiku', 0.1407, 0.110, 2.0), ('haiku(std=0.1)', 0.704, 0.110, 2.0)],
)
def test_initial_values(init, embedding, kernel, cut):
    """Standard deviations at width 64: of the input of the first layer, and of every kernel in units of its own fan-in;
    kernels end at `cut` of 1/8."""
    model = make(init=init, **SIZES)
    assert np.std(model.embedding.embedding[...]) * model.scale == pytest.approx(embedding, rel=0.02)
    block = model.blocks[0]
    for layer, fan_in in ((block.attention.query, 64), (block.attention.out, 128), (block.up, 64), (block.down, 256)):
        assert np.std(layer.kernel[...]) == pytest.approx(kernel * (64 / fan_in) ** 0.5, rel=0.03)
    assert np.std(model.head.kernel[...]) == pytest.approx(kernel, rel=0.03)
    assert not any(np.any(layer.bias[...]) for layer in (block.up, block.down, model.head))
    assert np.abs(block.up.kernel[...]).max() == pytest.approx(cut / 8, rel=0.01)


@pytest.mark.parametrize(('init', 'std'), [('gpt2', 0.02), ('gpt2(std=0.1)', 0.1)])
def test_initial_values_of_gpt2(init, std):
    """Kernels have one standard deviation whatever their size, smaller by sqrt(2 layers) before the residual sum."""
    model = make(init=init, layers=3, mlp='geglu', use_bias=True, **SIZES)
    assert model.scale == 1
    for block in model.blocks:
        for layer in (block.attention.query, block.attention.key, block.attention.value, block.up, block.gate):
            assert np.std(layer.kernel[...]) == pytest.approx(std, rel=0.03)
            assert np.abs(layer.kernel[...]).max() > 3 * std  # not cut
        for layer in (block.attention.out, block.down):
            assert np.std(layer.kernel[...]) == pytest.approx(std / 6**0.5, rel=0.03)
            assert not np.any(layer.bias[...])
    assert np.std(model.head.kernel[...]) == pytest.approx(std, rel=0.03)
    assert np.std(model.embedding.embedding[...]) == pytest.approx(std, rel=0.02)


def test_size_of_the_released_encoder_of_ruoss_et_al():
    """Number of parameters for one of their tasks, Transformer-XL's in every layer: as in the released code."""
    sizes = dict(vocab_size=5, num_classes=2, max_len=41, layers=5, dim=64, heads=8, mlp_dim=256)
    options = dict(position='txl', position_per_layer=True, init='haiku', norm_eps=1e-5)
    model = nnx.eval_shape(lambda: make(**sizes, **options))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 270_210


@pytest.mark.parametrize('kind', ['layer', 'rms'])
def test_epsilon_of_the_norms(kind):
    model = make(norm='pre', norm_kind=kind, norm_eps=1e-3)
    norm = [*(norm for block in model.blocks for norm in (block.attention_norm, block.mlp_norm)), model.final_norm]
    x = jnp.full((1, 1, DIM), 1e-2).at[0, 0, ::2].set(-1e-2)
    for each in norm:
        np.testing.assert_allclose(each(x), x / np.sqrt(1e-4 + 1e-3), rtol=1e-5)


def test_dropout_behind_the_embedding_can_be_left_out():
    """Without blocks that drop, what the model encodes is then the same under all keys."""
    for drops in (True, False):
        model = make(embedding_dropout=drops, dropout_rate=0.5, layers=1)
        model.blocks[0].dropout_rate = 0.0
        one, two = (call(model, train=True, seed=seed) for seed in (0, 1))
        assert (np.abs(one - two).max() > 1e-2) == drops
