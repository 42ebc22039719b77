"""Number of heads: 1, 2, 4, 8, 16 at a fixed width of 64 (heads get narrower) and at a fixed head size of 8.

    python sweep.py --config=configs/heads.py --workdir=runs/heads --jobs=2
    python compare.py runs/heads

Ablation of Vaswani et al. (2017, arXiv:1706.03762, table 3A). At a fixed width, the number of heads also changes the
head size, and with it the number of rope frequencies per head. Hence the second series, with a fixed head size.

10 runs with one seed each, which is enough to see large effects. `--sweep=tasks` has two tasks and three seeds:
docs/results/heads-cpu.md. The same on a task with data, which language a sentence is in (configs/classification.py):

    python sweep.py --config=configs/heads.py:languages --sweep=seeds --workdir=runs/heads-languages --jobs=2

How many of its heads each run needs, and how alike they are:

    python -m mha.probes runs/heads --lengths=16,32
"""

from configs import classification, common, sweeps


def get_config(task='reversal'):
    if task not in ('reversal', 'languages'):
        raise ValueError(f"the task is 'reversal' or 'languages', not {task!r}")
    if task == 'languages':
        return classification.get_config()
    config = common.get_config()
    config.task = 'reverse_string'
    config.model.layers = 2
    config.model.position = 'randomize(max_position=128)|rope'
    config.model.dropout_rate = 0.0
    config.train.steps = 3000
    config.train.batch_size = 32
    config.train.lengths = '1-16'
    config.train.buckets = 2
    config.eval.lengths = '4-16:4,20-32:4'
    config.eval.examples = 256
    config.eval.buckets = 2
    return config


def sweep():
    for heads in (1, 2, 4, 8, 16):
        yield {'model.heads': heads}
        yield {'model.heads': heads, 'model.head_dim': 8}


def sweep_seeds():
    """The same with three seeds."""
    return sweeps.product(sweep(), sweeps.over('seed', range(3)))


def sweep_tasks():
    """The same on two tasks, three seeds each."""
    tasks = sweeps.over('task', ('reverse_string', 'bucket_sort'))
    return sweeps.product(tasks, sweep(), sweeps.over('seed', range(3)))
