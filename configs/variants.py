"""Normalizers and gates: what turns logits into weights, and what the outputs of heads go through.

python sweep.py --config=configs/variants.py --workdir=runs/variants --jobs=2
python compare.py runs/variants --pivot=model.normalizer
"""

from configs import common, sweeps

NORMALIZERS = ('softmax', 'sink', 'entmax(alpha=1.5)', 'softpick', 'sigmoid', 'stickbreaking')


def get_config():
    config = common.get_config()
    config.task = 'flip_flop(ignore=0.8)'
    config.model.layers = 2
    config.model.heads = 4
    config.model.causal = True
    config.model.position = 'none'
    config.model.norm = 'pre'
    config.model.dropout_rate = 0.0
    config.train.steps = 1500
    config.train.batch_size = 32
    config.train.lengths = '2-32'
    config.train.buckets = 2
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'warmup(steps=100)|cosine'
    config.eval.lengths = '8,16,32,64,128,256'
    config.eval.examples = 256
    config.eval.buckets = 3
    return config


def sweep():
    return sweeps.product(sweeps.over('model.normalizer', NORMALIZERS), sweeps.over('model.gate', ('none', 'head')))
