"""One answer per token, per sequence, or per pair of sequences; and padding, which changes none of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.model.encoder.models import CLASSES, DEFAULTS, DIM, TOKENS, B, T, call, make, weights


def test_pooled_readout_is_the_mean_over_real_tokens():
    """The head is linear: the pooled logits are the mean of the logits per token."""
    valid = jnp.array([[True] * 6, [True] * 4 + [False] * 2])
    plain, model = make(layers=1), make(layers=1, readout='pooled')
    token, pooled = call(plain, valid=valid), call(model, valid=valid)
    assert pooled.shape == (B, CLASSES)
    np.testing.assert_allclose(pooled[0], token[0].mean(0), atol=1e-5)
    np.testing.assert_allclose(pooled[1], token[1, :4].mean(0), atol=1e-5)
    np.testing.assert_allclose(call(model), call(plain).mean(1), atol=1e-5)


def test_pooled_readout_shares_a_valid_row():
    valid = jnp.array([[True] * 4 + [False] * 2])
    one = call(make(layers=1, readout='pooled'), valid=valid)
    two = call(make(layers=1, readout='pooled'), valid=jnp.broadcast_to(valid, (B, T)))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_pair_readout_encodes_the_halves_apart():
    """As two calls of the pooled encoder, whose means x and y make the features [x, y, x y, x - y]."""
    sizes = dict(position='rope', layers=1)
    pair, one = make(**sizes, readout='pair'), make(**sizes, num_classes=DIM, readout='pooled')
    mean = weights(pair) | {"['head']['kernel']": jnp.eye(DIM), "['head']['bias']": jnp.zeros(DIM)}
    state = nnx.state(one, nnx.Param)
    nnx.update(one, jax.tree_util.tree_map_with_path(lambda path, _: mean[jax.tree_util.keystr(path[:-1])], state))
    x, y = call(one, TOKENS[:, : T // 2]), call(one, TOKENS[:, T // 2 :])
    features = np.concatenate([x, y, x * y, x - y], axis=-1)
    found = call(pair)
    assert found.shape == (B, CLASSES)
    np.testing.assert_allclose(found, features @ np.asarray(pair.head.kernel[...]), atol=1e-5)


@pytest.mark.parametrize(
    'position', ['randomize(max_position=40)|txl', pytest.param('learned', marks=pytest.mark.slow)]
)
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


@pytest.mark.parametrize(
    ('position', 'readout'),
    [
        ('alibi', 'pooled'),
        ('randomize(max_position=40)|txl', 'token'),
        pytest.param('alibi', 'token', marks=pytest.mark.slow),
        pytest.param('randomize(max_position=40)|txl', 'pooled', marks=pytest.mark.slow),
        pytest.param('none, rope', 'token', marks=pytest.mark.slow),
        pytest.param('none, rope', 'pooled', marks=pytest.mark.slow),
    ],
)
def test_padding_in_two_layers(position, readout):
    model = make(position=position, readout=readout)
    valid = jnp.arange(10) < T
    tokens = jnp.concatenate([TOKENS, jnp.ones((B, 4), int)], axis=1)
    padded = call(model, tokens, valid=jnp.broadcast_to(valid, (B, 10)))
    one_row = call(model, tokens, valid=valid[None])
    np.testing.assert_allclose(one_row, padded, atol=1e-5)
    plain = call(model)
    np.testing.assert_allclose(padded if readout == 'pooled' else padded[:, :T], plain, atol=2e-5)
