"""Table 1 of Ruoss et al. (2023, arXiv:2305.16843): 15 tasks under 11 position schemes, trained on lengths 1-40.

    python sweep.py --config=configs/published/ruoss2023_table1.py:small --workdir=runs/ruoss2023 --jobs=2
    python compare.py runs/ruoss2023

In full, without `:small`: 165 cells of 30 models each (10 seeds, 3 learning rates), 2 million steps of batches of 128,
evaluated at all lengths to 500. That is thousands of GPU hours; a cell of 10,000 steps, as the released script has
them, takes minutes on a GPU (`--config.train.steps=10000`). The paper prints the maximum of the 30 models.

The settings are those of the released code: initial values of haiku, norms with 1e-5, dropout behind the embedding for
schemes that add to it alone, random positions drawn for each layer under rotary and relative schemes, which have random
offsets, and parameters of the relative scheme in each layer. Not as released: dropout is off in evaluations. Add
`released=True` to `randomize_offsets` for the table of the released relative scheme, which is read beyond its end.

Small: four tasks, three schemes and the same with random positions, 2 layers, lengths 1-10, evaluated to 50, 2,000
steps, three seeds; 24 cells in 19 minutes on two CPU cores. The order of the schemes is the paper's, while the hardest
tasks stay unsolved: docs/results/ruoss-cpu.md.
"""

from configs import common

TASKS = (
    'even_pairs',
    'modular_arithmetic',
    'parity_check',
    'cycle_navigation',
    'stack_manipulation',
    'reverse_string',
    'modular_arithmetic_brackets',
    'solve_equation',
    'duplicate_string',
    'missing_duplicate_string',
    "odds_first(order='released')",
    'binary_addition',
    'binary_multiplication',
    'compute_sqrt',
    'bucket_sort',
)
SMALL_TASKS = ('even_pairs', 'reverse_string', 'missing_duplicate_string', 'bucket_sort')
SMALL_SCHEMES = ('sincos', 'txl', 'rope')  # and the same with random positions
LEARNED = 'learned(init_std=0.88)'  # a normal of standard deviation 1, cut at two
ABSOLUTE = ('sincos', LEARNED)
PER_LAYER = {'model.position_per_layer': True}  # the relative scheme's parameters


def get_config(size='full'):
    config = common.get_config()
    config.task = 'bucket_sort'
    config.model.position = 'randomize(max_position=2048)|sincos'
    config.model.init = 'haiku'
    config.model.norm_eps = 1e-5
    config.model.mlp_dim = 256
    config.train.lengths = '1-40'
    config.train.steps = 2_000_000
    config.train.batch_size = 128
    config.train.log_every_steps = 1000
    config.train.checkpoint_every_steps = 10_000
    config.population.seed = tuple(range(10))
    config.population.learning_rate = (1e-4, 3e-4, 5e-4)
    config.eval.lengths = '1-500'
    config.eval.examples = 512
    if common.is_small(size):
        config.model.layers = 2
        config.model.dropout_rate = 0.0
        config.train.lengths = '1-10'
        config.train.steps = 2000
        config.train.batch_size = 32
        config.train.buckets = 2
        config.train.log_every_steps = 100
        config.train.checkpoint_every_steps = 1000
        config.population.seed = (0, 1, 2)
        config.population.learning_rate = (2e-3,)
        config.optimizer.schedule = 'cosine'
        config.eval.lengths = '2-10:2,15-50:5'
        config.eval.examples = 128
        config.eval.buckets = 2
    return config


def schemes(most):
    """The schemes of the table, random ones with positions below `most`, and what they set beside."""
    yield from ((scheme, {}) for scheme in ABSOLUTE)
    for scheme, beside in (('none', {}), ('txl', PER_LAYER), ('alibi', {}), ('rope', {})):
        yield scheme, {'model.embedding_dropout': False, **beside}
    yield from ((f'randomize(max_position={most})|{scheme}', {}) for scheme in ABSOLUTE)
    for scheme, beside in (('txl', PER_LAYER), ('alibi', {})):
        offsets = f"randomize_offsets(max_position={most}, redraw='layer')"
        yield f'{offsets}|{scheme}', {'model.embedding_dropout': False, **beside}
    yield f"randomize(max_position={most}, redraw='layer')|rope", {'model.embedding_dropout': False}


def sweep(size='full'):
    small = common.is_small(size)
    for task in SMALL_TASKS if small else TASKS:
        for position, beside in schemes(256 if small else 2048):
            if not small or position.rpartition('|')[2] in SMALL_SCHEMES:
                yield {'task': task, 'model.position': position, **beside}
