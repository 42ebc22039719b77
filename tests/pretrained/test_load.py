"""Pretrained models as finished runs: files, texts, variants, and mistakes."""

import contextlib
import json
import math
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import mha
from mha import pretrained
from mha.datasets import checkpoint_tokens
from mha.pretrained import rotary
from mha.pretrained.checkpoint import Checkpoint
from mha.spec import UserError
from mha.training.step import Purpose
from tests.pretrained.checkpoints import LAYERS, POSITIONS, SETTINGS, SYMBOLS, logits, save, write, write_tokenizer

TEXT = 'the cat and the dog, the end of the day\n'
TOKENS = np.random.default_rng(1).integers(0, SYMBOLS, (1, 7))


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Checkpoints of three families with a tokenizer, and a text."""
    root = tmp_path_factory.mktemp('pretrained')
    (root / 'a.txt').write_text(TEXT * 100)
    for family in ('bert', 'gpt2', 'llama', 'mistral'):
        write(root / family, family)
        write_tokenizer(root / family)
    return root


@pytest.fixture(scope='module')
def llama(folders):
    return pretrained.load(folders / 'llama')


def task(folders, arguments=''):
    return f'lm({str(folders / "a.txt")!r}{arguments})'


def test_a_checkpoint_in_several_files_and_in_bfloat16(tmp_path):
    settings, tensors = write(tmp_path / 'whole', 'llama')
    low = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    (tmp_path / 'parts').mkdir()
    (tmp_path / 'parts' / 'config.json').write_text(json.dumps(settings))
    files = {name: f'model-{index % 3}.safetensors' for index, name in enumerate(low)}
    for file in {*files.values()}:
        save_file({name: array for name, array in low.items() if files[name] == file}, tmp_path / 'parts' / file)
    index = tmp_path / 'parts' / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': files}))
    expected = logits(settings, {name: array.astype(np.float64) for name, array in low.items()}, TOKENS)
    run = pretrained.load(tmp_path / 'parts')
    np.testing.assert_allclose(run.model(jnp.asarray(TOKENS)), expected, atol=1e-4)
    (tmp_path / 'parts' / 'model-0.safetensors').unlink()
    with pytest.raises(UserError, match=r'model-0\.safetensors, which is cut off or no safetensors file'):
        pretrained.load(tmp_path / 'parts')
    index.write_text(json.dumps({'weight_map': {'a': '../model.safetensors'}}))
    with pytest.raises(UserError, match='weight_map must name a file in this folder'):
        pretrained.load(tmp_path / 'parts')


def test_names_of_older_checkpoints(tmp_path):
    """Norms with gamma and beta, as in bert-base-uncased, and tensors without effect on the logits."""
    settings, tensors = write(tmp_path / 'new', 'bert')
    old = {}
    for name, array in tensors.items():
        if 'LayerNorm' in name:
            name = name.replace('.weight', '.gamma').replace('.bias', '.beta')
        old[name] = array
    old['bert.pooler.dense.weight'] = np.zeros((4, 4), np.float32)
    old['bert.embeddings.position_ids'] = np.zeros((1, 4), np.int64)
    save(tmp_path / 'old', settings, old)
    one, other = (pretrained.load(tmp_path / name).model(jnp.asarray(TOKENS)) for name in ('old', 'new'))
    np.testing.assert_array_equal(one, other)


def test_no_tokenizer(tmp_path):
    """A model without a tokenizer reads tokens, but no text."""
    write(tmp_path, 'llama')
    run = mha.pretrained.load(tmp_path)
    assert run.model(jnp.asarray(TOKENS)).shape == (1, 7, SYMBOLS)
    assert run.model.attention_weights(jnp.asarray(TOKENS)).shape == (LAYERS, 1, 4, 7, 7)
    for use in (
        lambda: run.generate('the'),
        lambda: run.evaluate(),
        lambda: run.variant(lengths='8'),
    ):
        with pytest.raises(UserError, match=r'has no tokenizer\.json, without which the model reads no text'):
            use()


def test_tokens_are_those_of_the_checkpoint(folders, llama):
    tokens = llama.task.subwords
    text = TEXT + 'é\t!'
    assert tokens.decode(tokens.encode(text.encode())).decode() == text
    assert llama.task.encode('the cat') == tokens.encode(b'the cat')
    assert (len(tokens.tokens), llama.task.num_classes, llama.task.vocab_size) == (SYMBOLS, SYMBOLS, SYMBOLS + 1)
    assert (tokens.stop, tokens.mask) == ((2,), 1)
    assert llama.task.stop == (2,)
    assert tokens.decode([0, 1, 2]) == b''  # special tokens are no text
    assert tokens.bytes_per_token[tokens.encode(b'the')].sum() == 3


@pytest.mark.parametrize(
    ('parts', 'name', 'text'),
    [
        (dict(model={'type': 'WordPiece'}), 'end', b' end'),
        (dict(model={'type': 'WordPiece'}), '##ing', b'ing'),
        (
            dict(model={'type': 'BPE'}, decoder={'type': 'Sequence', 'decoders': [{'type': 'ByteFallback'}]}),
            '▁a',
            b' a',
        ),
        (dict(model={'type': 'BPE'}, decoder={'type': 'ByteFallback'}), '<0x0A>', b'\n'),
        (dict(pre_tokenizer={'type': 'Sequence', 'pretokenizers': [{'type': 'ByteLevel'}]}), 'ĠaĊ', b' a\n'),
    ],
)
def test_bytes_of_a_token_by_its_name(parts, name, text):
    assert checkpoint_tokens._written(parts)(name) == text


def test_evaluation_of_a_causal_model(folders, llama):
    """Losses are those of the model's logits on the examples of the task, at lengths inside and beyond the trained."""
    run = llama.variant(task=task(folders, ', scored=8'), lengths=f'16,{POSITIONS + 16}', examples=4)
    rows = run.evaluate()
    assert [row['length'] for row in rows] == [16, POSITIONS + 16]
    assert [row['bytes_per_symbol'] for row in rows] == [rows[0]['bytes_per_symbol']] * 2  # the same tokens
    plain = llama.variant(task=task(folders), lengths='16', examples=4)
    (row,) = plain.evaluate()
    key = jax.random.fold_in(jax.random.key(plain.config['eval']['seed']), Purpose.EVALUATION)
    key = jax.random.split(jax.random.fold_in(key, 16))[0]
    examples = plain.task.examples(jax.random.split(key, 4), 16, 16)
    scores = np.asarray(jax.nn.log_softmax(plain.model(examples.tokens)))
    loss = -np.take_along_axis(scores, np.asarray(examples.targets)[:, :, None], axis=2).mean()
    assert row['loss'] == pytest.approx(loss, rel=1e-5)
    assert llama.rows == []  # no evaluation ended the training


def test_masked_tokens_read_the_mask_of_the_checkpoint(folders):
    run = pretrained.load(folders / 'bert')
    table = run.model.embedding.embedding[...]
    np.testing.assert_array_equal(table[SYMBOLS], table[run.task.subwords.mask])
    (row,) = run.variant(task=task(folders), lengths='16', examples=4).evaluate()
    assert math.isfinite(row['loss'])
    with pytest.raises(UserError, match='a masked language model fills in hidden tokens'):
        run.generate('the')


@pytest.mark.parametrize(
    ('position', 'full'),
    [
        ('rope', 'rope(theta=500.0)'),
        ('pi(scale=4)|rope', 'pi(scale=4)|rope(theta=500.0)'),
        ('ntk(scale=4)', 'ntk(scale=4, theta=500.0)'),
        ('ntk(scale=4, theta=9.0)', 'ntk(scale=4, theta=9.0)'),
        ('yarn(4)', 'yarn(4, theta=500.0, original_length=64)'),
        ('yarn(4, 32)', 'yarn(4, 32, theta=500.0)'),
        ('llama3(scale=4)', 'llama3(scale=4, theta=500.0, original_length=64)'),
        (
            'longrope(factors=(1.0, 2.0, 4.0), scale=4)',
            'longrope(factors=(1.0, 2.0, 4.0), scale=4, theta=500.0, original_length=64)',
        ),
        ('rope, none', 'rope(theta=500.0), none'),
        ('alibi', 'alibi'),
    ],
)
def test_variants_of_positions_know_the_checkpoint(position, full, folders, llama):
    run = llama.variant(position=position, task=task(folders), lengths='80', examples=2)
    assert run.experiment.final_position == full
    assert np.isfinite(run.model(jnp.asarray(TOKENS))).all()


@pytest.mark.parametrize(
    ('scaling', 'position'),
    [
        (None, 'rope(theta=500.0)'),
        ({'type': 'linear', 'factor': 4}, 'pi(scale=4.0)|rope(theta=500.0)'),
        ({'type': 'dynamic', 'factor': 2.0}, 'ntk(theta=500.0, scale=2.0, dynamic=True, original_length=64)'),
        (
            {'rope_type': 'llama3', 'factor': 8.0, 'original_max_position_embeddings': 32},
            'llama3(theta=500.0, scale=8.0, low=1.0, high=4.0, original_length=32)',
        ),
        (
            {'rope_type': 'yarn', 'original_max_position_embeddings': 16, 'attention_factor': 1.5},
            'yarn(theta=500.0, scale=4.0, original_length=16, beta_fast=32.0, beta_slow=1.0, attention_factor=1.5)',
        ),
    ],
)
def test_positions_of_older_configs(scaling, position, tmp_path):
    """A theta beside the scaling, and types under their first name."""
    write(tmp_path, 'llama', rope_scaling=scaling)
    assert pretrained.load(tmp_path).experiment.final_position == position


@pytest.mark.parametrize('family', ['gpt2', 'mistral'])
def test_generated_tokens_are_the_most_likely_ones(family, folders):
    run = pretrained.load(folders / family)
    (made,) = run.continuations(['the cat'], max_length=5)
    prompt = run.task.encode('the cat')
    likely = run.model(jnp.asarray([prompt + made.tokens]))[0].argmax(-1).tolist()
    assert made.tokens == likely[len(prompt) - 1 : -1]
    assert made.text == run.task.decode(made.tokens)


CHANGES = {
    'no config': (
        lambda folder: (folder / 'config.json').unlink(),
        r'no pretrained model in .* \(it has no config\.json',
    ),
    'unknown type': ({'model_type': 'gpt5'}, r"config\.json: unknown model_type 'gpt5' - did you mean 'gpt2'\?"),
    'no type': ({'model_type': None}, "unknown model_type 'None'"),
    'no tensors': (lambda folder: (folder / 'model.safetensors').unlink(), r'neither model\.safetensors nor'),
    'cut off': (lambda folder: cut(folder / 'model.safetensors', 1000), 'cut off or no safetensors file'),
    'empty': (lambda folder: cut(folder / 'model.safetensors', 3), 'cut off or no safetensors file'),
    'no JSON': (lambda folder: (folder / 'config.json').write_text('{'), 'cannot read .*config.json'),
    'activation': ({'hidden_act': 'relu2'}, "hidden_act is 'relu2', but it must be 'silu' or 'gelu_pytorch_tanh'"),
    'no size': ({'hidden_size': None}, 'hidden_size is missing, but it must be a whole number, 1 or more'),
    'wrong size': ({'num_hidden_layers': 'two'}, "num_hidden_layers is 'two', but it must be a whole number"),
    'other size': ({'intermediate_size': 30}, r"gate_proj\.weight' has the shape \(20, 24\), where .* \(30, 24\)"),
    'more layers': ({'num_hidden_layers': 3}, r"no tensor 'layers\.2\.self_attn\.q_proj\.weight' of shape \(24, 24\)"),
    'fewer layers': ({'num_hidden_layers': 1}, r"the tensor 'layers\.1\..*' and 8 more, for which .* has no use"),
    'scaling': ({'rope_scaling': {'type': 'su', 'factor': 2.0}}, "rope_type is 'su', but it must be 'default' or"),
    'factor': ({'rope_scaling': {'type': 'linear', 'factor': 'x'}}, "factor is 'x', but it must be a number above 0"),
    'partial': ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor is 0.5, but it must be 1'),
    'quantised': ({'quantization_config': {'bits': 4}}, 'quantised weights cannot be read'),
    'heads': ({'num_attention_heads': 5, 'head_dim': 6}, r"q_proj\.weight' has the shape"),
}


def test_any_value_of_a_setting_is_read_or_refused(tmp_path):
    """Wrong types and sizes raise no other error."""
    scaled = [{'type': kind, 'factor': 2.0, 'long_factor': [1.0], 'short_factor': [1.0]} for kind in rotary.TYPES]
    scaled += [{**each, name: value} for each in scaled for name in ('factor', 'mscale') for value in ('x', -1, [])]
    for family in SETTINGS:
        settings, _ = write(tmp_path, family)
        windows = dict(use_sliding_window=True, sliding_window=4, layer_types=None, max_window_layers=1)
        for key in (*settings, *windows, 'n_inner', 'rope_scaling', 'rope_parameters'):
            for value in (None, 'x', -1, 0, 2.5, True, [], ['x'], {'a': {}}, *(scaled if 'rope_' in key else ())):
                (tmp_path / 'config.json').write_text(json.dumps({**settings, **windows, key: value}))
                with contextlib.suppress(UserError):
                    pretrained.FAMILIES[family](Checkpoint(tmp_path))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize('name', CHANGES)
def test_mistakes(name, folders, tmp_path):
    change, message = CHANGES[name]
    shutil.copytree(folders / 'llama', tmp_path / 'llama')
    if isinstance(change, dict):
        path = tmp_path / 'llama' / 'config.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    else:
        change(tmp_path / 'llama')
    with pytest.raises(UserError, match=message) as caught:
        pretrained.load(tmp_path / 'llama')
    assert '\n' not in str(caught.value)


def test_mistakes_of_texts(folders, llama, tmp_path):
    with pytest.raises(UserError, match='holds a pretrained model, no run'):
        mha.load(folders / 'llama')
    with pytest.raises(UserError, match='has 257 symbols, not the 301'):
        llama.variant(task="lm(tokens='bytes')", lengths='8')
    with pytest.raises(UserError, match="unknown position scheme 'ropee' - did you mean 'rope'"):
        llama.variant(position='ropee')
    with pytest.raises(UserError, match='its table has 64 rows for 65 positions'):
        pretrained.load(folders / 'gpt2').variant(task=task(folders), lengths='65')
    gpt2 = pretrained.load(folders / 'gpt2')
    for look in (
        lambda: mha.probes.probe(gpt2, 'the cat ' * 40),
        lambda: mha.probes.statistics_at(gpt2.variant(task=task(folders), lengths='8'), 65, examples=1),
        lambda: mha.probes.head_relations(gpt2, [mha.probes.Sentence(['the'] * 65, [])]),
    ):
        with pytest.raises(UserError, match="position scheme 'learned': its table has 64 rows"):
            look()
    with pytest.raises(UserError, match='a text must be UTF-8'):
        mha.probes.probe(gpt2, 'a\udcff')
    shutil.copytree(folders / 'llama', tmp_path / 'llama')
    for config, text, message in (
        ({'vocab_size': 200}, None, r'token \d+, but the vocab_size of config.json is 200'),
        ({}, '{}', r'cannot read the tokenizer\.json in'),
    ):
        path = tmp_path / 'llama' / 'config.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        if text:
            (tmp_path / 'llama' / 'tokenizer.json').write_text(text)
        tokens = checkpoint_tokens.read(tmp_path / 'llama')
        with pytest.raises(UserError, match=message):
            tokens.tokens  # noqa: B018


def test_a_saved_model_is_a_run(folders, tmp_path):
    """Without some heads, a pretrained model is a run like others, with the same results."""
    cut = pretrained.load(folders / 'gpt2').variant(task=task(folders), lengths='16', examples=2).pruned('0:1;1:0')
    cut.save(tmp_path / 'cut')
    assert mha.load(tmp_path / 'cut').evaluate() == cut.evaluate()


def test_the_command_line(script, folders):
    flags = f'--workdir={folders / "llama"}', '--lengths=16,80', '--examples=2', '--position=yarn(scale=2)'
    done = script('eval.py', *flags, f'--task={task(folders, ", scored=8")}')
    assert 'trained on lengths 1-64' in done.stdout
    assert 'evaluated under position yarn(scale=2, theta=500.0, original_length=64)' in done.stdout
    (path,) = (folders / 'llama').glob('evaluation_*.csv')
    assert len(path.read_text().splitlines()) == 3
    path.unlink()
    assert script('eval.py', f'--workdir={folders / "gpt2"}', '--generate=the cat', '--max_length=3').stdout.startswith(
        'the cat'
    )
    (folders / 'other').mkdir()
    (folders / 'other' / 'config.json').write_text(json.dumps({'model_type': 't5'}))
    told = script('eval.py', f'--workdir={folders / "other"}', code=2).stderr
    assert "unknown model_type 't5'" in told
    assert told.count('\n') == 1


def test_neither_torch_nor_tensorflow(folders):
    code = (
        'import sys, mha, jax.numpy as jnp\n'
        f'mha.pretrained.load({str(folders / "bert")!r}).model(jnp.zeros((1, 4), int))\n'
        "assert not {'torch', 'tensorflow', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('family', ['bert', 'gpt2', 'mistral'])
def test_probes_look_inside(folders, family):
    """A pretrained model is probed as a run: its maps, its tokens, what its heads do, its positions."""
    run = pretrained.load(folders / family)
    seen = mha.probes.probe(run, 'the cat and the dog')
    assert seen.labels == [['the', ' cat', ' and', ' the', ' dog']]
    np.testing.assert_allclose(seen.weights(), run.model.attention_weights(seen.tokens), atol=1e-6)
    assert len(mha.probes.statistics_of(seen).rows) == LAYERS * seen.attentions[0].shape[1]
    assert [one.scheme for one in mha.probes.encodings(run, length=8)] == [run.experiment.position.split('(')[0]]
