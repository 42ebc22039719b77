"""GPT: a causal language model in the form of GPT-2 (Radford et al., 2019), in three sizes.

    python train.py --config=configs/gpt.py --workdir=runs/gpt
    python train.py --config=configs/gpt.py:small --workdir=runs/gpt-small --config.task="lm('path/*.txt')"
    python sweep.py --config=configs/gpt.py --workdir=runs/gpts --jobs=2

Pre-norm blocks with GELU and biases, learned positions, logits from the token embeddings. The text is bytes, by
default the source code of the Python standard library; `--config.task="lm(documents='packed')"` keeps files apart.
A Llama instead: `--config.model.norm_kind=rms --config.model.mlp=swiglu --config.model.use_bias=false
--config.model.position=rope`. Positions that go on beyond the trained length: `--config.model.position=alibi
--config.eval.lengths=128,256,512`.

    size   layers, width, heads   parameters   trained on
    tiny   4, 128, 4              0.8 million  500 batches of 16 x 128 bytes
    small  6, 384, 6              10.8 million 5000 batches of 32 x 256 bytes
    125m   12, 768, 12            85.6 million 50,000 batches of 32 x 512 bytes, in bfloat16

Tiny takes 2 minutes of CPU time, 7 minutes on two cores that were busy with other work. On 128 bytes of test files it
has 2.95 bits per byte and predicts .467 of the bytes; the most frequent byte is right in .280. Other sizes: not yet
run.

The 125m size has the settings of KERPLE (Chi et al., 2022, arXiv:2205.09921): 12 heads of 64, Adam at 6e-4, batches of
32, 50,000 steps. It differs in its symbols: 256 bytes instead of 50,257 tokens, with which it would have the 124
million parameters of GPT-2, and the 162 million of KERPLE where the logits have weights of their own.
"""

from configs import common

SIZES = {
    'tiny': {
        'model.layers': 4,
        'model.dim': 128,
        'model.heads': 4,
        'train.steps': 500,
        'train.batch_size': 16,
        'train.lengths': '128',
        'optimizer.learning_rate': 2e-3,
        'optimizer.schedule': 'warmup(steps=50)|cosine',
        'eval.lengths': '32,64,128',
        'eval.examples': 64,
    },
    'small': {
        'model.layers': 6,
        'model.dim': 384,
        'model.heads': 6,
        'train.steps': 5000,
        'train.batch_size': 32,
        'train.lengths': '256',
        'optimizer.learning_rate': 1e-3,
        'optimizer.schedule': 'warmup(steps=250)|cosine',
        'eval.lengths': '64,128,256',
        'eval.examples': 128,
    },
    '125m': {
        'model.layers': 12,
        'model.dim': 768,
        'model.heads': 12,
        'model.dtype': 'bfloat16',
        'train.steps': 50_000,
        'train.batch_size': 32,
        'train.lengths': '512',
        'optimizer.learning_rate': 6e-4,
        'optimizer.schedule': 'warmup(steps=500)|cosine',
        'eval.lengths': '128,256,512',
        'eval.examples': 256,
    },
}
SCHEMES = ('learned', 'rope', 'alibi', 'kerple')


def get_config(size='tiny'):
    config = common.get_config()
    config.task = 'lm'
    config.model.causal = True
    config.model.position = 'learned'
    config.model.norm = 'pre'
    config.model.norm_eps = 1e-5
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
