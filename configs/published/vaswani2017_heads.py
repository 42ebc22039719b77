"""Number of heads at a fixed width, as in rows (A) of table 3 of Vaswani et al. (2017, arXiv:1706.03762), and beside it
at a fixed size of heads.

    python sweep.py --config=configs/published/vaswani2017_heads.py:small --workdir=runs/vaswani2017 --jobs=2
    python compare.py runs/vaswani2017

In full, without `:small`: the base model's 6 layers of width 512 with 1 to 32 heads, 100,000 steps of Adam as
published; hours per cell on a GPU. The paper translates; here a string is reversed, so what compares is the effect of
the number of heads: small from 4 to 32 there, and a loss with one.

Small: 2 layers of width 64, lengths 1-16, evaluated to 32, 1500 steps. `configs/heads.py` asks the same with more steps
and a scheme that extrapolates.
Not yet run.
"""

from configs import common

HEADS = (1, 4, 8, 16, 32)


def get_config(size='full'):
    config = common.get_config()
    config.task = 'reverse_string'
    config.model.position = 'sincos'
    config.model.layers = 6
    config.model.dim = 512
    config.model.heads = 8
    config.train.lengths = '1-40'
    config.train.steps = 100_000
    config.optimizer.name = 'adam(b2=0.98, eps=1e-9)'
    config.optimizer.learning_rate = 7e-4
    config.optimizer.schedule = 'warmup(steps=4000)|rsqrt'
    config.optimizer.clip_norm = 0.0
    config.eval.lengths = '5-40:5,50-100:10'
    if common.is_small(size):
        config.model.layers = 2
        config.model.dim = 64
        config.model.dropout_rate = 0.0
        config.train.lengths = '1-16'
        config.train.steps = 1500
        config.train.batch_size = 32
        config.train.buckets = 2
        config.optimizer.learning_rate = 2e-3
        config.optimizer.schedule = 'warmup(steps=100)|rsqrt'
        config.eval.lengths = '4-16:4,20-32:4'
        config.eval.examples = 128
        config.eval.buckets = 2
    return config


def sweep(size='full'):
    size_of_heads = 8 if common.is_small(size) else 64
    for heads in HEADS:
        yield {'model.heads': heads}
        if heads != 8:  # the same as above
            yield {'model.heads': heads, 'model.head_dim': size_of_heads}
