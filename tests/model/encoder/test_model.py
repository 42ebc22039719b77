"""The model against its definition: layout, weights, precision, and the mistakes it names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.spec import UserError
from tests.model.encoder.models import CLASSES, DEFAULTS, DIM, HEADS, TOKENS, B, T, call, make, shape, weights


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
    assert shape(model) == (B, T, CLASSES)
    assert shape(make(), TOKENS[:1, :1]) == (1, 1, CLASSES)


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


def test_ranks_are_explicit():
    for options in (dict(norm='pre', use_bias=True), dict(readout='pooled', causal=True)):
        graph, state = nnx.split(make(**options))
        with jax.numpy_rank_promotion('raise'):
            jax.eval_shape(lambda s, t, g=graph: nnx.merge(g, s)(t, valid=jnp.ones((1, T), bool)), state, TOKENS)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(layers=0), 'Encoder: layers must be at least 1, not 0'),
        (dict(dim=0), 'Encoder: dim must be at least 1'),
        (dict(heads=-1), 'Encoder: heads must be at least 1'),
        (dict(head_dim=0), 'Encoder: head_dim must be at least 1'),
        (dict(mlp_dim=0), 'Encoder: mlp_dim must be at least 1'),
        (dict(dropout_rate=1.0), 'Encoder: dropout_rate must be at least 0 and below 1'),
        (dict(dropout_rate=-0.1), 'Encoder: dropout_rate must be at least 0 and below 1'),
        (dict(attention_dropout_rate=1.5), 'Encoder: attention_dropout_rate must be at least 0 and below 1'),
        (dict(heads=3), '3 heads do not divide the width 16 - choose from 1, 2, 4, 8, 16, or set model.head_dim'),
        (dict(position='ropee'), "did you mean 'rope'"),
        (dict(position='rope, none, rope'), 'lists 3 specs for 2 layers'),
        (dict(position='rope, sincos'), "layer 1 has its own 'sincos'"),
        (dict(position='none, randomize(max_position=40)|learned'), 'the first layer adds embeddings'),
        (dict(position='learned', position_per_layer=True), 'the first layer adds embeddings'),
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
