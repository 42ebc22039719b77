"""Copying, reversing, SCAN and PCFG of Kazemnejad et al. (2023, arXiv:2305.19466) under five schemes, in a decoder.

    python sweep.py --config=configs/published/kazemnejad2023_tasks.py:small --workdir=runs/kazemnejad2023 --jobs=2
    python compare.py runs/kazemnejad2023

In full, without `:small`: a decoder of the size of T5-base, 40,000 steps of batches of 64, trained on lengths 2-20 and
evaluated to 40; 50 cells of three seeds each, 2 to 8 hours per seed on a V100 or an A100. The metric is exact match.
The paper generates its answers, which are right as often: one is if and only if each symbol is, after the right ones.

Not as published: prompts are symbols, not sentences in pieces of words; examples are drawn anew in every step, not from
100,000; T5 leaves its logits unscaled, which its initial values make up for.

Small: 2 layers of width 64, copying and reversing of 20 symbols, lengths 2-10, evaluated to 20, 4000 steps, three
seeds; 13 minutes on two CPU cores. Results: docs/results/kazemnejad-cpu.md.
"""

from configs import common

SCHEMES = ('none', 't5(init_std=0.036)', 'alibi', "rope(fraction=0.25, layout='interleaved')", 'sincos')
TASKS = (
    "copying(kind='cmc')",
    "copying(kind='cmc', doubled=True)",
    "copying(kind='rdc', symbols=78)",
    "copying(kind='rsc', symbols=6052)",
    "copying(kind='rsc', doubled=True, symbols=6052)",
    "reverse(variant='mc')",
    "reverse(variant='mc2x')",
    "reverse(variant='mcrv')",
    'scan',
    'pcfg',
)
BESIDE = {
    'scan': {'train.lengths': '2-25', 'eval.lengths': '2-28,30,32,33,36,40,48'},
    'pcfg': {'train.lengths': '1-8', 'eval.lengths': '1-20', 'train.steps': 100_000},
}


def get_config(size='full'):
    config = common.get_config()
    config.task = "copying(kind='cmc')"
    config.model.position = 'none'
    config.model.causal = True
    config.model.layers = 12
    config.model.dim = 768
    config.model.heads = 12
    config.model.norm = 'pre'
    config.model.norm_kind = 'rms'
    config.model.attention_dropout_rate = 0.1
    config.model.tied = True
    config.train.lengths = '2-20'
    config.train.length_per = 'example'
    config.train.steps = 40_000
    config.train.batch_size = 64
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 3e-5
    config.optimizer.weight_decay = 0.05
    config.optimizer.schedule = 'warmup(steps=2400)|linear'
    config.population.seed = (256788, 234054, 146317)
    config.eval.lengths = '5-20:5,21-40'
    config.eval.examples = 500
    if common.is_small(size):
        config.task = "copying(kind='cmc', symbols=20)"
        config.model.layers = 2
        config.model.dim = 64
        config.model.heads = 4
        config.model.dropout_rate = 0.0
        config.model.attention_dropout_rate = 0.0
        config.train.lengths = '2-10'
        config.train.length_per = 'batch'
        config.train.steps = 4000
        config.train.batch_size = 32
        config.train.buckets = 2
        config.optimizer.learning_rate = 2e-3
        config.optimizer.schedule = 'warmup(steps=100)|linear'
        config.population.seed = (0, 1, 2)
        config.eval.lengths = '2-10:2,11,12,13,14,16,18,20'
        config.eval.examples = 128
        config.eval.buckets = 2
    return config


def sweep(size='full'):
    small = ("copying(kind='cmc', symbols=20)", "reverse(variant='mc', symbols=20)")
    for task in small if common.is_small(size) else TASKS:
        for position in SCHEMES:
            yield {'task': task, 'model.position': position, **BESIDE.get(task, {})}
