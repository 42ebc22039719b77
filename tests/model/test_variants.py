"""Models under every normalizer, gate and mixing: initial values, gates, removed heads, and what recordings show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha
from mha import probes
from mha.model import heads
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.spec import UserError

T, HEADS, D = 8, 4, 16
TOKENS = jax.random.randint(jax.random.key(0), (2, T), 0, 5)
VALID = jnp.arange(T)[None] < jnp.array([[T], [T - 3]])
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, T, D)), jnp.float32)
VARIANTS = [
    pytest.param(dict(normalizer='sink'), marks=pytest.mark.slow),
    dict(normalizer="sink(kind='query')", gate='channel', kv_heads=2),
    dict(normalizer='sigmoid', gate='head', use_bias=True),
    pytest.param(dict(normalizer='entmax', position='rope', softcap=2.0), marks=pytest.mark.slow),
    pytest.param(dict(normalizer='stickbreaking', causal=True), marks=pytest.mark.slow),
    dict(mixing='differential', normalizer='sink', position='alibi', qk_norm='rms'),
    dict(mixing='talking_heads', gate='channel'),
    dict(mixing='multi_token(queries=2, keys=3)', position='rope', causal=True),
]
every_variant = pytest.mark.parametrize('options', VARIANTS, ids=lambda options: ' '.join(map(str, options.values())))


def model(moved=True, **options):
    """Encoder; parameters that only variants have are moved from their initial values."""
    sizes = dict(vocab_size=5, num_classes=5, max_len=T, layers=2, dim=D, heads=HEADS, dropout_rate=0.0)
    made = mha.Encoder(rngs=nnx.Rngs(0), **sizes | options)
    rng = np.random.default_rng(1)
    move = lambda x: x + 0.5 * jnp.asarray(rng.standard_normal(x.shape), x.dtype)  # noqa: E731
    for _, _, layer in heads.layers(made) if moved else ():
        for part in filter(None, (layer.normalizer, layer.mixing, layer.output_gate)):
            nnx.update(part, jax.tree.map(move, nnx.state(part, nnx.Param)))
    return made


def flat(made):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(nnx.state(made, nnx.Param))}


@every_variant
def test_other_weights_start_as_in_the_plain_model(options):
    plain = {name: value for name, value in options.items() if name not in ('normalizer', 'gate', 'mixing', 'softcap')}
    one, other = flat(model(False, **options)), flat(model(False, **plain))
    if 'qk_norm' in options:  # differential attention normalises queries and keys of half the width
        one, other = ({name: x for name, x in leaves.items() if '_ln' not in name} for leaves in (one, other))
    for name, value in other.items():
        np.testing.assert_array_equal(one[name], value, err_msg=name)


@pytest.mark.parametrize(('gate', 'shape'), [('head', (HEADS,)), ('channel', (HEADS, D // HEADS))])
def test_gates(gate, shape):
    """sigmoid(x W) times the output of each head or channel: one half where W is zero."""
    layer, plain = (
        MultiHeadAttention(HEADS, D, use_bias=False, gate=kind, rngs=nnx.Rngs(0)) for kind in (gate, 'none')
    )
    assert layer.output_gate.kernel.shape == (D, *shape)
    kernel = np.asarray(layer.output_gate.kernel[...], np.float64)
    np.testing.assert_allclose(kernel.std(), D**-0.5, rtol=0.3)
    seen = {}
    plain.probe = lambda q, k, v, **call: seen.update(v=v, q=q, k=k)
    plain(X, mask=masks.causal())
    z = np.einsum('bthk,bshk->bhts', *(np.float64(seen[name]) for name in 'qk')) / np.sqrt(D / HEADS)
    e = np.where(np.tri(T, dtype=bool), np.exp(z), 0)
    out = np.einsum('bhts,bshk->bthk', e / e.sum(-1, keepdims=True), np.float64(seen['v']))
    opened = 1 / (1 + np.exp(-np.tensordot(np.float64(X), kernel, 1)))
    out = out * opened.reshape(*opened.shape[:3], -1)
    expected = np.einsum('bthk,hkd->btd', out, np.float64(layer.out.kernel[...]))
    np.testing.assert_allclose(layer(X, mask=masks.causal()), expected, atol=1e-5)
    layer.output_gate.kernel[...] = jnp.zeros((D, *shape))
    np.testing.assert_allclose(layer(X), plain(X) / 2, atol=1e-6)


@every_variant
def test_recordings_are_what_layers_sow(options):
    """In one piece and in blocks of rows, and they make the outputs. Sums of rows are those of the normalizer."""
    graph, state = nnx.split(model(**options))

    @jax.jit
    def run(state):
        made = nnx.merge(graph, state)
        seen, outputs = probes.record(made, TOKENS, valid=VALID), []
        for attention in seen.attentions:
            layer = made.blocks[attention.layer].attention
            out = attention.outputs() * (1 if attention.gate is None else attention.gate)
            found = jnp.einsum('bthk,hkd->btd', out, attention.out)
            expected = layer(attention.coords.x, mask=attention.mask, position=attention.position)
            outputs.append((found, expected if layer.out.bias is None else expected - layer.out.bias[...][None, None]))
        rows = [[attention.weights(start, 4) for start in (0, 4)] for attention in seen.attentions]
        sown = jnp.stack(made.attention_weights(TOKENS, valid=VALID))
        return sown, seen.weights(), jnp.stack([jnp.concatenate(parts, axis=2) for parts in rows]), outputs

    sown, weights, blocks, outputs = run(state)
    np.testing.assert_allclose(weights, sown, atol=1e-6)
    np.testing.assert_allclose(blocks, sown, atol=1e-6)
    np.testing.assert_array_equal(np.where(VALID[:, None, None], 0, sown), 0)
    for found, expected in outputs:
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(expected).max() > 0
    total = sown.sum(-1)
    match options.get('mixing', options.get('normalizer')).partition('(')[0]:
        case 'entmax':
            np.testing.assert_allclose(total, 1, atol=1e-5)
        case 'sink' | 'softpick' | 'stickbreaking':
            assert (total <= 1).all()
        case 'sigmoid':
            assert total.max() > 1


def test_sums_of_differences():
    """Rows of differential attention sum to 1 - lambda."""
    made = model(mixing='differential')
    total = np.stack(made.attention_weights(TOKENS)).sum(-1)
    for of_layer, (_, _, layer) in zip(total, heads.layers(made), strict=True):
        np.testing.assert_allclose(of_layer, 1 - layer.mixing.factor, atol=1e-5)


@pytest.mark.parametrize('gate', ['none', 'head', 'channel'])
def test_contributions_are_norms_of_what_keys_add(gate):
    """A loop over pairs: weight times the norm of the gated value, projected."""
    seen = probes.record(model(gate=gate, normalizer='sink'), TOKENS, valid=VALID).attentions[1]
    weights, (_, _, _, channels), expected = seen.weights(), seen.v.shape, np.zeros(seen.shape)
    opened = np.ones((2, T, HEADS, channels)) if seen.gate is None else np.broadcast_to(seen.gate, seen.v.shape)
    for b, h, i, j in np.ndindex(seen.shape):
        added = (opened[b, i, h] * seen.v[b, j, h]) @ seen.out[h]
        expected[b, h, i, j] = weights[b, h, i, j] * np.linalg.norm(added)
    np.testing.assert_allclose(seen.contributions(), expected, atol=1e-5)
    np.testing.assert_allclose(seen.contributions(2, 3), expected[:, :, 2:5], atol=1e-5)


@every_variant
def test_removed_heads(options):
    """Equal to a mask of heads, or refused where heads depend on each other."""
    made, removed = model(**options), heads.parse('0:0,2;1:3')
    cut = lambda: heads.prune(nnx.merge(*nnx.split(made)), removed)  # noqa: E731
    if 'mixing' in options and not options['mixing'].startswith('differential'):
        with pytest.raises(UserError, match='none of them can be removed'):
            cut()
        return
    head_mask = jnp.ones((2, HEADS)).at[0, np.array([0, 2])].set(0).at[1, 3].set(0)
    found, expected = cut()(TOKENS, valid=VALID), probes.record(made, TOKENS, head_mask=head_mask, valid=VALID).logits
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert all(x.size for x in jax.tree.leaves(nnx.state(heads.prune(made, heads.parse('0:0,1,2,3')), nnx.Param)))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(gate='heads'), "gate must be 'none' or 'head' or 'channel', not 'heads'"),
        (dict(softcap=-1.0), 'softcap must be 0, or from 1e-30 to 1e'),
        (dict(normalizer='sinks'), "unknown normalizer 'sinks' - did you mean 'sink'"),
        (dict(normalizer='stickbreaking'), 'causal attention only'),
        (dict(mixing='diferential'), "did you mean 'differential'"),
        (dict(mixing='differential', head_dim=5), 'divides the channels'),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message) as error:
        model(**options)
    assert '\n' not in str(error.value)
