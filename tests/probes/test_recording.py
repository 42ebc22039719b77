"""Recordings: maps are those of the model under every scheme, as a whole and in blocks of rows."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha
from mha import positions, probes
from mha.model import heads
from mha.probes import recording
from mha.spec import UserError, load

T, HEADS = 10, 4
TOKENS = jax.random.randint(jax.random.key(0), (2, T), 0, 5)
VALID = jnp.arange(T)[None] < jnp.array([[T], [T - 3]])


def model(position='none', **options):
    sizes = dict(vocab_size=5, num_classes=5, max_len=T, layers=2, dim=32, heads=HEADS, dropout_rate=0.0)
    return mha.Encoder(position=position, rngs=nnx.Rngs(0), **sizes | options)


def causal_only(name):
    return load(positions, name, positions.Position, 'position scheme').causal_only


QUICK = {
    'none',
    'sincos',
    'rope',
    'alibi',
    'fox',
    'cope',
    'stickbreaking',
    'dape',
    'randomize',
    'shaw',
    'deberta',
    'cape',
}
"""Schemes that are not slow: those of each way in which position enters."""


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in positions.names()]
)
def test_maps_are_the_models_under_every_scheme(name):
    """Equal to the weights that the layers sow, in one piece, in blocks of rows and inside jit."""
    made = model(positions.example(name), causal=causal_only(name))
    options = dict(valid=VALID, position_key=jax.random.key(3))
    sown = made.attention_weights(TOKENS, **options)
    seen = probes.record(made, TOKENS, **options)
    np.testing.assert_allclose(seen.weights(), sown, atol=1e-6)
    total = seen.weights().sum(-1)
    if name == 'stickbreaking':
        assert (total <= 1 + 1e-5).all()
    else:
        np.testing.assert_allclose(total, 1, atol=1e-5)
    for attention, whole in zip(seen.attentions, sown, strict=True):
        rows = [attention.weights(start, count) for start, count in ((0, 4), (4, 4), (8, 2))]
        np.testing.assert_allclose(jnp.concatenate(rows, axis=2), whole, atol=1e-6)
    block = jax.jit(lambda start: probes.record(made, TOKENS, **options).attentions[1].weights(start, 3))
    np.testing.assert_allclose(block(5), sown[1][:, :, 5:8], atol=1e-5)


@pytest.mark.parametrize(
    'options', [{}, dict(kv_heads=2, qk_norm='rms', causal=True), dict(pattern='window(2)')], ids=str
)
@pytest.mark.parametrize('position', ['none', 'rope', 'alibi', 'rope|t5', 'deberta'])
def test_logits_and_contributions(position, options):
    """Logits are the sum of their parts and make the weights; contributions are norms of A v W."""
    seen = probes.record(model(position, **options), TOKENS).attentions[1]
    content, added, total = seen.logits()
    np.testing.assert_allclose(content, np.einsum('bthk,bshk->bhts', seen.q, seen.k) / np.sqrt(8), atol=1e-5)
    np.testing.assert_allclose(content + added, total, atol=1e-5)
    assert (np.abs(added).max() > 0) == (position != 'none')
    shown = jax.nn.softmax(jnp.where(seen.visible(), total, -jnp.inf))
    np.testing.assert_allclose(shown, seen.weights(), atol=1e-5)
    vectors = np.einsum('bhts,bshk,hkd->bhtsd', seen.weights(), seen.v, seen.out)
    np.testing.assert_allclose(seen.contributions(), np.linalg.norm(vectors, axis=-1), atol=1e-5)
    maps = (*seen.logits(), seen.contributions())
    for start, count in ((0, 6), (6, 4)):
        rows = (*seen.logits(start, count), seen.contributions(start, count))
        for whole, part in zip(maps, rows, strict=True):
            np.testing.assert_allclose(part, whole[:, :, start : start + count], atol=1e-5)


@pytest.mark.parametrize('position', ['rope', 'cope'])
def test_rows_from_one_on(position):
    """All that follow, unless their number is given; rows that do not exist are refused."""
    seen = probes.record(model(position, causal=True), TOKENS).attentions[0]
    for name, axis in {'weights': 2, 'visible': 2, 'contributions': 2, 'outputs': 1}.items():
        whole, part = getattr(seen, name)(), getattr(seen, name)(T - 4)
        np.testing.assert_allclose(part, jnp.take(whole, jnp.arange(T - 4, T), axis), atol=1e-6)
    np.testing.assert_allclose(seen.logits(T - 4).total, seen.logits().total[:, :, -4:], atol=1e-6)
    for start, rows in ((-1, 2), (T, 1), (T - 1, 2), (0, 0)):
        with pytest.raises(UserError, match=f'maps have rows 0 to {T - 1}, not {start} to'):
            seen.weights(start, rows)


def test_blocks_cover_the_rows(monkeypatch):
    monkeypatch.setattr(recording, 'BLOCK', 2 * HEADS * T * 4)
    seen = probes.record(model(), TOKENS).attentions[0]
    assert seen.shape == (2, HEADS, T, T)
    assert list(seen.blocks()) == [(0, 4), (4, 4), (8, 2)]


def test_the_model_stays_as_it_was():
    made = model('rope')
    plain = made(TOKENS)
    seen = probes.record(made, TOKENS)
    np.testing.assert_allclose(seen.logits, plain, atol=1e-6)
    assert all(layer.attention.probe is None and layer.attention.head_mask is None for layer in probes.layers(made))


def test_removed_heads():
    """A head that is masked adds nothing: the output is that of a model in which its projection is zero."""
    made = model('alibi')
    head_mask = jnp.ones((2, HEADS)).at[1, 2].set(0)
    seen = probes.record(made, TOKENS, head_mask=head_mask)
    contributions = seen.attentions[1].contributions()
    assert not contributions[:, 2].any()
    assert contributions[:, 3].any()
    assert np.abs(seen.logits - made(TOKENS)).max() > 1e-3
    made.blocks[1].attention.head_mask = head_mask[1]
    np.testing.assert_allclose(probes.record(made, TOKENS).logits, seen.logits, atol=1e-6)
    made.blocks[1].attention.head_mask = None
    kernel = made.blocks[1].attention.out.kernel
    kernel[...] = kernel[...].at[2].set(0)
    np.testing.assert_allclose(seen.logits, made(TOKENS), atol=1e-6)


def test_gates_are_part_of_contributions():
    """A head adds what its gate lets through."""
    made = model('alibi')
    whole = probes.record(made, TOKENS).attentions[0].contributions()
    opened = jnp.array([-1.0, 0.0, *[1.0] * (HEADS - 2)])
    for _, _, attention in probes.layers(heads.add_gates(made)):
        attention.head_gates[...] = opened
    seen = probes.record(made, TOKENS)
    np.testing.assert_allclose(seen.logits, made(TOKENS), atol=1e-5)
    factors = np.array([0, 0.5, *[1] * (HEADS - 2)])[None, :, None, None]
    np.testing.assert_allclose(seen.attentions[0].contributions(), whole * factors, atol=1e-6)


@pytest.mark.parametrize('head_mask', [jnp.ones((1, HEADS)), jnp.ones((3, HEADS)), jnp.ones((2, HEADS + 1))])
def test_masks_of_another_shape_are_refused(head_mask):
    with pytest.raises(UserError, match='head_mask'):
        probes.record(model(), TOKENS, head_mask=head_mask)


def test_encoder_decoder():
    """The three attentions of an encoder-decoder: between source tokens, target tokens, and from target to source."""
    made = mha.EncoderDecoder(model('rope'), max_len=T, layers=1, position='alibi', rngs=nnx.Rngs(1))
    seen = probes.record(made, TOKENS)
    places = [(one.stack, one.layer, one.shape[2:]) for one in seen.attentions]
    assert places == [('encoder', 0, (5, 5)), ('encoder', 1, (5, 5)), ('decoder', 0, (5, 5)), ('cross', 0, (5, 5))]
    assert not np.triu(seen.attentions[2].weights(), 1).any()
    np.testing.assert_allclose(seen.attentions[3].weights().sum(-1), 1, atol=1e-5)
    assert [layer[:2] for layer in probes.layers(made)] == [place[:2] for place in places]


def test_attention_without_a_map_is_refused():
    with pytest.raises(UserError, match='forms no attention weights'):
        probes.record(model(core='linear'), TOKENS)


@pytest.fixture(scope='module')
def run():
    return mha.load(Path(__file__).parents[1] / 'runs' / 'alibi')


def test_a_run_reads_a_text_or_its_task(run):
    seen = probes.probe(run, '1 0 2 1 0 _ _ _ _ _')
    assert seen.labels == [['1', '0', '2', '1', '0', *'_____']]
    assert probes.probe(run, '10210_____').labels == seen.labels
    longer = probes.probe(run, length=7, examples=2, seed=1)
    assert [len(row) for row in longer.labels] == [14, 14]
    assert longer.weights().shape == (1, 2, 2, 14, 14)
    with pytest.raises(UserError, match="no symbol 'x' - it has"):
        probes.probe(run, 'x')
    with pytest.raises(UserError, match='choose one'):
        probes.probe(run, '1', length=3)


def test_long_sequences_fit():
    """4,096 tokens: a recording of a layer holds megabytes, though its maps take a quarter of a gigabyte."""
    made = model('alibi', layers=1, max_len=4096)
    tokens = jnp.zeros((1, 4096), int)
    seen = probes.record(made, tokens)
    arrays = jax.tree.leaves([vars(one) for one in seen.attentions])
    assert sum(x.nbytes for x in arrays if isinstance(x, jax.Array)) < 2**22
    assert max(rows for _, rows in seen.attentions[0].blocks()) * HEADS * 4096 <= recording.BLOCK
    last = seen.attentions[0].weights(4095, 1)
    np.testing.assert_allclose(last.sum(-1), 1, atol=1e-5)
