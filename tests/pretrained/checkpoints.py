"""Small random checkpoints as transformers saves them, and their forward passes in float64, written from the papers.

`write(folder, family)` writes one and returns its settings and tensors, `logits(settings, tensors, tokens)` computes
them. Linear layers are stored as [outputs, inputs], those of GPT-2 as [inputs, outputs].
"""

import json
import math

import numpy as np
from safetensors.numpy import save_file
from scipy.special import erf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SYMBOLS, DIM, LAYERS, HEADS, INNER, POSITIONS = 300, 24, 2, 4, 20, 64
COMMON = dict(vocab_size=SYMBOLS, hidden_size=DIM, num_hidden_layers=LAYERS, num_attention_heads=HEADS)
COMMON |= dict(intermediate_size=INNER, max_position_embeddings=POSITIONS)
BERT = COMMON | dict(model_type='bert', type_vocab_size=2, layer_norm_eps=1e-12)
LLAMA = COMMON | dict(model_type='llama', num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=500.0)
SETTINGS = {
    'bert': BERT,
    'roberta': BERT | dict(model_type='roberta', layer_norm_eps=1e-5, pad_token_id=1, type_vocab_size=1),
    'gpt2': dict(
        model_type='gpt2', vocab_size=SYMBOLS, n_embd=DIM, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS
    ),
    'llama': LLAMA | dict(eos_token_id=2),
    'mistral': LLAMA | dict(model_type='mistral', sliding_window=4, head_dim=8),
    'qwen2': LLAMA | dict(model_type='qwen2', tie_word_embeddings=True),
    'qwen3': LLAMA | dict(model_type='qwen3', rms_norm_eps=1e-6, head_dim=8),
}


def shapes(settings):
    """Shape of every tensor by its name."""
    kind = settings['model_type']
    make = {'bert': _bert_shapes, 'roberta': _bert_shapes, 'gpt2': _gpt2_shapes}.get(kind, _llama_shapes)
    return make(settings)


def _both(name, *shape):
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def _bert_shapes(settings):
    kind = settings['model_type']
    found = {
        'embeddings.word_embeddings.weight': (SYMBOLS, DIM),
        'embeddings.position_embeddings.weight': (POSITIONS, DIM),
        'embeddings.token_type_embeddings.weight': (settings['type_vocab_size'], DIM),
        **_both('embeddings.LayerNorm', DIM),
    }
    for layer in range(LAYERS):
        block = f'encoder.layer.{layer}'
        for part in ('self.query', 'self.key', 'self.value', 'output.dense'):
            found |= _both(f'{block}.attention.{part}', DIM, DIM)
        found |= _both(f'{block}.attention.output.LayerNorm', DIM) | _both(f'{block}.output.LayerNorm', DIM)
        found |= _both(f'{block}.intermediate.dense', INNER, DIM) | _both(f'{block}.output.dense', DIM, INNER)
    found = {f'{kind}.{name}': shape for name, shape in found.items()}
    if kind == 'roberta':
        return (
            found | _both('lm_head.dense', DIM, DIM) | _both('lm_head.layer_norm', DIM) | {'lm_head.bias': (SYMBOLS,)}
        )
    head = 'cls.predictions.transform'
    found |= _both(f'{head}.dense', DIM, DIM) | _both(f'{head}.LayerNorm', DIM)
    return found | {'cls.predictions.bias': (SYMBOLS,)}


def _gpt2_shapes(settings):
    found = {'wte.weight': (SYMBOLS, DIM), 'wpe.weight': (POSITIONS, DIM), **_both('ln_f', DIM)}
    for layer in range(LAYERS):
        block = f'h.{layer}'
        found |= _both(f'{block}.ln_1', DIM) | _both(f'{block}.ln_2', DIM)
        for part, inputs, outputs in (
            ('attn.c_attn', DIM, 3 * DIM),
            ('attn.c_proj', DIM, DIM),
            ('mlp.c_fc', DIM, 4 * DIM),
            ('mlp.c_proj', 4 * DIM, DIM),
        ):
            found |= {f'{block}.{part}.weight': (inputs, outputs), f'{block}.{part}.bias': (outputs,)}
    return {f'transformer.{name}': shape for name, shape in found.items()}


def _llama_shapes(settings):
    width = settings.get('head_dim', DIM // HEADS)
    sizes = dict(q_proj=HEADS * width, k_proj=2 * width, v_proj=2 * width)
    found = {'embed_tokens.weight': (SYMBOLS, DIM), 'norm.weight': (DIM,)}
    for layer in range(LAYERS):
        block = f'layers.{layer}'
        found |= {f'{block}.input_layernorm.weight': (DIM,), f'{block}.post_attention_layernorm.weight': (DIM,)}
        for name, size in sizes.items():
            found[f'{block}.self_attn.{name}.weight'] = (size, DIM)
            if settings['model_type'] == 'qwen2':
                found[f'{block}.self_attn.{name}.bias'] = (size,)
        if settings['model_type'] == 'qwen3':
            found |= {f'{block}.self_attn.{name}_norm.weight': (width,) for name in 'qk'}
        found[f'{block}.self_attn.o_proj.weight'] = (DIM, HEADS * width)
        found |= {f'{block}.mlp.{name}_proj.weight': (INNER, DIM) for name in ('gate', 'up')}
        found[f'{block}.mlp.down_proj.weight'] = (DIM, INNER)
    found = {f'model.{name}': shape for name, shape in found.items()}
    return found if settings.get('tie_word_embeddings') else found | {'lm_head.weight': (SYMBOLS, DIM)}


def write(folder, family, **settings):
    """Random checkpoint of a family in a folder: its settings and its tensors."""
    settings, generator = SETTINGS[family] | settings, np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes(settings).items():
        values = generator.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.4)
        one = name.endswith('weight') and len(shape) == 1  # scales of norms
        tensors[name] = (values + one).astype(np.float32)
    save(folder, settings, tensors)
    return settings, tensors


def save(folder, settings, tensors):
    folder.mkdir(exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(settings))
    save_file(tensors, folder / 'model.safetensors')


def write_tokenizer(folder, special=('<|end|>', '[MASK]', '</s>')):
    """Byte-level tokenizer of up to SYMBOLS tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SYMBOLS - 10, initial_alphabet=alphabet, special_tokens=[*special])
    tokenizer.train_from_iterator(['the cat and the dog, the end of the day\n'] * 9, trainer)
    tokenizer.save(str(folder / 'tokenizer.json'))
    return tokenizer


# ---------------------------------------------------------------------------------------------------- forward passes


def logits(settings, tensors, tokens):
    """Logits [B, T, V] of a checkpoint, in float64."""
    kind = settings['model_type']
    tensors = {
        name.removeprefix(f'{kind}.').removeprefix('transformer.').removeprefix('model.'): array.astype(np.float64)
        for name, array in tensors.items()
    }
    compute = {'bert': _bert, 'roberta': _bert, 'gpt2': _gpt2}.get(kind, _llama)
    return np.stack([compute(settings, tensors, row) for row in tokens])


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attention(q, k, v, mask):
    """Attention over heads of queries, keys and values [T, H K], [T, G K], [T, G K]."""
    size = len(q)
    width = q.shape[1] // HEADS
    q, k, v = (x.reshape(size, -1, width) for x in (q, k, v))
    out = np.zeros_like(q)
    for head in range(HEADS):
        group = head * k.shape[1] // HEADS
        scores = q[:, head] @ k[:, group].T / math.sqrt(width)
        out[:, head] = softmax(np.where(mask, scores, -np.inf)) @ v[:, group]
    return out.reshape(size, -1)


def layer_norm(tensors, name, x, eps):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return x * tensors[f'{name}.weight'] + tensors[f'{name}.bias']


def rms_norm(tensors, name, x, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * tensors[f'{name}.weight']


def dense(tensors, name, x):
    return x @ tensors[f'{name}.weight'].T + tensors.get(f'{name}.bias', 0.0)


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def _bert(settings, tensors, tokens):
    eps, size = settings['layer_norm_eps'], len(tokens)
    first = settings['pad_token_id'] + 1 if settings['model_type'] == 'roberta' else 0
    x = tensors['embeddings.word_embeddings.weight'][tokens]
    x = x + tensors['embeddings.position_embeddings.weight'][first : first + size]
    x = x + tensors['embeddings.token_type_embeddings.weight'][0]
    x = layer_norm(tensors, 'embeddings.LayerNorm', x, eps)
    for layer in range(LAYERS):
        block = f'encoder.layer.{layer}'
        parts = (dense(tensors, f'{block}.attention.self.{name}', x) for name in ('query', 'key', 'value'))
        seen = attention(*parts, np.ones((size, size), bool))
        x = x + dense(tensors, f'{block}.attention.output.dense', seen)
        x = layer_norm(tensors, f'{block}.attention.output.LayerNorm', x, eps)
        y = dense(tensors, f'{block}.output.dense', gelu(dense(tensors, f'{block}.intermediate.dense', x)))
        x = layer_norm(tensors, f'{block}.output.LayerNorm', x + y, eps)
    if settings['model_type'] == 'roberta':
        x = layer_norm(tensors, 'lm_head.layer_norm', gelu(dense(tensors, 'lm_head.dense', x)), eps)
        return x @ tensors['embeddings.word_embeddings.weight'].T + tensors['lm_head.bias']
    head = 'cls.predictions.transform'
    x = layer_norm(tensors, f'{head}.LayerNorm', gelu(dense(tensors, f'{head}.dense', x)), eps)
    return x @ tensors['embeddings.word_embeddings.weight'].T + tensors['cls.predictions.bias']


def _gpt2(settings, tensors, tokens):
    size = len(tokens)

    def product(name, x):
        return x @ tensors[f'{name}.weight'] + tensors[f'{name}.bias']

    x = tensors['wte.weight'][tokens] + tensors['wpe.weight'][:size]
    for layer in range(LAYERS):
        block = f'h.{layer}'
        parts = np.split(product(f'{block}.attn.c_attn', layer_norm(tensors, f'{block}.ln_1', x, 1e-5)), 3, axis=-1)
        x = x + product(f'{block}.attn.c_proj', attention(*parts, np.tri(size, dtype=bool)))
        y = product(f'{block}.mlp.c_fc', layer_norm(tensors, f'{block}.ln_2', x, 1e-5))
        y = y / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        x = x + product(f'{block}.mlp.c_proj', y)
    return layer_norm(tensors, 'ln_f', x, 1e-5) @ tensors['wte.weight'].T


def _llama(settings, tensors, tokens):
    eps, size = settings['rms_norm_eps'], len(tokens)
    width = settings.get('head_dim', DIM // HEADS)
    row, column = np.indices((size, size))
    mask = (column <= row) & (row - column < (settings.get('sliding_window') or size))
    angle = np.outer(np.arange(size), settings['rope_theta'] ** (-2 * np.arange(width // 2) / width))
    turn = np.exp(1j * angle)[:, None]

    def heads(layer, name, x):
        x = dense(tensors, f'layers.{layer}.self_attn.{name}_proj', x).reshape(size, -1, width)
        if settings['model_type'] == 'qwen3':
            x = rms_norm(tensors, f'layers.{layer}.self_attn.{name}_norm', x, eps)
        turned = (x[..., : width // 2] + 1j * x[..., width // 2 :]) * turn
        return np.concatenate([turned.real, turned.imag], axis=-1).reshape(size, -1)

    x = tensors['embed_tokens.weight'][tokens]
    for layer in range(LAYERS):
        block = f'layers.{layer}'
        y = rms_norm(tensors, f'{block}.input_layernorm', x, eps)
        value = dense(tensors, f'{block}.self_attn.v_proj', y)
        seen = attention(heads(layer, 'q', y), heads(layer, 'k', y), value, mask)
        x = x + dense(tensors, f'{block}.self_attn.o_proj', seen)
        y = rms_norm(tensors, f'{block}.post_attention_layernorm', x, eps)
        gate, up = (dense(tensors, f'{block}.mlp.{name}_proj', y) for name in ('gate', 'up'))
        x = x + dense(tensors, f'{block}.mlp.down_proj', gate / (1 + np.exp(-gate)) * up)
    x = rms_norm(tensors, 'norm', x, eps)
    return x @ tensors['embed_tokens.weight' if settings.get('tie_word_embeddings') else 'lm_head.weight'].T
