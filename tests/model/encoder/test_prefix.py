"""Prefix LM: the question in both directions, the answer causal; with a cache as without; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import tasks
from mha.model import generation
from mha.spec import UserError
from tests.model.encoder.models import CLASSES, DIM, TOKENS, B, T, call, make

PREFIX = jnp.arange(T)[None] < jnp.array([[4], [2]])


def test_the_question_is_seen_in_both_directions_and_the_answer_is_causal():
    """By the gradient of the logits with respect to the embeddings."""
    model = make(causal=True, prefix_lm=True, position='rope', norm='pre', layers=1)
    graph, state = nnx.split(model)

    def logits(x):
        model = nnx.merge(graph, state)
        model.embedding = nnx.data(lambda tokens: jnp.take_along_axis(x, tokens[:, :, None], axis=1))
        return model(jnp.broadcast_to(jnp.arange(T), (B, T)), prefix=PREFIX).sum((0, 2))

    x = jax.random.normal(jax.random.key(0), (B, T, DIM))
    seen = np.abs(np.asarray(jax.jit(jax.jacrev(logits))(x))).sum(-1).transpose(1, 0, 2) > 0
    expected = np.tri(T, dtype=bool) | np.asarray(PREFIX)[:, None]
    np.testing.assert_array_equal(seen, expected)


def test_other_models_ignore_the_question():
    model = make(causal=True, position='rope')
    np.testing.assert_array_equal(call(model, prefix=PREFIX), call(model))
    empty = make(causal=True, prefix_lm=True, position='rope')
    np.testing.assert_allclose(call(empty, prefix=jnp.zeros_like(PREFIX)), call(model), atol=1e-6)
    assert np.abs(call(empty, prefix=PREFIX) - call(model)).max() > 1e-3


@pytest.mark.parametrize(
    'options', [dict(position='rope', layers=2), dict(position='t5', pattern='window(2)')], ids=str
)
def test_prompts_are_read_in_both_directions_with_a_cache_as_without(options):
    model = make(causal=True, prefix_lm=True, vocab_size=CLASSES, norm='pre', **options)
    prompts = [[1, 2, 0, 1], [2], [0, 0, 1]]
    (tokens, log_probs), (without, expected) = (
        next(generation.stream(model, prompts, 5, cache=cache)) for cache in (True, False)
    )
    np.testing.assert_array_equal(tokens, without)
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)
    prefix = jnp.arange(4)[None] < 4
    whole = jax.nn.log_softmax(call(model, jnp.array([prompts[0]]), prefix=prefix)[0, -1])
    assert log_probs[0, 0] == pytest.approx(float(whole.max()), abs=1e-5)


def test_the_question_of_a_task():
    task = tasks.make('copying(symbols=5, bos=True)', causal=True)
    batch = task.batch(jax.random.key(0), 3, 4, 6)
    for tokens, prefix, counts in zip(batch.tokens, batch.prefix, batch.metric_mask, strict=True):
        assert prefix.tolist() == [True] * int(counts.argmax() + 1) + [False] * int(tokens.size - counts.argmax() - 1)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(causal=False), 'model.prefix_lm is for causal models'),
        (dict(causal=True, readout='pooled'), 'model.prefix_lm is for causal models'),
        (dict(causal=True, position='cope'), 'causal attention only - set model.causal=True'),
    ],
)
def test_refused(options, words):
    with pytest.raises(UserError, match=words):
        make(prefix_lm=True, **options)


def test_a_call_needs_a_question():
    with pytest.raises(UserError, match=r'model\.prefix_lm needs a task with a question'):
        make(causal=True, prefix_lm=True)(TOKENS)
