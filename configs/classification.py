"""Which language is this sentence?

python train.py --config=configs/classification.py --workdir=runs/classification
"""

from configs import common

SCHEMES = ('none', 'sincos', 'rope', 'alibi', 't5')


def get_config():
    config = common.get_config()
    config.task = "classification(tokens='bpe(1024)')"
    config.model.layers = 2
    config.model.dim = 64
    config.model.heads = 4
    config.model.position = 'rope'
    config.model.norm = 'pre'
    config.model.readout = 'pooled'
    config.model.dropout_rate = 0.2
    config.train.steps = 2000
    config.train.batch_size = 64
    config.train.lengths = '8,16,32,64,80'
    config.train.buckets = 2
    config.train.average = 0.998
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = 'warmup(steps=100)|cosine'
    config.optimizer.weight_decay = 0.1
    config.eval.lengths = '4,8,16,32,64,80'
    config.eval.examples = 1024
    return config


def sweep():
    for position in SCHEMES:
        yield {'model.position': position}
