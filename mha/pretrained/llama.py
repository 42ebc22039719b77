"""Llama (Touvron et al., 2023, arXiv:2302.13971) and models that differ from it in a few settings: pre-norm blocks with
RMS norms and gated feed-forward layers, rotary positions, grouped queries.

    mistral   a sliding window                          Jiang et al. (2023, arXiv:2310.06825)
    qwen2     biases of queries, keys and values        Yang et al. (2024, arXiv:2407.10671)
    qwen3     RMS norms of the queries and keys         Yang et al. (2025, arXiv:2505.09388)

Biases that a checkpoint does not have are zero.
"""

import numpy as np

from mha.pretrained import rotary
from mha.pretrained.checkpoint import Checkpoint
from mha.pretrained.family import Translation, under

MLPS = {'silu': 'swiglu', 'gelu_pytorch_tanh': 'geglu', 'gelu_new': 'geglu'}
UNUSED = r'rotary_emb\.inv_freq$'
"""Frequencies, which follow from config.json."""
FLAX_EPS = 1e-6
"""Constant in the norms of queries and keys."""


def llama(checkpoint: Checkpoint) -> Translation:
    """Llama, and other models that are published as one."""
    biases = checkpoint.only('attention_bias', False, True)
    return _translation(checkpoint, biases, biases, checkpoint.only('mlp_bias', False, True), 'full')


def mistral(checkpoint: Checkpoint) -> Translation:
    """Mistral, with one window for all layers, or without."""
    window = checkpoint.config.get('sliding_window', 4096)
    return _translation(
        checkpoint, pattern='full' if window is None else _window(checkpoint.count('sliding_window', 4096))
    )


def qwen2(checkpoint: Checkpoint) -> Translation:
    """Qwen2 and Qwen2.5."""
    return _translation(checkpoint, input_biases=True, pattern=_patterns(checkpoint))


def qwen3(checkpoint: Checkpoint) -> Translation:
    """Qwen3."""
    biases = checkpoint.only('attention_bias', False, True)
    checkpoint.only('rms_norm_eps', FLAX_EPS)
    return _translation(checkpoint, biases, biases, pattern=_patterns(checkpoint), qk_norm=True)


def _window(size: int) -> str:
    """Spec of a window of `size` keys, the query's own included."""
    return f'window({size - 1})'


def _patterns(checkpoint: Checkpoint) -> str:
    """Pattern of every layer: the first ones see all, later ones have a window, unless `layer_types` says otherwise."""
    layers = checkpoint.count('num_hidden_layers')
    if not checkpoint.only('use_sliding_window', False, True) or checkpoint.config.get('sliding_window') is None:
        return 'full'
    first = checkpoint.count('max_window_layers', 28, low=0)
    types = checkpoint.config.get('layer_types') or [
        'sliding_attention' if layer >= first else 'full_attention' for layer in range(layers)
    ]
    known = {'full_attention': 'full', 'sliding_attention': _window(checkpoint.count('sliding_window'))}
    if not isinstance(types, list) or len(types) != layers or not all(kind in known for kind in types):
        raise checkpoint.refusal('layer_types', types, f'{" or ".join(map(repr, known))} for each of {layers} layers')
    return ', '.join(known[kind] for kind in types)


def _translation(
    checkpoint: Checkpoint,
    input_biases: bool = False,
    output_biases: bool = False,
    mlp_biases: bool = False,
    pattern: str = 'full',
    qk_norm: bool = False,
) -> Translation:
    take, linear, count = checkpoint.take, checkpoint.linear, checkpoint.count
    checkpoint.rename(('^model\\.', ''))
    layers, dim, heads = count('num_hidden_layers'), count('hidden_size'), count('num_attention_heads')
    kv_heads, symbols, inner = count('num_key_value_heads', heads), count('vocab_size'), count('intermediate_size')
    head_dim, longest = count('head_dim', dim // heads), count('max_position_embeddings')
    tied = checkpoint.only('tie_word_embeddings', False, True)
    mlp = MLPS[checkpoint.only('hidden_act', *MLPS)]
    position, defaults = rotary.position(checkpoint)

    def dense(name: str, inputs: int, outputs: int, bias: bool) -> dict[str, np.ndarray]:
        kernel = linear(f'{name}.weight', inputs, outputs)
        return {'kernel': kernel, 'bias': take(f'{name}.bias', outputs) if bias else np.zeros(outputs, np.float32)}

    def projection(name: str, inputs: int, outputs: int, bias: bool) -> dict[str, np.ndarray]:
        """Parameters of a projection of attention, which have biases in all of them or in none."""
        params = dense(name, inputs, outputs, bias)
        return params if input_biases or output_biases else {'kernel': params['kernel']}

    params = {'embedding.embedding': take('embed_tokens.weight', symbols, dim)}
    for layer in range(layers):
        block, attention = f'layers.{layer}', f'layers.{layer}.self_attn'
        parts = {
            **under('attention.query', projection(f'{attention}.q_proj', dim, heads * head_dim, input_biases)),
            **under('attention.key', projection(f'{attention}.k_proj', dim, kv_heads * head_dim, input_biases)),
            **under('attention.value', projection(f'{attention}.v_proj', dim, kv_heads * head_dim, input_biases)),
            **under('attention.out', projection(f'{attention}.o_proj', heads * head_dim, dim, output_biases)),
            'attention_norm.scale': take(f'{block}.input_layernorm.weight', dim),
            **under('gate', dense(f'{block}.mlp.gate_proj', dim, inner, mlp_biases)),
            **under('up', dense(f'{block}.mlp.up_proj', dim, inner, mlp_biases)),
            **under('down', dense(f'{block}.mlp.down_proj', inner, dim, mlp_biases)),
            'mlp_norm.scale': take(f'{block}.post_attention_layernorm.weight', dim),
        }
        if qk_norm:
            parts['attention.query_ln.scale'] = take(f'{attention}.q_norm.weight', head_dim)
            parts['attention.key_ln.scale'] = take(f'{attention}.k_norm.weight', head_dim)
        params |= under(f'blocks.{layer}', parts)
    params['final_norm.scale'] = take('norm.weight', dim)
    if not tied:
        params |= under('head', dense('lm_head', dim, symbols, bias=False))
    checkpoint.check_all_taken(rf'{UNUSED}|^lm_head\.weight$' if tied else UNUSED)
    settings = dict(
        layers=layers,
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        kv_heads=kv_heads,
        position=position,
        pattern=pattern,
        causal=True,
        norm='pre',
        norm_kind='rms',
        norm_eps=checkpoint.number('rms_norm_eps', 1e-6),
        mlp=f'{mlp}(width={inner})',
        qk_norm='rms' if qk_norm else 'none',
        tied=tied,
        use_bias=input_biases or output_biases,
    )
    return Translation(settings, params, longest, defaults)
