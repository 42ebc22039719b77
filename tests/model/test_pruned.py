"""Models without some heads: their outputs are those of the whole model with the same heads masked."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha
from mha import positions, probes
from mha.model import heads
from mha.nn import gates
from mha.spec import UserError, load

STORED = Path(__file__).parents[1] / 'runs' / 'alibi'
T, HEADS = 10, 4
TOKENS = jax.random.randint(jax.random.key(0), (2, T), 0, 5)
VALID = jnp.arange(T)[None] < jnp.array([[T], [T - 3]])


def encoder(position='none', **options):
    sizes = dict(vocab_size=5, num_classes=5, max_len=T, layers=2, dim=32, heads=HEADS, dropout_rate=0.0)
    return mha.Encoder(position=position, rngs=nnx.Rngs(0), **sizes | options)


def masked(model, removed):
    """Model with a mask of heads."""
    model = nnx.merge(*nnx.split(model))
    for stack, number, attention in heads.layers(model):
        kept = [float(heads.Head(stack, number, head) not in removed) for head in range(HEADS)]
        attention.head_mask = jnp.array(kept)
    return model


def without(model, removed):
    return heads.prune(nnx.merge(*nnx.split(model)), removed)


QUICK = {'rope', 'alibi', 'fire', 'cope', 'shaw', 'ssmax'}
"""Schemes that are not slow: those of each way in which position enters."""


def cases():
    for name in positions.names():
        yield pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize('name', [*cases(), 'rope|t5', 'logn(length=5)|shaw(share_heads=False)'])
def test_equal_to_masks_under_every_scheme(name):
    text = positions.example(name) if name in positions.names() else name
    kind = load(positions, name, positions.Position, 'position scheme') if name in positions.names() else None
    made, removed = encoder(text, causal=bool(kind and kind.causal_only)), heads.parse('0:0,2;1:3')
    if name == 'dape':
        with pytest.raises(UserError, match="'dape' mixes heads"):
            without(made, removed)(TOKENS)
        return
    params = nnx.state(made.positions, nnx.Param)  # those of zero would hide a mistake
    keys = jax.random.split(jax.random.key(1), max(1, len(jax.tree.leaves(params))))
    noise = jax.tree.unflatten(
        jax.tree.structure(params),
        [jax.random.normal(key, x.shape) for key, x in zip(keys, jax.tree.leaves(params), strict=False)],
    )
    nnx.update(made.positions, jax.tree.map(lambda x, y: x + 0.3 * y, params, noise))
    options = dict(valid=VALID, position_key=jax.random.key(3))
    whole = masked(made, removed)(TOKENS, **options)
    np.testing.assert_allclose(without(made, removed)(TOKENS, **options), whole, atol=2e-5)
    assert np.abs(made(TOKENS, **options) - whole).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('text', ['0:1', '0:0,1,2,3', '0:0,1;1:1', '0:1,2,3;1:0,2,3', '0:0,1,2,3;1:0,1,2,3'])
@pytest.mark.parametrize(
    'options',
    [
        dict(kv_heads=2, use_bias=True, qk_norm='rms'),
        dict(kv_heads=1),
        dict(core='blockwise', position='alibi'),
        dict(core='linear', position='rope', norm='pre'),
    ],
    ids=str,
)
def test_shared_keys_biases_and_cores(options, text):
    made, removed = encoder(**options), heads.parse(text)
    if options.get('use_bias'):
        for _, _, attention in heads.layers(made):
            attention.out.bias[...] += 0.1
            attention.value.bias[...] += 0.2
    cut = without(made, removed)
    np.testing.assert_allclose(cut(TOKENS), masked(made, removed)(TOKENS), atol=1e-5)
    again = without(without(made, heads.parse(text.partition(';')[0])), removed)
    np.testing.assert_array_equal(again(TOKENS), cut(TOKENS))
    sizes = [layer.attention.num_heads for layer in heads.layers(cut)]
    assert sum(sizes) == 2 * HEADS - len(removed)
    for layer in heads.layers(cut):
        if layer.attention.num_heads:
            assert layer.attention.query.kernel.shape == (32, layer.attention.num_heads, 8)
            assert layer.attention.key.kernel.shape == (32, layer.attention.num_kv_heads, 8)
    assert all(x.size for x in jax.tree.leaves(nnx.state(cut, nnx.Param)))  # checkpoints hold no empty arrays


def test_the_output_keeps_its_type_and_the_mask_its_heads():
    made = encoder(dtype='bfloat16')
    layer = made.blocks[0].attention
    layer.head_mask = jnp.arange(HEADS) * 1.0
    removed = heads.parse('0:0,2')
    np.testing.assert_array_equal(heads.prune(made, removed).blocks[0].attention.head_mask, [1, 3])
    x = jnp.ones((1, 3, 32))
    before = layer(x).dtype
    layer.keep(())
    assert layer(x).dtype == before == jnp.bfloat16


def test_encoder_decoder():
    made = mha.EncoderDecoder(encoder('rope'), max_len=T, layers=2, position='alibi', rngs=nnx.Rngs(1))
    removed = heads.parse('1:0; decoder.0:1,2; cross.1:3; cross.0:0,1,2,3')
    assert heads.written(removed) == '1:0;decoder.0:1,2;cross.0:0,1,2,3;cross.1:3'
    assert heads.parse(heads.written(removed)) == removed
    np.testing.assert_allclose(without(made, removed)(TOKENS), masked(made, removed)(TOKENS), atol=1e-5)
    assert without(made, removed).given([[1, 2, 3]]) is not None


def test_decoding_with_a_cache():
    made = without(encoder('alibi', causal=True, kv_heads=2), heads.parse('0:0;1:0,1,2,3'))
    whole = made(TOKENS)
    made.init_cache(2, T)
    steps = [made(TOKENS[:, i : i + 1], pos=jnp.full((1, 1), i), decode=True) for i in range(T)]
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('0-1', "cannot read '0-1' - write layer:heads"),
        ('0:', "cannot read '0:'"),
        ('0:' + '9' * 5000, 'cannot read'),
        ('2:0', 'no layer encoder.2 - choose from encoder.0, encoder.1'),
        ('cross.0:1', 'no layer cross.0'),
        ('crosss.0:1', "did you mean 'cross'"),
        ('1:2,9', 'layer encoder.1 has heads 0 to 3, not 9'),
    ],
)
def test_heads_that_do_not_exist_are_refused(text, told):
    with pytest.raises(UserError, match=told):
        without(encoder(), heads.parse(text))


@pytest.fixture(scope='module')
def run():
    return mha.load(STORED)


def test_a_run_without_heads_is_a_run(run, tmp_path):
    """Saved and loaded again, it has the same parameters and results, and those of the masked model."""
    cut = run.pruned('0:1')
    assert cut.config['model']['pruned'] == '0:1'
    assert cut.pruned('0:1') is cut
    cut.save(tmp_path / 'cut')
    again = mha.load(tmp_path / 'cut')
    for one, other in zip(jax.tree.leaves(again.params), jax.tree.leaves(cut.params), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.rows == again.evaluate() == cut.evaluate()
    batch = run.task.batch(jax.random.key(0), 4, 5, 5)
    whole = probes.record(run.model, batch.tokens, head_mask=[jnp.array([1.0, 0.0])]).logits
    np.testing.assert_allclose(again.model(batch.tokens), whole, atol=1e-5)
    summary = json.loads((tmp_path / 'cut' / 'summary.json').read_text())
    assert summary['parameters'] == 3397 - 4 * 16 * 8
    assert json.loads((tmp_path / 'cut' / 'environment.json').read_text())['init_from'] == str(STORED)
    with pytest.raises(UserError, match='exists - choose another'):
        cut.save(tmp_path / 'cut')
    with pytest.raises(UserError, match=r'model\.pruned: layer encoder\.0 has heads 0 to 1, not 2'):
        run.pruned('0:2')
    nothing = run.pruned('0:0,1')
    assert nothing.evaluate()[0]['accuracy'] >= 0


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    """Arguments of `train.py` that start with the weights of the stored run."""
    shutil.copytree(STORED, whole := tmp_path_factory.mktemp('whole') / 'run')
    config = json.loads((STORED / 'config.json').read_text())
    arguments = ['--config=configs/common.py', '--config.task=bucket_sort', '--config.optimizer.schedule=constant']
    arguments += [f'--config.model.{name}={config["model"][name]}' for name in ('layers', 'dim', 'heads', 'position')]
    arguments += ['--config.train.batch_size=8', '--config.train.lengths=1-6', '--config.train.buckets=1']
    arguments += ['--config.eval.lengths=4,8', '--config.eval.examples=16', '--config.model.dropout_rate=0.0']
    return [*arguments, f'--init_from={whole}']


@pytest.mark.slow
def test_training_goes_on_without_heads(script, run, given, tmp_path):
    """From the weights of a run that had them, or had lost fewer."""
    given = [*given, '--config.train.steps=2', '--config.optimizer.learning_rate=1e-12']
    script('train.py', *given, f'--workdir={tmp_path / "cut"}', '--config.model.pruned=0:1')
    trained, cut = mha.load(tmp_path / 'cut'), run.pruned('0:1')
    for one, other in zip(jax.tree.leaves(trained.params), jax.tree.leaves(cut.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    given = [*given, f'--init_from={tmp_path / "cut"}']
    script('train.py', *given, f'--workdir={tmp_path / "none"}', '--config.model.pruned=0:0,1')
    assert mha.load(tmp_path / 'none').config['model']['pruned'] == '0:0,1'
    lacks = "lacks heads - add --config.model.pruned='0:1'"
    for wrong, told in ('', lacks), ('3:0', 'model.pruned: no layer encoder.3'):
        command = [*given, f'--workdir={tmp_path / "no"}', f'--config.model.pruned={wrong}']
        assert told in script('train.py', *command, code=2).stderr


def test_gates():
    """The chance of an open gate is the share of draws above 0, and 1 is where gates begin."""
    w = jnp.array([-0.3, -0.1, 0.0, 0.2, gates.OPEN])
    draws = jax.vmap(lambda key: gates.gate(w, nnx.Rngs(dropout=key)))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose((draws > 0).mean(0), gates.chance_open(w), atol=0.03)
    assert gates.gate(w)[-1] == 1
    assert gates.gate(w)[0] == 0
    assert (draws == 1).any()


def test_a_penalty_closes_heads(script, run, given, tmp_path):
    """Gates begin open. A large penalty closes all; what is then saved without them gives the same results."""
    assert run.gated(0.1).evaluate() == [pytest.approx(row, rel=1e-5) for row in run.evaluate()]
    assert run.gated(0.0) is run.without_gates() is run
    assert [row['gate'] for row in probes.head_gates(run.gated(0.1))] == [1.0, 1.0]
    assert probes.head_gates(run) == []
    given = [*given, '--config.train.steps=60', '--config.optimizer.learning_rate=0.1']
    script('train.py', *given, f'--workdir={tmp_path / "gated"}', '--config.train.head_penalty=10.0')
    gated = mha.load(tmp_path / 'gated')
    assert all(row['gate'] == 0 and row['chance_open'] < 0.1 for row in probes.head_gates(gated))
    plain = gated.without_gates()
    assert plain.config['model']['pruned'] == '0:0,1'
    assert plain.evaluate() == [pytest.approx(row, rel=1e-5) for row in gated.rows]


def test_gates_become_part_of_the_projections(run):
    gated = run.gated(0.1)
    params = jax.tree.map(np.array, gated.params)
    params['blocks'][0]['attention']['head_gates'][:] = [0.05, -0.9]
    gated = dataclasses.replace(gated, params=params)
    plain = gated.without_gates()
    assert plain.config['model']['pruned'] == '0:1'
    assert plain.config['train']['head_penalty'] == 0
    assert plain.evaluate() == [pytest.approx(row, rel=1e-5) for row in gated.evaluate()]
    assert gated.pruned('0:1').evaluate() == [pytest.approx(row, rel=1e-5) for row in gated.evaluate()]
