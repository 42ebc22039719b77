"""ALiBi (Press et al., 2022, arXiv:2108.12409): trained on 512 or 3072 tokens, evaluated to 3072.

    python sweep.py --config=configs/published/press2022_text.py:small --workdir=runs/press2022 --jobs=2
    python compare.py runs/press2022

In full, without `:small`: 16 layers of width 1024, 286,000 updates of 73,728 tokens; days on 8 V100. The text is the
standard library of Python by bytes, without adaptive inputs, not WikiText-103 by words: what compares is the order of
the schemes, and where they stop gaining. `--config.task="lm('path/*.txt')"` takes other text.

Small: 2 layers of width 64, trained on 64 or 256 bytes, evaluated to 512, 300 steps of Adam.
Not yet run.
"""

from configs import common

SHORT = ('alibi', 'sincos', 'rope', 't5')
LONG = ('alibi', 'sincos')


def get_config(size='full'):
    config = common.get_config()
    config.task = 'lm'
    config.model.position = 'alibi'
    config.model.causal = True
    config.model.layers = 16
    config.model.dim = 1024
    config.model.heads = 8
    config.model.norm = 'pre'
    config.model.dropout_rate = 0.3
    config.train.lengths = '512'
    config.train.steps = 286_000
    config.train.batch_size = 144
    config.train.microbatches = 8
    config.optimizer.name = 'sgd(momentum=0.99, nesterov=True)'
    config.optimizer.learning_rate = 1.0
    config.optimizer.schedule = 'warmup(steps=16000)|cosine'
    config.optimizer.clip_norm = 0.1
    config.eval.lengths = '512,768,1024,1536,2048,3072'
    config.eval.examples = 256
    if common.is_small(size):
        config.model.layers = 2
        config.model.dim = 64
        config.model.heads = 4
        config.model.dropout_rate = 0.0
        config.train.lengths = '64'
        config.train.steps = 300
        config.train.batch_size = 16
        config.train.microbatches = 1
        config.optimizer.name = 'adam'
        config.optimizer.learning_rate = 2e-3
        config.optimizer.schedule = 'cosine'
        config.optimizer.clip_norm = 1.0
        config.eval.lengths = '64,96,128,192,256,512'
        config.eval.examples = 32
        config.eval.buckets = 6
    return config


def sweep(size='full'):
    for position in SHORT:
        yield {'model.position': position}
    long = ('256', 4) if common.is_small(size) else ('3072', 24)
    for position in LONG:
        yield {'model.position': position, 'train.lengths': long[0], 'train.batch_size': long[1]}
