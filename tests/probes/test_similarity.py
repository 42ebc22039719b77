"""Similarity of heads: equal to plain loops in float64, and it finds the equal heads of a planted model."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.distance import jensenshannon

import mha
from mha import probes
from mha.probes import similarity
from mha.spec import UserError
from tests.probes import planted

T, HEADS = 9, 3
TOKENS = jnp.arange(2 * T).reshape(2, T) ** 2 % 7
VALID = jnp.arange(T)[None] < jnp.array([[T], [T - 4]])


def model(**options):
    sizes = dict(vocab_size=7, num_classes=3, max_len=64, layers=2, dim=24, heads=HEADS, dropout_rate=0.0)
    return mha.Encoder(rngs=nnx.Rngs(0), **sizes | options)


def cka(x, y):
    """Linear CKA of two outputs [N, D] (Kornblith et al., 2019, section 3)."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    return norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))


@pytest.mark.parametrize('options', [dict(position='rope'), dict(position='shaw', causal=True)], ids=str)
def test_similarities_are_those_of_plain_loops(options, monkeypatch):
    seen = probes.record(model(**options), TOKENS, valid=VALID)
    (found,) = probes.similarity_of(seen)
    monkeypatch.setattr(similarity, 'BLOCK', 2 * 2 * HEADS * T * 4)
    (blocks,) = probes.similarity_of(seen)
    np.testing.assert_allclose(found.divergence, blocks.divergence, atol=1e-6)
    np.testing.assert_allclose(found.cka, blocks.cka, atol=1e-5)
    assert found.heads == [(layer, head) for layer in range(2) for head in range(HEADS)]
    rows = np.asarray(VALID)
    maps = [np.float64(seen.attentions[layer].weights()[:, head])[rows] for layer, head in found.heads]
    outputs = [
        np.float64(seen.attentions[layer].outputs()[:, :, head] @ seen.attentions[layer].out[head])[rows]
        for layer, head in found.heads
    ]
    for i, j in np.ndindex(found.divergence.shape):
        wanted = np.mean(jensenshannon(maps[i], maps[j], base=2, axis=1) ** 2)
        assert found.divergence[i, j] == pytest.approx(wanted, abs=1e-5)
        assert found.cka[i, j] == pytest.approx(cka(outputs[i], outputs[j]), rel=1e-4)
    assert sorted(found.order) == [*range(len(found.heads))]


def test_heads_are_not_compared_without_tokens():
    with pytest.raises(UserError, match='no real tokens'):
        probes.similarity_of(probes.record(model(), TOKENS, valid=jnp.zeros_like(VALID)))


@pytest.mark.parametrize('position', ['shaw', 'alibi'])
def test_outputs_of_heads_make_the_output_of_a_layer(position):
    made = model(position=position)
    for layer, seen in zip(probes.layers(made), probes.record(made, TOKENS, valid=VALID).attentions, strict=True):
        whole = layer.attention(seen.coords.x, mask=seen.mask, position=seen.position)
        np.testing.assert_allclose(jnp.einsum('bthk,hkd->btd', seen.outputs(), seen.out), whole, atol=1e-5)
        np.testing.assert_allclose(seen.outputs(4, 3), seen.outputs()[:, 4:7], atol=1e-6)


def test_planted_pair_is_redundant():
    """Of all heads, exactly the two equal ones are close; a head without output is like no other."""
    (found,) = probes.similarity_of(probes.record(planted.model(), planted.tokens()))
    summary = found.redundancy()
    assert summary['pairs'] == [[*planted.PAIR]]
    assert (summary['heads'], summary['clusters']) == (8, 7)
    assert [*planted.PAIR] in [sorted(cluster) for cluster in found.clusters()]
    one, other, useless = (found.heads.index(place) for place in (*planted.PAIR, planted.USELESS))
    assert found.divergence[one, other] == 0
    assert found.cka[one, other] == pytest.approx(1)
    assert not found.cka[useless].any()
    order = found.order
    assert abs(order.index(one) - order.index(other)) == 1
    assert np.sort(found.divergence[np.triu_indices(8, 1)])[1] > 0.3


def test_single_heads_and_several_stacks():
    made = mha.EncoderDecoder(model(heads=1, layers=1), max_len=T, layers=2, rngs=nnx.Rngs(1))
    found = probes.similarity_of(probes.record(made, jnp.tile(TOKENS, 2), valid=jnp.tile(VALID, 2)))
    assert [(one.stack, len(one.heads)) for one in found] == [('encoder', 1), ('decoder', 2), ('cross', 2)]
    assert found[0].order == [0]
    assert found[0].clusters() == [[(0, 0)]]
    assert np.isnan(found[0].redundancy()['same_layer'])
    pair = model(readout='pair')
    (both,) = probes.similarity_of(probes.record(pair, jnp.tile(TOKENS, 2)))
    (one,) = probes.similarity_of(probes.record(model(), TOKENS))
    np.testing.assert_allclose(both.divergence, one.divergence, atol=1e-5)
