"""Length generalisation and C-RASP (Huang et al., 2024, arXiv:2410.02140): algorithmic tasks and regular languages.

    python sweep.py --config=configs/published/huang2024_crasp.py:small --workdir=runs/crasp --jobs=2
    python compare.py runs/crasp --metric=exact_match --rows=position --columns=task
    python compare.py runs/crasp --metric=exact_match --published=huang2024

Trained on lengths 1-50, tested on 51-150. The theory: a task with a C-RASP program generalises, with positions or
without as the program needs them. The authors ran learned positions with a random start (APE) and no positions (NoPE),
each with the model size that fits best; here all schemes of a task share the size of its APE model, width 64 or less.
`--sweep=schemes` adds schemes that the authors did not run. GPT-2's block: pre-norm, GELU, AdamW with weight decay .01,
linear decay of the rate, batches of 64, 30,000 steps; the authors stop once all answers in range are right. Not as
released: initial values, and the random starts, which there depend on the length of the example.

Small: 3,000 steps, 128 examples at each of nine lengths; hours on two cores. docs/results/crasp-cpu.md has a part of
it: majorities as the authors found, while 3,000 steps are too few for interleaved majorities, unique copy and (aa)*.
"""

from configs import common, sweeps

APE = 'shape(max_shift=150)|learned(max_position=454)'
SCHEMES = ('rope', 'alibi', 't5', 'fire', 'kerple', 'cope', 'fox', 'ssmax', 'randomize(max_position=512)|rope')
SIZES = {  # task: layers, heads, width, learning rate
    'majority': (1, 1, 16, 1e-3),
    'majority(symbols=26)': (1, 1, 64, 1e-3),
    'majority_interleaved(period=3)': (1, 2, 64, 1e-3),
    'copying(symbols=150, distinct=True, bos=True)': (2, 1, 64, 1e-3),
    'copying(symbols=2, bos=True)': (2, 4, 64, 1e-3),
    'sorting(symbols=150, distinct=True, bos=True)': (1, 1, 64, 1e-4),
    "parity(ones='uniform', bos=True)": (2, 4, 64, 1e-3),
    "regular(language='(aa)*')": (1, 1, 16, 1e-3),
    "regular(language='(aaaa)*')": (2, 4, 64, 1e-3),
    "regular(language='tomita4')": (2, 4, 64, 1e-3),
}
KEYS = ('model.layers', 'model.heads', 'model.dim', 'optimizer.learning_rate')


def get_config(size='full'):
    config = common.get_config()
    config.task = 'majority'
    config.model.position = APE
    config.model.causal = True
    config.model.norm = 'pre'
    config.model.mlp = 'gelu'
    config.model.norm_eps = 1e-5
    config.model.dropout_rate = 0.0
    config.model.use_bias = True
    config.train.lengths = '1-50'
    config.train.length_per = 'example'
    config.train.steps = 30_000
    config.train.batch_size = 64
    config.train.buckets = 2
    config.optimizer.name = 'adamw'
    config.optimizer.weight_decay = 0.01
    config.optimizer.schedule = 'linear'
    config.eval.lengths = '1-150'
    config.eval.examples = 2000
    config.eval.buckets = 3
    if common.is_small(size):
        config.train.steps = 3000
        config.eval.lengths = '10-50:20,60-100:20,110-150:20'
        config.eval.examples = 128
    return config


def _tasks():
    return [{'task': task, **dict(zip(KEYS, sizes, strict=True))} for task, sizes in SIZES.items()]


def sweep(size='full'):
    """The authors' two schemes, three seeds."""
    return sweeps.product(_tasks(), sweeps.over('model.position', (APE, 'none')), sweeps.over('seed', range(3)))


def sweep_schemes(size='full'):
    """Schemes that the authors did not run, one seed."""
    return sweeps.product(_tasks(), sweeps.over('model.position', SCHEMES))
