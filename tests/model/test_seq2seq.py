"""Encoder-decoder: against numpy in float64; what a target token sees; padding; every scheme; generation; training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from mha import positions
from mha.machine import parallel
from mha.model import generation
from mha.model.encoder import Encoder
from mha.model.seq2seq import EncoderDecoder
from mha.spec import UserError

VOCAB, B, T, DIM, HEADS = 11, 3, 6, 16, 2
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (B, 2 * T)))
SOURCES = [[1, 2, 3, 4, 5], [3, 1], [7, 7, 2, 1]]
SIZES = dict(vocab_size=VOCAB, num_classes=VOCAB, max_len=12, layers=1, dim=DIM, heads=HEADS, mlp_dim=24)
ACROSS = (
    'alibi', 'cpb', 'dape', 'deberta', 'fire', 'kerple', 'llama3', 'logn', 'longrope', 'none', 'ntk', 'pope', 'prope',
    'rope', 'rope2d', 'sandwich', 'shaw', 'ssmax', 't5', 'txl', 'yarn',
    'asscale', 'bam', 'fope', 'heads', 'inkling', 'nape', 'scale',
)  # fmt: skip
"""Schemes that work between two sequences."""
QUICK = ('rope', 'alibi', 't5', 'shaw')


def make(position='none', decoder='none', cross='none', layers=1, **options):
    """Encoder-decoder with these schemes. `options` are those of the encoder."""
    rngs = nnx.Rngs(0)
    encoder = Encoder(**{**SIZES, 'norm': 'pre', 'position': position, **options}, rngs=rngs)
    return EncoderDecoder(encoder, max_len=12, layers=layers, position=decoder, cross_position=cross, rngs=rngs)


@functools.partial(jax.jit, static_argnums=0)
def _run(graph, state, tokens, options):
    return nnx.merge(graph, state)(tokens, **options)


def call(model, tokens=TOKENS, **options):
    """Logits of the target slots."""
    logits = np.asarray(_run(*nnx.split(model), tokens, options))
    assert not logits[:, : tokens.shape[1] // 2].any()
    return logits[:, tokens.shape[1] // 2 :]


# ------------------------------------------------------------------------------------------------- against the paper
def oracle(weights, tokens, norm):
    """Logits of the target in float64: Vaswani et al. (2017), without positions, with a feed-forward layer of ReLUs."""

    def normed(x, w):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-6) * w['scale'] + w['bias']

    def attention(x, y, w, mask):
        q, k, v = (
            np.einsum('btd,dhk->bhtk', z, w[name]['kernel']) for name, z in dict(query=x, key=y, value=y).items()
        )
        logits = np.where(mask, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -np.inf)
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        heads = chances / chances.sum(-1, keepdims=True) @ v
        return np.einsum('bhtk,hkd->btd', heads, w['out']['kernel'])

    def mlp(x, w):
        hidden = np.maximum(x @ w['up']['kernel'] + w['up']['bias'], 0)
        return hidden @ w['down']['kernel'] + w['down']['bias']

    def residual(x, w, layer):
        return x + layer(normed(x, w)) if norm == 'pre' else normed(x + layer(x), w)

    def stack(w, tokens, mask, memory=None):
        x = table[tokens] * np.sqrt(DIM)
        for block in w['blocks'].values():
            x = residual(x, block['attention_norm'], lambda y: attention(y, y, block['attention'], mask))  # noqa: B023
            if memory is not None:
                cross = block['cross']
                x = residual(x, cross['norm'], lambda y: attention(y, memory, cross['attention'], True))  # noqa: B023
            x = residual(x, block['mlp_norm'], lambda y: mlp(y, block))  # noqa: B023
        return normed(x, w['final_norm']) if norm == 'pre' else x

    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), weights)
    encoder, table = weights['encoder'], weights['encoder']['embedding']['embedding']
    source, target = np.split(np.asarray(tokens), 2, axis=1)
    memory = stack(encoder, source, True)
    x = stack(weights['decoder'], target, np.tri(T, dtype=bool), memory)
    return x @ encoder['head']['kernel'] + encoder['head']['bias']


@pytest.mark.parametrize('norm', ['post', 'pre'])
def test_forward_pass_is_that_of_the_paper(norm):
    model = make(norm=norm, layers=2)
    noise = np.random.default_rng(1)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda x: x + 0.1 * noise.normal(size=x.shape).astype(np.float32), state))
    weights = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    np.testing.assert_allclose(call(model), oracle(weights, TOKENS, norm), atol=2e-5)


# --------------------------------------------------------------------------------------------------- what tokens see
def test_a_target_token_sees_the_source_and_the_target_up_to_itself():
    """By the gradient of a logit with respect to the embeddings of the tokens."""
    model = make('rope', 'alibi', layers=2)
    graph, state = nnx.split(model)

    def logit(x, slot):
        model = nnx.merge(graph, state)
        model.encoder.embedding = nnx.data(lambda tokens: jnp.take_along_axis(x, tokens[:, :, None], axis=1))
        return model(jnp.arange(2 * T)[None])[0, slot].sum()

    x = jax.random.normal(jax.random.key(0), (1, 2 * T, DIM))
    for slot in (T, T + 2, 2 * T - 1):
        seen = np.asarray(jnp.abs(jax.jit(jax.grad(logit))(x, slot)).sum(-1)[0] > 0)
        np.testing.assert_array_equal(seen, np.arange(2 * T) <= slot)


def test_padding_changes_nothing():
    """Neither its contents nor its amount, in the source and in the target."""
    model = make('rope', 'alibi', 't5')
    sizes = np.array([[4, 3], [2, 4], [1, 1]])

    def padded(width, filler):
        slots = np.arange(2 * width) % width
        valid = slots < np.repeat(sizes, width, axis=1)
        source, target = np.split(np.asarray(TOKENS), 2, axis=1)
        tokens = np.concatenate([np.resize(half[:, :4], (B, 4)) for half in (source, target)], axis=1)
        index = np.minimum(slots, 3) + 4 * (np.arange(2 * width) >= width)
        return jnp.asarray(np.where(valid, tokens[:, index], filler)), jnp.asarray(valid)

    results = []
    for width, filler in ((4, 0), (4, 9), (6, 3)):
        tokens, valid = padded(width, filler)
        logits = call(model, tokens, valid=valid)
        results.append([row[:size] for row, size in zip(logits, sizes[:, 1], strict=True)])
    for other in results[1:]:
        for row, expected in zip(other, results[0], strict=True):
            np.testing.assert_allclose(row, expected, atol=2e-5)


# ---------------------------------------------------------------------------------------------------------- schemes
@pytest.mark.parametrize('name', positions.names())
def test_every_scheme_works_across_or_is_refused(name):
    text = positions.example(name)
    if name not in ACROSS:
        with pytest.raises(UserError, match=rf"cross_position.*'{name}.*is for a single sequence, not between"):
            make(cross=text)
        return
    model = make(cross=text)
    logits = jax.eval_shape(lambda: model(TOKENS, rngs=nnx.Rngs(position=0)))
    assert logits.shape == (B, 2 * T, VOCAB)
    if name in QUICK:  # a scheme of offsets changes the result, once its parameters are not zero
        state = nnx.state(model.cross_positions, nnx.Param)
        noise = np.random.default_rng(1)
        nnx.update(model.cross_positions, jax.tree.map(lambda x: x + noise.normal(size=x.shape), state))
        assert np.abs(call(model) - call(make())).max() > 1e-4


def test_a_composition_is_refused_for_one_part():
    with pytest.raises(UserError, match=r"'sincos' is for a single sequence"):
        make(cross='rope|sincos')


def test_schemes_per_layer_and_shared():
    model = make('rope', 'rope, none', 'alibi, alibi', layers=2)
    assert [scheme.name for scheme in model.schemes] == ['rope', 'rope', 'none', 'alibi']
    assert model.cross_of_layer == (0, 0)


def test_random_coordinates_are_those_of_the_key():
    model = make('randomize(max_position=64)|rope', 'randomize(max_position=64)|rope')
    one, again, other = (call(model, position_key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


# ------------------------------------------------------------------------------------------------------- generation
def generated(model, sources=SOURCES, steps=5, **options):
    pieces = generation.stream(model.given(sources), [[0]] * len(sources), steps, **options)
    tokens, log_probs = (np.concatenate(each, axis=1) for each in zip(*pieces, strict=True))
    return tokens, log_probs


@pytest.mark.parametrize(
    ('options', 'atol'),
    [
        (dict(decoder='rope', cross='alibi'), 1e-5),
        (dict(decoder='learned', layers=2, kv_heads=1, qk_norm='rms', tied=True), 1e-5),
        (dict(decoder='t5', dtype='bfloat16'), 0.03),
    ],
    ids=['offsets', 'grouped', 'bfloat16'],
)
def test_greedy_with_a_cache_as_in_one_call(options, atol):
    """After every prefix of a generated target, the next token is the one of the whole model."""
    model = make('rope', **options)
    tokens, log_probs = generated(model, cache=True)
    without, expected = generated(model, cache=False)
    np.testing.assert_array_equal(tokens, without)
    np.testing.assert_allclose(log_probs, expected, atol=atol)
    for source, new, chances in zip(SOURCES, tokens, log_probs, strict=True):
        width = 5
        row = [*source, *[0] * (width - len(source)), 0, *new[:-1]]
        valid = np.arange(2 * width) % width < np.repeat([len(source), width], width)
        whole = jax.nn.log_softmax(call(model, jnp.array([row]), valid=jnp.array([valid]))[0])
        np.testing.assert_allclose(chances, np.asarray(whole)[np.arange(width), new], atol=atol)


def test_beam_search():
    """One beam is greedy; several find translations at least as likely, each for its own source."""
    model = make('rope', 'rope')
    greedy, chances = generated(model)
    one, _ = generation.beam_search(model.given(SOURCES), [[0]] * B, 5, 1)
    np.testing.assert_array_equal(one, greedy)
    best, better = generation.beam_search(model.given(SOURCES), [[0]] * B, 5, 4)
    alone = [generation.beam_search(model.given([source]), [[0]], 5, 4)[0][0] for source in SOURCES]
    np.testing.assert_array_equal(best, alone)
    assert (better.sum(1) >= chances.sum(1) - 1e-5).all()


def test_mistakes():
    with pytest.raises(UserError, match='needs a source to translate'):
        generation.check(make())
    with pytest.raises(UserError, match='encoder with causal=False'):
        make(causal=True)
    with pytest.raises(UserError, match='sources of at least one token'):
        make().given([[]])
    with pytest.raises(UserError, match="'learned': its table has 12 rows"):
        make('learned').given([[1] * 13])
    with pytest.raises(UserError, match=r'decoder_position.*lists 2 specs for 1 layers'):
        make(decoder='rope, none')


# --------------------------------------------------------------------------------------------------------- training
def test_recomputation_changes_no_gradient():
    grads = []
    for remat in (False, True):
        graph, params = nnx.split(make('rope', 'rope', remat=remat), nnx.Param)

        @jax.jit
        def loss(params, graph=graph):
            return nnx.merge(graph, params)(TOKENS, train=True, rngs=nnx.Rngs(dropout=0)).var()

        grads.append(nnx.to_pure_dict(jax.grad(loss)(params)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *grads)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads[0]['decoder']['blocks'][0]['cross']))


def test_a_mesh_splits_heads_and_inner_width_of_both_stacks():
    layout = parallel.Layout(AbstractMesh((1, 2), (parallel.DATA, parallel.MODEL)))
    params = jax.tree.map(lambda x: x[None], nnx.to_pure_dict(nnx.state(make(), nnx.Param)))
    specs = jax.tree.map(lambda sharding: sharding.spec, layout.shardings(params))
    decoder, encoder = (specs[name]['blocks'][0] for name in ('decoder', 'encoder'))
    assert decoder['cross']['attention'] == decoder['attention'] == encoder['attention']
    assert decoder['cross']['attention']['out']['kernel'] == PartitionSpec(None, parallel.MODEL, None, None)
    assert decoder['up'] == encoder['up']


def test_training_learns_to_reverse():
    """A model of one layer each reverses four symbols: exact match of greedy generation on new sources."""
    graph, params = nnx.split(make('learned', 'learned', dropout_rate=0.0), nnx.Param)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            source = jax.random.randint(key, (64, 4), 1, VOCAB)
            target = source[:, ::-1]
            tokens = jnp.concatenate([source, jnp.zeros((64, 1), int), target[:, :-1]], axis=1)

            def loss(params):
                logits = nnx.merge(graph, params)(tokens, train=True)[:, 4:]
                return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(0), 400)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    sources = np.random.default_rng(1).integers(1, VOCAB, (50, 4))
    tokens, _ = generated(nnx.merge(graph, train(params)), sources.tolist(), steps=4)
    assert (tokens == sources[:, ::-1]).all(1).mean() > 0.9
