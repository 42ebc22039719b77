"""GPT-2 (Radford et al., 2019): pre-norm blocks, learned positions, logits from the token embeddings.

Kernels are stored as [inputs, outputs], and those of queries, keys and values side by side in one. Other scales of the
attention logits than 1/sqrt(K) are put into the kernels of queries.
"""

import numpy as np

from mha.pretrained.checkpoint import Checkpoint
from mha.pretrained.family import Translation, under

ACTIVATIONS = {'gelu_new': 'gelu', 'gelu_pytorch_tanh': 'gelu', 'gelu': 'gelu_exact', 'relu': 'relu'}
UNUSED = r'attn\.(masked_)?bias$|^lm_head\.'
"""Masks, and a copy of the embeddings."""


def gpt2(checkpoint: Checkpoint) -> Translation:
    """GPT-2, with or without the prefix of a whole language model."""
    take, count = checkpoint.take, checkpoint.count
    checkpoint.rename(('^transformer\\.', ''))
    checkpoint.only('add_cross_attention', False)
    checkpoint.only('tie_word_embeddings', True)
    activation = checkpoint.only('activation_function', *ACTIVATIONS)
    layers, dim, heads, symbols = count('n_layer'), count('n_embd'), count('n_head'), count('vocab_size')
    rows, inner = count('n_positions'), count('n_inner', 4 * dim)

    def scale(layer: int) -> float:
        """Scale of the logits, divided by 1/sqrt(K)."""
        scaled = checkpoint.only('scale_attn_weights', True, False)
        by_layer = checkpoint.only('scale_attn_by_inverse_layer_idx', False, True)
        return (1.0 if scaled else (dim / heads) ** 0.5) / (layer + 1 if by_layer else 1)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {'scale': take(f'{name}.weight', dim), 'bias': take(f'{name}.bias', dim)}

    def dense(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {'kernel': take(f'{name}.weight', inputs, outputs), 'bias': take(f'{name}.bias', outputs)}

    params = {
        'embedding.embedding': take('wte.weight', symbols, dim),
        'positions.0.table': take('wpe.weight', rows, dim),
    }
    for layer in range(layers):
        block = f'h.{layer}'
        fused = dense(f'{block}.attn.c_attn', dim, 3 * dim)
        query, key, value = (
            {name: np.split(array, 3, axis=-1)[index] for name, array in fused.items()} for index in range(3)
        )
        params |= under(
            f'blocks.{layer}',
            {
                **under('attention.query', {name: scale(layer) * array for name, array in query.items()}),
                **under('attention.key', key),
                **under('attention.value', value),
                **under('attention.out', dense(f'{block}.attn.c_proj', dim, dim)),
                **under('attention_norm', norm(f'{block}.ln_1')),
                **under('up', dense(f'{block}.mlp.c_fc', dim, inner)),
                **under('down', dense(f'{block}.mlp.c_proj', inner, dim)),
                **under('mlp_norm', norm(f'{block}.ln_2')),
            },
        )
    params |= under('final_norm', norm('ln_f'))
    checkpoint.check_all_taken(UNUSED)
    settings = dict(
        layers=layers,
        dim=dim,
        heads=heads,
        mlp_dim=inner,
        position=f'learned(max_position={rows})',
        causal=True,
        norm='pre',
        norm_eps=checkpoint.number('layer_norm_epsilon', 1e-5),
        mlp=ACTIVATIONS[activation],
        tied=True,
        use_bias=True,
    )
    return Translation(settings, params, rows)
