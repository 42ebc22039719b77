"""Which language is this sentence?

python train.py --config=configs/classification.py --workdir=runs/classification
"""

from configs import common

SCHEMES = ('none', 'sincos', 'rope', 'alibi', 't5')


def get_config():
    config = common.get_config()
    config.task = 'classification'
    config.model.layers = 2
    config.model.dim = 64
    config.model.heads = 4
    config.model.position = 'rope'
    config.model.norm = 'pre'
    config.model.readout = 'pooled'
    config.train.steps = 3000
    config.train.batch_size = 64
    config.train.lengths = '128'
    config.optimizer.schedule = 'warmup(steps=100)|cosine'
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.1
    config.eval.lengths = '8,16,32,64,128'
    config.eval.examples = 1024
    return config


def sweep():
    for position in SCHEMES:
        yield {'model.position': position}
