"""ListOps of Long Range Arena (Tay et al., 2021, arXiv:2011.04006): trees of 500 to 2000 symbols, no extrapolation.

    python sweep.py --config=configs/published/tay2021_listops.py:small --workdir=runs/tay2021 --jobs=2
    python compare.py runs/tay2021

In full, without `:small`: 4 layers of width 512, 5,000 steps of batches of 32; about an hour per cell on a GPU. Trees
follow the law of the released ones given their length (`released=True`). Not as published: lengths are uniform, where
short trees prevail there; trees are drawn anew in every step, not from 96,000. Of the models of the table we have the
Transformer, and linear attention with two feature maps.

Small: 2 layers of width 64, trees of depth 4 with up to 5 arguments, lengths 10-60, 1000 steps.
Not yet run to the end: about 20 minutes for the first two cells on two busy CPU cores.
"""

from configs import common

CORES = ('auto', "linear(features='elu+1')", "linear(features='performer')")


def get_config(size='full'):
    config = common.get_config()
    config.task = 'listops(released=True)'
    config.model.position = 'sincos'
    config.model.layers = 4
    config.model.dim = 512
    config.model.heads = 8
    config.model.mlp_dim = 1024
    config.model.norm = 'pre'
    config.model.mlp = 'gelu'
    config.model.attention_dropout_rate = 0.1
    config.train.lengths = '500-2000'
    config.train.steps = 5000
    config.train.batch_size = 32
    config.optimizer.name = 'adamw(b2=0.98, eps=1e-9)'
    config.optimizer.learning_rate = 0.00158
    config.optimizer.weight_decay = 0.1
    config.optimizer.schedule = 'warmup(steps=1000)|rsqrt'
    config.eval.lengths = '500-2000:100'
    config.eval.examples = 125
    if common.is_small(size):
        config.task = 'listops(max_depth=4, max_arguments=5, released=True)'
        config.model.layers = 2
        config.model.dim = 64
        config.model.heads = 4
        config.model.mlp_dim = 128
        config.model.dropout_rate = 0.0
        config.model.attention_dropout_rate = 0.0
        config.train.lengths = '10-60'
        config.train.steps = 1000
        config.train.buckets = 2
        config.optimizer.schedule = 'warmup(steps=200)|rsqrt'
        config.eval.lengths = '10-60:10,80,100'
        config.eval.examples = 128
        config.eval.buckets = 2
    return config


def sweep(size='full'):
    for core in CORES:
        if core != 'auto':  # which drops no single weight of attention, as it has none
            yield {'model.core': core, 'model.attention_dropout_rate': 0.0}
        else:
            yield {'model.core': core}
