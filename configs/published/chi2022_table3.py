"""Table 3 of KERPLE (Chi et al., 2022, arXiv:2205.09921): six schemes trained on 512 tokens, evaluated to 16384.

    python sweep.py --config=configs/published/chi2022_table3.py:small --workdir=runs/chi2022 --jobs=2
    python compare.py runs/chi2022

In full, without `:small`: 162 million parameters, 50,000 steps of batches of 32, five seeds; about 4 hours per run on
an A100. The text is bytes of the standard library of Python, not tokens of OpenWebText2, GitHub or ArXiv: what compares
is the order of the schemes and how the loss goes on beyond 512. `--config.task="lm('path/*.txt')"` takes other text.

Small: 2 layers of width 64, trained on 64 bytes, evaluated to 1024, 400 steps, one seed.
Not yet run.
"""

from configs import common

SCHEMES = ('kerple', "kerple(kind='power')", 'alibi', 't5', 'rope', 'sincos')


def get_config(size='full'):
    config = common.get_config()
    config.task = 'lm'
    config.model.position = 'kerple'
    config.model.causal = True
    config.model.layers = 12
    config.model.dim = 768
    config.model.heads = 12
    config.model.norm = 'pre'
    config.model.mlp = 'gelu'
    config.model.dropout_rate = 0.0
    config.model.dtype = 'bfloat16'
    config.train.lengths = '512'
    config.train.steps = 50_000
    config.train.batch_size = 32
    config.optimizer.learning_rate = 6e-4
    config.optimizer.schedule = 'cosine'
    config.eval.lengths = '512,1024,2048,4096,8192,16384'
    config.eval.examples = 256
    if common.is_small(size):
        config.model.layers = 2
        config.model.dim = 64
        config.model.heads = 4
        config.model.dtype = 'float32'
        config.train.lengths = '64'
        config.train.steps = 400
        config.train.batch_size = 16
        config.optimizer.learning_rate = 2e-3
        config.eval.lengths = '64,128,256,512,1024'
        config.eval.examples = 32
        config.eval.buckets = 5
    return config


def sweep(size='full'):
    for seed in range(1 if common.is_small(size) else 5):
        for position in SCHEMES:
            yield {'model.position': position, 'seed': seed}
