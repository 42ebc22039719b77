"""Causal language modelling of bytes beyond the trained length: trained on 256 bytes, evaluated on 256 to 8192.

    python sweep.py --config=configs/language.py --workdir=runs/language --jobs=2
    python compare.py runs/language

After Press et al. (2022, arXiv:2108.12409) and Chi et al. (2022, arXiv:2205.09921), on the source of Python's standard
library. The same 32 x 128 bytes are scored at every length, the last ones of each example, so that more context can
only help a model that uses it. The last cells train under rope and are evaluated under schemes that interpolate or
rescale it.

30 runs in 112 minutes, two at a time, on two cores that had other work. Bits per byte at 256 and at 2048 to 8192 bytes,
means over three seeds: kerple 2.02 and 2.04, alibi 2.13 and 2.14, fire 2.02 and 2.67, t5 2.41 and 3.57, none 3.24 and
3.51, rope 1.96 and 4.41, sincos 3.85 and 7.21: docs/results/language-cpu.md.
"""

from configs import common, sweeps

SCHEMES = ('none', 'sincos', 'rope', 'alibi', 't5', 'kerple', 'fire')
RESCALED = ('pi(scale=8)|rope', 'ntk(scale=8)', 'yarn(scale=8, original_length=256)')


def get_config():
    config = common.get_config()
    config.task = 'lm(scored=128)'
    config.model.layers = 2
    config.model.dim = 128
    config.model.heads = 4
    config.model.position = 'alibi'
    config.model.causal = True
    config.model.norm = 'pre'
    config.model.mlp = 'gelu'
    config.model.tied = True
    config.model.init = 'gpt2'
    config.model.dropout_rate = 0.0
    config.train.steps = 1200
    config.train.batch_size = 8
    config.train.lengths = '256'
    config.train.buckets = 1
    config.train.checkpoint_every_steps = 600
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = 'warmup(steps=100)|cosine'
    config.eval.lengths = '256,512,1024,2048,4096,8192'
    config.eval.examples = 32
    config.eval.buckets = 6
    return config


def sweep():
    rescaled = [{'model.position': 'rope', 'train.final_position': position} for position in RESCALED]
    cells = sweeps.chain(sweeps.over('model.position', SCHEMES), rescaled)
    return sweeps.product(cells, sweeps.over('seed', range(3)))
