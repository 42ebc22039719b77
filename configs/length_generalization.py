"""Lengths 1-40 to 500, after Ruoss et al. (2023, arXiv:2305.16843).

    python train.py --config=configs/length_generalization.py --workdir=runs/md
    python sweep.py --config=configs/length_generalization.py --workdir=runs/protocol --jobs=2

Encoder of 5 layers, width 64, 8 heads, post-norm, dropout 0.1, batch 128, as published. Training takes 10,000 steps,
as in the released script; the paper trains for 2 million steps and reports the best of 30 runs (3 learning rates, 10
seeds). Evaluating all lengths 1-500 with 512 examples each takes hours on a CPU; `--config.eval.lengths=1-100` is the
range of the released script. Initial values, norms and random positions are ours; those of the released code are in
configs/published/ruoss2023_table1.py.
"""

from configs import common

SCHEMES = ('none', 'sincos', 'txl', 'alibi', 'rope', 'learned')


def get_config():
    config = common.get_config()
    config.task = 'missing_duplicate_string'
    config.model.position = 'randomize(max_position=2048)|sincos'
    config.eval.lengths = '1-500'
    return config


def sweep():
    for scheme in SCHEMES:
        for position in (scheme, f'randomize(max_position=2048)|{scheme}'):
            if position != 'randomize(max_position=2048)|none':
                yield {'model.position': position}
