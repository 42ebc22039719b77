"""Length generalisation and C-RASP (Huang et al., 2024, arXiv:2410.02140): algorithmic tasks and regular languages.

    python sweep.py --config=configs/published/huang2024_crasp.py:small --workdir=runs/crasp --jobs=2
    python compare.py runs/crasp --metric=exact_match --rows=position --columns=task
    python compare.py runs/crasp --metric=exact_match --published=huang2024

Trained on lengths 1-50, tested on 51-150. The theory: a task with a C-RASP program generalises, with positions or
without as the program needs them. The authors ran learned positions with a random start (APE) and no positions (NoPE),
each with the model size that fits best; here all schemes of a task share the size of its APE model, width 64 or less.
`--sweep=schemes` adds schemes that the authors did not run. GPT-2's block and initial values: pre-norm, GELU, AdamW
with weight decay .01, linear decay of the rate, batches of 64, 30,000 steps; the authors stop once all answers in range
are right. Logits come from the token embeddings, but for the languages, whose answers are no tokens. Not as released:
for the languages, random starts depend on the length of the example, as for the other tasks.

Small: a fifth of all lengths. Trained on lengths 1-10, tested on 11-30, on 30 symbols in place of 150; 5,000 steps of
batches of 32, 128 examples at each length. Default initial values, which fit sooner, with positions as large as tokens,
as in GPT-2; learning rate 1e-3. docs/results/crasp-cpu.md has the results.
"""

from configs import common, sweeps

APE = "shape(max_shift='room')|learned"
SCHEMES = ('rope', 'alibi', 't5', 'fire', 'kerple', 'cope', 'fox', 'ssmax', 'randomize(max_position=512)|rope')
SMALL_APE = f'{APE}(init_std=1.0)'
SMALL_SCHEMES = (*SCHEMES[:-1], 'randomize(max_position=128)|rope')
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
    config.model.init = 'gpt2'
    config.model.tied = True
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
        config.model.position = SMALL_APE
        config.model.init = 'default'
        config.model.tied = False
        config.train.lengths = '1-10'
        config.train.steps = 5000
        config.train.batch_size = 32
        config.train.buckets = 1
        config.eval.lengths = '2-30:2'
        config.eval.examples = 128
        config.eval.buckets = 1
    return config


def _tasks(size):
    tasks = [{'task': task, **dict(zip(KEYS, sizes, strict=True))} for task, sizes in SIZES.items()]
    if not common.is_small(size):
        return [{**cell, 'model.tied': not cell['task'].startswith('regular')} for cell in tasks]
    fifth = [{**cell, 'task': cell['task'].replace('symbols=150', 'symbols=30')} for cell in tasks]
    return [{**cell, 'optimizer.learning_rate': 1e-3} for cell in fifth]


def sweep(size='full'):
    """The authors' two schemes, three seeds."""
    schemes = sweeps.over('model.position', (SMALL_APE if common.is_small(size) else APE, 'none'))
    return sweeps.product(_tasks(size), schemes, sweeps.over('seed', range(3)))


def sweep_schemes(size='full'):
    """Schemes that the authors did not run, one seed."""
    schemes = SMALL_SCHEMES if common.is_small(size) else SCHEMES
    return sweeps.product(_tasks(size), sweeps.over('model.position', schemes))
