"""State tracking: the product of group elements so far, at every element (Merrill et al., 2024, arXiv:2404.08819).

    python sweep.py --config=configs/state_tracking.py --workdir=runs/state_tracking --jobs=2
    python compare.py runs/state_tracking

A short version: `--sweep=small --config.train.steps=1000`, 6 runs of half a minute each on two shared CPU cores, one
seed. Accuracy per symbol on words of S3 after training on 1 to 16 elements; a constant answer reaches 0.20:

                             4-16    24-32     64
    delta                    1.000   0.996   0.874
    delta(negative=False)    0.625   0.286   0.220
    path                     0.620   0.291   0.221
    rope                     0.590   0.280   0.214
    fox(bias_init=5.0)       0.563   0.274   0.213
    none                     0.561   0.274   0.212

Only `delta` with negative eigenvalues (Grazzi et al., 2025, arXiv:2411.12537) tracks the state, beyond the trained
lengths, too. `path` also reflects, and does not learn it in so few steps. The same steps teach none of the models,
`delta` included, a group of 60 elements: in 10 runs on A5 and Z60 (8 minutes, one seed), accuracy was
0.27 to 0.28 at length 4, where a model that guesses all products but the first has 0.26, and 0.033 to 0.035 at length
64. The 3,000 steps of the full sweep have not been run.
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
POSITIVE = {'model.position': 'none', 'model.core': 'delta(negative=False)'}


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


def sweep_small():
    """A group that is quickly learned, and delta without negative eigenvalues."""
    return sweeps.product([{'task': "group('S3')"}], (*MODELS, POSITIVE))
