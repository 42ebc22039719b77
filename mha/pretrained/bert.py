"""BERT (Devlin et al., 2019, arXiv:1810.04805) and RoBERTa (Liu et al., 2019, arXiv:1907.11692) with their head for
masked tokens: post-norm blocks, exact GELU, learned positions, a norm of the embeddings.

All tokens are of type 0, whose embedding is added to those of positions. RoBERTa's positions begin at row 2 of the
table, after that of the padding. The logits have weights of their own, those of the embeddings, and a bias. A model
without the head, such as one for embeddings of sentences, has products with the embeddings in the place of logits.
"""

import numpy as np

from mha.pretrained.checkpoint import Checkpoint
from mha.pretrained.family import Translation, under

BERT_HEAD = {
    'dense': 'cls.predictions.transform.dense',
    'norm': 'cls.predictions.transform.LayerNorm',
    'bias': 'cls.predictions.bias',
}
ROBERTA_HEAD = {'dense': 'lm_head.dense', 'norm': 'lm_head.layer_norm', 'bias': 'lm_head.bias'}
UNUSED = r'pooler|position_ids|seq_relationship|(predictions|lm_head)\.decoder'
"""Tensors without effect on the logits, or copies."""


def bert(checkpoint: Checkpoint) -> Translation:
    """BERT, also of older files, whose norms have a gamma and a beta."""
    checkpoint.rename(('^bert\\.', ''), ('LayerNorm.gamma$', 'LayerNorm.weight'), ('LayerNorm.beta$', 'LayerNorm.bias'))
    return _translation(checkpoint, BERT_HEAD, first_row=0)


def roberta(checkpoint: Checkpoint) -> Translation:
    """RoBERTa."""
    checkpoint.rename(('^roberta\\.', ''))
    return _translation(checkpoint, ROBERTA_HEAD, first_row=checkpoint.count('pad_token_id', 1, low=0) + 1)


def _translation(checkpoint: Checkpoint, head: dict[str, str], first_row: int) -> Translation:
    take, linear, count = checkpoint.take, checkpoint.linear, checkpoint.count
    checkpoint.only('hidden_act', 'gelu')
    checkpoint.only('position_embedding_type', 'absolute')
    checkpoint.only('add_cross_attention', False)
    checkpoint.only('tie_word_embeddings', True)
    layers, dim, heads = count('num_hidden_layers'), count('hidden_size'), count('num_attention_heads')
    inner, symbols, rows = count('intermediate_size'), count('vocab_size'), count('max_position_embeddings')
    types = count('type_vocab_size')

    def norm(name: str) -> dict[str, np.ndarray]:
        return {'scale': take(f'{name}.weight', dim), 'bias': take(f'{name}.bias', dim)}

    def dense(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {'kernel': linear(f'{name}.weight', inputs, outputs), 'bias': take(f'{name}.bias', outputs)}

    table = take('embeddings.word_embeddings.weight', symbols, dim)
    positions = take('embeddings.position_embeddings.weight', rows, dim)[first_row:]
    type_0 = take('embeddings.token_type_embeddings.weight', types, dim)[0]
    params = {'embedding.embedding': table, 'positions.0.table': positions + type_0[None]}
    params |= under('embedding_norm', norm('embeddings.LayerNorm'))
    for layer in range(layers):
        block, attention = f'encoder.layer.{layer}', f'encoder.layer.{layer}.attention'
        params |= under(
            f'blocks.{layer}',
            {
                **under('attention.query', dense(f'{attention}.self.query', dim, dim)),
                **under('attention.key', dense(f'{attention}.self.key', dim, dim)),
                **under('attention.value', dense(f'{attention}.self.value', dim, dim)),
                **under('attention.out', dense(f'{attention}.output.dense', dim, dim)),
                **under('attention_norm', norm(f'{attention}.output.LayerNorm')),
                **under('up', dense(f'{block}.intermediate.dense', dim, inner)),
                **under('down', dense(f'{block}.output.dense', inner, dim)),
                **under('mlp_norm', norm(f'{block}.output.LayerNorm')),
            },
        )
    headless = f'{head["dense"]}.weight' not in checkpoint.where
    params |= {'head.kernel': table.T, 'head.bias': np.zeros(symbols) if headless else take(head['bias'], symbols)}
    if not headless:
        params |= under('transform.dense', dense(head['dense'], dim, dim))
        params |= under('transform.norm', norm(head['norm']))
    checkpoint.check_all_taken(UNUSED)
    settings = dict(
        layers=layers,
        dim=dim,
        heads=heads,
        mlp_dim=inner,
        position=f'learned(max_position={len(positions)})',
        causal=checkpoint.only('is_decoder', False, True),
        norm='post',
        norm_eps=checkpoint.number('layer_norm_eps', 1e-12),
        mlp='gelu_exact',
        embedding_norm='layer',
        output='linear' if headless else 'mlm',
        use_bias=True,
    )
    return Translation(settings, params, len(positions))
