"""A process of the tests on several devices: trains small models on each given mesh, and writes the results.

python train.py result.npz <case>..., a case being name:members:data:model:core[:save=dir|:restore=dir|:parts=n]
"""

import functools
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha import tasks
from mha.machine import parallel
from mha.model.encoder import Encoder
from mha.run.checkpoint import Checkpoints
from mha.training import curricula, evaluation, optim
from mha.training import step as training

jax.config.update('jax_numpy_rank_promotion', 'raise')
MEMBERS, STEPS, BATCH, LENGTH, PADDED = 4, 4, 8, 5, 8
TASK = tasks.make('bucket_sort', causal=False)
EXCHANGES = ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute', 'reduce-scatter')
RATES = np.linspace(1e-2, 5e-3, MEMBERS, dtype=np.float32)


def make_optimizer(learning_rate=1e-2):
    # Where a gradient vanishes, Adam's division would make a step of its rounding.
    return optim.make(STEPS, 'adam(eps=1e-5)', learning_rate, weight_decay=1e-2)


def build(core, seed):
    return Encoder(
        vocab_size=TASK.vocab_size,
        num_classes=TASK.num_classes,
        max_len=TASK.num_tokens(PADDED),
        layers=1,
        dim=16,
        heads=4,
        position='randomize(max_position=64)|cape|rope',  # of the whole batch, and of each example
        dropout_rate=0.25,
        core=core,
        rngs=nnx.Rngs(jax.random.key(seed)),
    )


@functools.cache
def init():
    """The first state of MEMBERS members, on the host."""

    def one(seed):
        return nnx.to_pure_dict(nnx.split(build('auto', seed), nnx.Param)[1])

    return jax.device_get(training.init(jax.jit(jax.vmap(one))(jnp.arange(MEMBERS)), make_optimizer(), average=0.0))


def population(members, tree):
    """The first members of a tree; the same members whatever their number."""
    return jax.tree.map(lambda leaf: leaf[:members] if leaf.ndim else leaf, tree)


def train(members, data, model, core, save=None, restore=None, parts=1):
    """Trains, or goes on from a checkpoint; the metrics, the final parameters, and what the program exchanges."""
    layout = parallel.Layout(parallel.make_mesh(data, model), members, together=True)
    layout.check(BATCH)
    graphdef = nnx.split(build(core, 0), nnx.Param)[0]
    state = layout.place(population(members, init()))
    checkpoints = Checkpoints(Path(save or restore)) if save or restore else None
    if restore:
        state = checkpoints.restore(like=state)
    keys, rates = layout.place(population(members, (jax.random.split(jax.random.key(1), MEMBERS), RATES)))
    arguments, varied = (layout.replicate(TASK), keys), {'learning_rate': rates}
    chunk = training.Chunk(
        graphdef,
        make_optimizer,
        curriculum=curricula.make('uniform', (2, LENGTH), STEPS),
        buckets=(PADDED,),
        batch_size=BATCH,
        microbatches=int(parts),
        together=True,
        summed=layout.summed,
    ).compiled(shardings=(layout.shardings(state), layout.replicated))
    chunk = chunk.lower(state, *arguments, np.int32(0), varied).compile()
    losses = []
    for stop in range(int(state.step) + 1, STEPS + 1):
        state, metrics = chunk(state, *arguments, np.int32(stop), varied)
        losses.append(np.asarray(metrics['loss']))
        if save and stop == STEPS // 2:
            checkpoints.save(stop, state)
    if checkpoints:
        checkpoints.close()
    whole = layout.fetch(state.params)
    params = jax.tree.map(lambda leaf: leaf[0], whole)
    evaluator = evaluation.Evaluator(
        graphdef,
        params,
        TASK,
        lengths=(3, LENGTH),
        examples=32,
        batch_size=BATCH,
        programs=1,
        seed=0,
        quadratic=lambda tokens: core == 'dense',
        layout=parallel.Layout(layout.mesh),
    )
    rows = evaluator(params).rows
    leaves = {f'params{jax.tree_util.keystr(path)}': leaf for path, leaf in jax.tree.leaves_with_path(whole)}
    local = {
        f'local{jax.tree_util.keystr(path)}': np.array(leaf.addressable_shards[0].data.shape)
        for path, leaf in jax.tree.leaves_with_path(state)
    }
    found = re.findall(rf'= (.*?) ({"|".join(EXCHANGES)})(?:-start)?\(', chunk.as_text())
    return {
        'losses': np.array(losses),
        'evaluated': np.array([[row['accuracy'], row['loss'], row['examples']] for row in rows]),
        **leaves,
        **local,
        'exchanges': np.array([f'{kind} {shapes}' for shapes, kind in found]),
    }


def main(path, *cases):
    parallel.start()
    parallel.start()  # changes nothing
    results = {}
    for case in cases:
        name, members, data, model, core, *rest = case.split(':')
        found = train(int(members), int(data), int(model), core, **dict(item.split('=') for item in rest))
        results |= {f'{name}/{key}': value for key, value in found.items()}
    parallel.once(lambda: np.savez(path, **results))


if __name__ == '__main__':
    main(*sys.argv[1:])
