"""Position schemes beyond the trained length, in minutes: bucket sort on lengths 1-20, evaluated to 100.

python sweep.py --config=configs/quickstart.py --workdir=runs/quickstart --jobs=2
python compare.py runs/quickstart
"""

from configs import common

SCHEMES = (
    'sincos',
    'rope',
    'alibi',
    't5',
    'randomize(max_position=256)|sincos',
    'randomize(max_position=256)|rope',
)


def get_config():
    config = common.get_config()
    config.task = 'bucket_sort'
    config.model.layers = 2
    config.model.position = 'randomize(max_position=256)|rope'
    config.model.dropout_rate = 0.0
    config.train.steps = 1500
    config.train.batch_size = 32
    config.train.lengths = '1-20'
    config.train.buckets = 2
    config.train.checkpoint_every_steps = 500
    config.eval.lengths = '5-20:5,30-100:10'
    config.eval.examples = 256
    config.eval.buckets = 2
    return config


def sweep():
    for seed in range(3):
        for position in SCHEMES:
            yield {'model.position': position, 'seed': seed}
