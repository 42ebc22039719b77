"""Figure 2 of Zoology (Arora et al., 2023, arXiv:2312.04927): associative recall by softmax and by linear attention.

    python sweep.py --config=configs/published/arora2023_figure2.py:small --workdir=runs/arora2023 --jobs=2
    python compare.py runs/arora2023

In full, without `:small`: three lengths, four widths, two cores, and four learning rates as one population, of which
the figure shows the best; 12,500 steps of batches of 512, minutes to an hour per cell on a GPU. As released: one head,
no feed-forward layers, learned positions, filler 0 (`random_filler=False`). Not as released: sequences are drawn anew
in every step, not 64 times from 100,000; initial values are ours, not N(0, .02); dropout is on attention weights alone.

The figure has no numbers to compare with. Small: 64 symbols, 4 pairs in 32 tokens, 1500 steps. 4 runs in 8 minutes on
two CPU cores that were busy with other work, one seed. Accuracy at widths 16 and 64: softmax .460 .499, linear .438
1.000. That is too short for softmax attention, which is near 1 at all widths of the figure (from memory).
"""

from configs import common

SIZES = {64: (4, 512), 128: (8, 512), 256: (16, 256)}  # length: pairs, batch size


def get_config(size='full'):
    config = common.get_config()
    config.task = 'mqar(vocabulary=8192, pairs=4, random_filler=False)'
    config.model.position = 'learned'
    config.model.causal = True
    config.model.layers = 2
    config.model.dim = 64
    config.model.heads = 1
    config.model.mlp = 'none'
    config.model.norm = 'pre'
    config.model.norm_eps = 1e-5
    config.model.use_bias = True
    config.model.tied = True
    config.model.dropout_rate = 0.0
    config.model.attention_dropout_rate = 0.1
    config.train.lengths = '64'
    config.train.steps = 12_500
    config.train.batch_size = 512
    config.optimizer.name = 'adamw'
    config.optimizer.weight_decay = 0.1
    config.optimizer.schedule = 'cosine'
    config.optimizer.clip_norm = 0.0
    config.population.learning_rate = (1e-4, 4.64e-4, 2.15e-3, 1e-2)
    config.eval.lengths = '64'
    config.eval.examples = 3000
    if common.is_small(size):
        config.task = 'mqar(vocabulary=64, pairs=4, random_filler=False)'
        config.model.attention_dropout_rate = 0.0
        config.train.lengths = '32'
        config.train.steps = 1500
        config.train.batch_size = 64
        config.population.learning_rate = (4.64e-3,)
        config.eval.lengths = '32'
        config.eval.examples = 256
    return config


def sweep(size='full'):
    if common.is_small(size):
        for dim in (16, 64):
            for core in ('auto', 'linear'):
                yield {'model.dim': dim, 'model.core': core}
        return
    for length, (pairs, batch_size) in SIZES.items():
        for dim in (64, 128, 256, 512):
            for core, rate in (('auto', 0.1), ('linear', 0.0)):  # there are no single weights to drop in the latter
                yield {
                    'task': f'mqar(vocabulary=8192, pairs={pairs}, random_filler=False)',
                    'train.lengths': str(length),
                    'eval.lengths': str(length),
                    'train.batch_size': batch_size,
                    'train.steps': 64 * 100_000 // batch_size,
                    'model.dim': dim,
                    'model.core': core,
                    'model.attention_dropout_rate': rate,
                }
