"""Generation: with a cache as without, token by token; sampling; ends; unequal prompts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions, spec
from mha.model import generation
from mha.model.encoder import Encoder
from mha.model.generation import ENDED, Sampling
from mha.spec import UserError

PROMPTS = [[1, 2, 3, 4, 5], [3, 1], [7, 7, 2, 1]]
SYMBOLS, STEPS = 11, 6
FORMS = (
    'ntk(dynamic=True, original_length=6)',
    'longrope((1.0, 2.0, 3.0, 4.0), 2.0, 6, short_factors=(1.0, 1.0, 1.0, 1.0))',
    'cape(centre=True)|sincos',
    "shape(max_shift='room')|learned",
    'ssmax(bias=True)',
)
"""Schemes whose arguments decide whether there is a cache, or which count keys."""
SIZES = dict(vocab_size=SYMBOLS, num_classes=SYMBOLS, max_len=16, layers=1, dim=16, heads=2, mlp='none')
QUICK = {'none', 'learned', 'rope', 'ssmax', 'cope'}
"""Schemes that are not slow: one of each way in which position enters, with its own way of counting keys."""


def make(position='none', **options):
    settings = {**SIZES, 'causal': True, 'norm': 'pre', 'position': position, **options}
    return Encoder(**settings, rngs=nnx.Rngs(0))


def generated(model, prompts=PROMPTS, steps=STEPS, **options):
    """Tokens and log-probabilities [B, N]."""
    pieces = list(generation.stream(model, prompts, steps, **options))
    tokens, log_probs = (np.concatenate(each, axis=1) for each in zip(*pieces, strict=True))
    return tokens, log_probs


def schemes():
    """Every scheme; those that only move coordinates with one that reads them."""
    for name in positions.names():
        text = positions.example(name)
        kind = spec.load(positions, name, positions.Position, 'position scheme')
        moves_only = kind.remap is not positions.Position.remap and kind.embed is positions.Position.embed
        text = f'{text}|sincos' if moves_only else text
        yield pytest.param(text, marks=[] if name in QUICK else pytest.mark.slow, id=name)
    for text in FORMS:
        yield pytest.param(text, marks=pytest.mark.slow)


def check_cache(model, prompts=PROMPTS, atol=1e-5):
    """Tokens with a cache are those without; so are their log-probabilities."""
    tokens, log_probs = generated(model, prompts, cache=True)
    without, expected = generated(model, prompts, cache=False)
    np.testing.assert_array_equal(tokens, without)
    np.testing.assert_allclose(log_probs, expected, atol=atol)


def test_greedy_tokens_are_those_of_the_whole_model():
    """After every prefix of a generated text, the next token is the one that the model gives in one call."""
    model = make('rope', layers=2)
    tokens, log_probs = generated(model)
    for prompt, new, log_prob in zip(PROMPTS, tokens, log_probs, strict=True):
        text = jnp.array([[*prompt, *new, *[0] * (5 - len(prompt))]])
        valid = jnp.arange(text.size)[None] < len(prompt) + STEPS
        chances = jax.nn.log_softmax(nnx.jit(type(model).__call__)(model, text, valid=valid))[0]
        chances = chances[len(prompt) - 1 :][:STEPS]
        np.testing.assert_array_equal(new, chances.argmax(-1))
        np.testing.assert_allclose(log_prob, chances.max(-1), atol=1e-5)


@pytest.mark.parametrize('pattern', ['full', pytest.param('window(2)', marks=pytest.mark.slow)])
@pytest.mark.parametrize('position', [*schemes()])
def test_every_scheme_with_a_cache_as_without(position, pattern):
    """Caches that grow with the sequence, and caches of a window that is shorter than a prompt."""
    model = make(position, layers=2, mlp='none', pattern=pattern)
    if not generation.uncacheable(model):
        check_cache(model)
    else:
        assert generated(model)[0].shape == (3, STEPS)
        with pytest.raises(UserError, match=r'needs the whole sequence at once - generate with cache=False'):
            generated(model, cache=True)


@pytest.mark.parametrize(
    'options',
    [
        dict(pattern='window(3)', kv_heads=1, position='cope|rope'),
        pytest.param(dict(pattern='window(2), full, dilated(1, 4)', layers=3), marks=pytest.mark.slow),
        pytest.param(dict(heads=4, kv_heads=2, qk_norm='rms', mlp='swiglu', tied=True), marks=pytest.mark.slow),
        pytest.param(dict(pattern='dilated(2, 2)', layers=2, position='rope, alibi'), marks=pytest.mark.slow),
        pytest.param(dict(core='blockwise', position='alibi'), marks=pytest.mark.slow),
    ],
    ids=['window', 'three', 'grouped', 'dilated', 'blockwise'],
)
def test_models_with_a_cache_as_without(options):
    check_cache(make(**{'position': 'rope', **options}))


@pytest.mark.parametrize('pattern', ['full', pytest.param('window(2)', marks=pytest.mark.slow)])
def test_bfloat16_with_a_cache_as_without(pattern):
    """Tokens agree as far as the most likely one is clear; log-probabilities to the precision of the type."""
    model = make('rope', dtype='bfloat16', pattern=pattern)
    check_cache(model, atol=0.02)


def test_a_layer_with_a_window_keeps_the_keys_in_it():
    """Its cache and the memory of a step do not grow with the length; those of a full layer do."""

    def sizes(pattern, length):
        model = make(pattern=pattern, layers=2, max_len=4096)
        model.init_cache(2, length)
        graphdef, caches, params = nnx.split(model, nnx.Cache, ...)

        def step(caches, params):
            model = nnx.merge(graphdef, caches, params)
            return model(jnp.ones((2, 1), jnp.int32), decode=True), nnx.state(model, nnx.Cache)

        memory = jax.jit(step).lower(caches, params).compile().memory_analysis()
        kept = [block.attention.cached_key.shape[1] for block in model.blocks]
        return kept, memory.temp_size_in_bytes + memory.output_size_in_bytes

    mixed, in_mixed = sizes('window(8), full', 4096)
    full, in_full = sizes('full', 4096)
    window, in_window = sizes('window(8)', 4096)
    assert (mixed, full, window) == ([8, 4096], [4096, 4096], [8, 8])
    keys = 2 * 2 * 4096 * 16 * 4  # keys and values of two sequences in a layer
    assert in_window < keys / 8
    assert in_window + keys < in_mixed < in_full - keys
    assert sizes('window(8)', 6)[0] == [6, 6]


def test_fixed_slots_need_prompts_of_equal_length():
    model = make(pattern='window(2)|global(1)')
    check_cache(model, [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(UserError, match='needs prompts of equal length'):
        generated(model, cache=True)
    one, other = (generated(model, [prompt])[0] for prompt in PROMPTS[:2])
    np.testing.assert_array_equal(generated(model, PROMPTS[:2])[0], np.concatenate([one, other]))


def test_a_core_without_keys_has_no_cache():
    model = make(core='linear')
    assert generated(model)[0].shape == (3, STEPS)
    with pytest.raises(UserError, match='keeps no keys'):
        generated(model, cache=True)


def test_sequences_end_alone():
    """After a stop token a sequence has none, while others go on as if it were not there."""
    model = make('rope')
    whole, log_probs = generated(model)
    stop = int(whole[1, 2])
    tokens, ended_log_probs = generated(model, stop=[stop])
    for row, expected, log_prob, expected_log_prob in zip(tokens, whole, ended_log_probs, log_probs, strict=True):
        found = np.flatnonzero(expected == stop)
        end = found[0] + 1 if len(found) else STEPS
        np.testing.assert_array_equal(row[:end], expected[:end])
        np.testing.assert_array_equal(row[end:], ENDED)
        np.testing.assert_allclose(log_prob[:end], expected_log_prob[:end], atol=1e-5)
        assert not log_prob[end:].any()
    (only,) = generation.stream(model, PROMPTS[1:2], 10, stop=[stop], every=4)
    np.testing.assert_array_equal(only[0][0, :3], whole[1, :3])


def test_draws_have_the_probabilities_of_what_is_kept():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))

    def kept(**options):
        return np.asarray(jax.nn.softmax(Sampling(**options).kept(logits))[0])

    np.testing.assert_allclose(kept(temperature=1.0), [0.5, 0.3, 0.15, 0.05], atol=1e-6)
    np.testing.assert_allclose(kept(temperature=0.5), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365, atol=1e-6)
    np.testing.assert_allclose(kept(temperature=1.0, top_k=2), [0.625, 0.375, 0, 0], atol=1e-6)
    np.testing.assert_allclose(kept(temperature=1.0, top_p=0.8), [0.625, 0.375, 0, 0], atol=1e-6)
    np.testing.assert_allclose(kept(temperature=1.0, top_p=0.81), np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=1e-6)
    np.testing.assert_allclose(kept(temperature=1.0, top_k=9, top_p=1.0), [0.5, 0.3, 0.15, 0.05], atol=1e-6)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: Sampling(1.0, top_k=2).choose(logits, key)[0])(keys)
    assert np.bincount(drawn, minlength=4) / 4000 == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)


def test_a_key_fixes_the_draws():
    model, warm = make('rope'), Sampling(temperature=2.0)
    first, again, other = (generated(model, sampling=warm, key=jax.random.key(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_beam_search_with_enough_beams_finds_the_most_likely_text():
    """Against all texts of three tokens, with and without a token that ends them."""
    model, prompts, steps = make('rope', vocab_size=5, num_classes=5), [[1, 2, 3], [4]], 3
    texts = list(itertools.product(range(5), repeat=steps))
    for stop in ((), (3,)):
        tokens, log_probs = generation.beam_search(model, prompts, steps, 25, stop=stop, length_penalty=0.0)
        for prompt, found, chances in zip(prompts, tokens, log_probs, strict=True):
            whole = jnp.array([[*prompt, *text] for text in texts])
            each = jax.nn.log_softmax(jax.jit(model)(whole))[:, len(prompt) - 1 : -1]
            each = np.asarray(jnp.take_along_axis(each, whole[:, len(prompt) :, None], axis=2)[:, :, 0])
            ends = [next((i + 1 for i, token in enumerate(text) if token in stop), steps) for text in texts]
            sums = np.array([chance[:end].sum() for chance, end in zip(each, ends, strict=True)])
            best = int(sums.argmax())
            assert chances.sum() == pytest.approx(sums[best], abs=1e-5)
            assert tuple(found[: ends[best]]) == texts[best][: ends[best]]
            assert (found[ends[best] :] == ENDED).all()


def test_one_beam_is_greedy():
    model = make('alibi')
    tokens, log_probs = generation.beam_search(model, PROMPTS, STEPS, 1)
    greedy, expected = generated(model)
    np.testing.assert_array_equal(tokens, greedy)
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)
    with pytest.raises(UserError, match='beams must be at least 1'):
        generation.beam_search(model, PROMPTS, STEPS, 0)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(causal=False), 'only causal models'),
        (dict(causal=True, readout='pooled'), 'only causal models'),
    ],
)
def test_models_that_do_not_generate(options, words):
    with pytest.raises(UserError, match=words):
        generated(make(**options))


def test_mistakes():
    model = make('learned')
    with pytest.raises(UserError, match=r"'learned': its table has 16 rows for 17 positions.*fewer than 13 tokens"):
        generated(model, steps=13)
    by_cache, again = (generated(model, steps=12, cache=cache) for cache in (True, False))  # the last is not read
    np.testing.assert_array_equal(by_cache[0], again[0])
    for prompts, steps in (([], 1), ([[]], 1), ([[1]], 0)):
        with pytest.raises(UserError, match='at least one'):
            generated(model, prompts, steps)
    for token in (99, -1):
        with pytest.raises(UserError, match='whole numbers from 0 to 10'):
            generated(model, [[token]], 1)
    for options, words in (
        (dict(temperature=-1.0), 'temperature must be'),
        (dict(temperature=1e-40), 'temperature must be 0, or from 1e-30 to 1e'),  # 0 in float32
        (dict(temperature=float('nan')), 'temperature must be'),
        (dict(top_k=2), 'set a temperature above 0'),
        (dict(temperature=1.0, top_k=0), 'top_k must be'),
        (dict(temperature=1.0, top_p=0.0), 'top_p must be'),
    ):
        with pytest.raises(UserError, match=words):
            Sampling(**options)  # pyright: ignore[reportArgumentType]
