"""BERT: a masked language model in the form of Devlin et al. (2019, arXiv:1810.04805), in three sizes.

    python train.py --config=configs/bert.py --workdir=runs/bert
    python train.py --config=configs/bert.py:small --workdir=runs/bert-small
    python sweep.py --config=configs/bert.py --workdir=runs/berts --jobs=2

Post-norm blocks with GELU and biases, learned positions, logits from the token embeddings. Of the bytes, 15 % are to
be answered: 80 % of them are replaced by a mask, 10 % by another byte, 10 % stay. The text is by default the source
code of the Python standard library; `--config.task="lm('path/*.txt', replaced='bert', whole_words=True)"` takes
other text and masks whole words. An encoder of today instead: `--config.model.norm=pre --config.model.norm_kind=rms
--config.model.mlp=geglu --config.model.position=rope --config.model.use_bias=false`.

    size   layers, width, heads   parameters   trained on
    tiny   2, 128, 2              0.4 million  1000 batches of 16 x 64 bytes
    small  4, 256, 4              3.3 million  10,000 batches of 32 x 128 bytes
    110m   12, 768, 12            85.6 million 1,000,000 batches of 256 x 512 bytes, in bfloat16

Tiny took 3 minutes of training on two cores that were busy with other work. On 64 bytes of test files it has 4.03 bits
per masked byte and predicts .358 of them; the most frequent byte is right in .299. It has only begun to learn: masked
bytes are a hard problem for so few steps. Other sizes: not yet run.

The 110m size is BERT-base: Adam at 1e-4 with a weight decay of 0.01, 10,000 steps of warm-up. It differs in its
symbols, 256 bytes instead of 30,522 word pieces, with which it would have 110 million parameters; in its text; in
having no second task (next sentence), no segment embeddings and no layer before the logits. BERT is trained on 128
tokens for nine tenths of the steps.
"""

from configs import common

SIZES = {
    'tiny': {
        'model.layers': 2,
        'model.dim': 128,
        'model.heads': 2,
        'train.steps': 1000,
        'train.batch_size': 16,
        'train.lengths': '64',
        'optimizer.learning_rate': 2e-3,
        'optimizer.schedule': 'warmup(steps=100)|linear',
        'eval.lengths': '16,32,64',
        'eval.examples': 256,
    },
    'small': {
        'model.layers': 4,
        'model.dim': 256,
        'model.heads': 4,
        'train.steps': 10_000,
        'train.batch_size': 32,
        'train.lengths': '128',
        'optimizer.learning_rate': 1e-3,
        'optimizer.schedule': 'warmup(steps=500)|linear',
        'eval.lengths': '32,64,128',
        'eval.examples': 256,
    },
    '110m': {
        'model.layers': 12,
        'model.dim': 768,
        'model.heads': 12,
        'model.dropout_rate': 0.1,
        'model.attention_dropout_rate': 0.1,
        'model.dtype': 'bfloat16',
        'train.steps': 1_000_000,
        'train.batch_size': 256,
        'train.microbatches': 8,
        'train.lengths': '512',
        'optimizer.learning_rate': 1e-4,
        'optimizer.schedule': 'warmup(steps=10000)|linear',
        'optimizer.weight_decay': 0.01,
        'eval.lengths': '128,256,512',
        'eval.examples': 256,
    },
}
SCHEMES = ('learned', 'sincos', 'rope', 't5')


def get_config(size='tiny'):
    config = common.get_config()
    config.task = "lm(replaced='bert')"
    config.model.position = 'learned'
    config.model.norm = 'post'
    config.model.norm_eps = 1e-12
    config.model.mlp = 'gelu'
    config.model.init = 'gpt2'
    config.model.tied = True
    config.model.use_bias = True
    config.model.dropout_rate = 0.0
    config.update_from_flattened_dict(common.of_size(size, SIZES))
    return config


def sweep(size='tiny'):
    for position in SCHEMES:
        yield {'model.position': position}
