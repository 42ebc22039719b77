"""Byte-level language modelling: trained on sequences of 128 bytes, evaluated on up to 2048 bytes.

    python sweep.py --config=configs/text.py --workdir=runs/text --jobs=2
    python compare.py runs/text
    python train.py --config=configs/text.py --workdir=runs/mine --config.task="lm('path/to/*.txt')"

The default text is the source code of the Python standard library. The model is causal and predicts the next byte. With
`--config.model.causal=false` it predicts masked bytes.
"""

from configs import common

SCHEMES = ('none', 'sincos', 'rope', 'alibi', 't5', 'randomize(max_position=4096)|alibi')


def get_config():
    config = common.get_config()
    config.task = 'lm'
    config.model.layers = 4
    config.model.dim = 128
    config.model.position = 'alibi'
    config.model.causal = True
    config.model.norm = 'pre'
    config.train.steps = 1000
    config.train.batch_size = 16
    config.train.lengths = '128'
    config.optimizer.schedule = 'warmup(steps=100)|cosine'
    config.eval.lengths = '32,64,128,256,512,1024,2048'
    config.eval.examples = 64
    return config


def sweep():
    for position in SCHEMES:
        yield {'model.position': position}
