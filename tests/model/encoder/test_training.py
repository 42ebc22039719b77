"""Dropout, recomputation, and how often layers are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.model.attention import MultiHeadAttention
from tests.model.encoder.models import DEFAULTS, TOKENS, call, make


@pytest.mark.parametrize(
    'options', [dict(dropout_rate=0.5), dict(dropout_rate=0.0, attention_dropout_rate=0.5)], ids=str
)
def test_dropout_is_for_training(options):
    model, plain = make(**options, layers=1), make(dropout_rate=0.0, layers=1)
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


@pytest.mark.parametrize(
    'position', ['none', 'learned', *(pytest.param(name, marks=pytest.mark.slow) for name in ('sincos', 'rope'))]
)
def test_dropout_is_drawn_alike_under_every_scheme(position):
    """Embedding, attention output and feed-forward of each layer: as many keys whatever the scheme."""
    rngs = nnx.Rngs(dropout=0, position=0)
    make(position=position, dropout_rate=0.1)(TOKENS, train=True, rngs=rngs)
    assert int(rngs.dropout.count[...]) == 1 + 2 * DEFAULTS['layers']


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
        dict(position='randomize_offsets(max_position=40)|t5', norm='pre', pattern='window(2), full'),
        pytest.param(dict(position='t5', pattern='window(2), full'), marks=pytest.mark.slow),
        dict(position='fox', core='blockwise', causal=True, layers=1),
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


@pytest.mark.slow
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
    graph, state = nnx.split(make(remat=True))

    def maps(state):
        model = nnx.capture(nnx.merge(graph, state), nnx.Intermediate)
        return model(TOKENS, train=True, rngs=nnx.Rngs(0), sow_weights=True)[1]

    assert len(jax.tree.leaves(jax.eval_shape(maps, state))) == DEFAULTS['layers']


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
