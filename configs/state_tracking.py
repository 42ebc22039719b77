"""State tracking: the product of group elements so far, at every element (Merrill et al., 2024, arXiv:2404.08819).

python sweep.py --config=configs/state_tracking.py --workdir=runs/state_tracking --jobs=2
python compare.py runs/state_tracking
"""

from configs import common, sweeps

GROUPS = ('S5', 'A5', 'Z60', 'A4xZ5')
MODELS = (
    {'model.position': 'none'},
    {'model.position': 'rope'},
    {'model.position': 'fox(bias_init=5.0)'},
    {'model.position': 'path'},
    {'model.position': 'none', 'model.core': 'delta'},
)


def get_config():
    config = common.get_config()
    config.task = "group('A5')"
    config.model.layers = 2
    config.model.heads = 4
    config.model.causal = True
    config.model.norm = 'pre'
    config.model.position_per_layer = True
    config.model.dropout_rate = 0.0
    config.train.steps = 3000
    config.train.batch_size = 64
    config.train.lengths = '1-16'
    config.train.buckets = 1
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'warmup(steps=100)|cosine'
    config.eval.lengths = '4,8,16,24,32,64'
    config.eval.examples = 256
    config.eval.buckets = 2
    return config


def sweep():
    return sweeps.product(({'task': f'group({name!r})'} for name in GROUPS), MODELS)


def sweep_two():
    """A solvable and a simple group of the same size."""
    return sweeps.product(({'task': f'group({name!r})'} for name in ('A5', 'Z60')), MODELS)
