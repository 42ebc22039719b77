"""A process of the tests on several devices: trains small models on every mesh asked for, and writes what came out.

python train.py result.npz <case>..., a case being name:members:data:model:core[:save=dir|:restore=dir]
"""

import functools
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mha import parallel, tasks
from mha.checkpoint import Checkpoints
from mha.encoder import Encoder
from mha.training import State

jax.config.update('jax_numpy_rank_promotion', 'raise')
MEMBERS, STEPS, BATCH, LENGTH, PADDED = 4, 4, 8, 5, 8
TASK = tasks.make('bucket_sort', causal=False)
EXCHANGES = ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute', 'reduce-scatter')
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=1e-2))


def build(core, seed):
    return Encoder(
        vocab_size=TASK.vocab_size,
        num_classes=TASK.num_classes,
        max_len=TASK.num_tokens(PADDED),
        layers=1,
        dim=16,
        heads=4,
        position='randomize(max_position=64)|rope',
        dropout_rate=0.25,
        core=core,
        rngs=nnx.Rngs(jax.random.key(seed)),
    )


@functools.cache
def init():
    """The first state of MEMBERS members, on the host."""

    def one(seed):
        params = nnx.to_pure_dict(nnx.split(build('auto', seed), nnx.Param)[1])
        return params, optimizer.init(params)

    return jax.device_get(State(*jax.jit(jax.vmap(one))(jnp.arange(MEMBERS)), jnp.int32(0)))


def population(members, tree):
    """The first members of a tree; the same members whatever their number."""
    return jax.tree.map(lambda leaf: leaf[:members] if leaf.ndim else leaf, tree)


def make_chunk(graphdef, layout, state):
    """`chunk(state, task, keys, stop, rates) -> (state, metrics)`: the training program in small."""

    def update(params, opt_state, task, key, rate):
        data_key, dropout_key, position_key = jax.random.split(key, 3)
        batch = layout.split(task.batch(data_key, BATCH, LENGTH, PADDED))

        def loss_fn(params):
            model = nnx.merge(graphdef, nnx.State(params))
            rngs = nnx.Rngs(dropout=dropout_key, position=position_key)
            logits = model(batch.tokens, valid=batch.valid[:1], train=True, rngs=rngs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
            return jnp.sum(losses, where=batch.loss_mask) / batch.loss_mask.sum()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, jax.tree.map(lambda x: rate * x, updates)), opt_state, loss

    def chunk(state, task, keys, stop, rates):
        def step(carry):
            state, total = carry
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
            params, opt_state, loss = jax.vmap(update, (0, 0, None, 0, 0))(
                state.params, state.opt_state, task, now, rates
            )
            return State(params, opt_state, state.step + 1), total + loss

        first = state.step
        carry = (state, jnp.zeros(len(keys)))
        state, total = jax.lax.while_loop(lambda carry: carry[0].step < stop, step, carry)
        return state, {'loss': total / (stop - first)}

    return jax.jit(chunk, donate_argnums=0, out_shardings=(layout.shardings(state), layout.replicated))


def train(members, data, model, core, save=None, restore=None):
    """Trains, or goes on from a checkpoint; the metrics, the final parameters, and what the program exchanges."""
    layout = parallel.Layout(parallel.make_mesh(data, model), members)
    layout.check(BATCH)
    graphdef = nnx.split(build(core, 0), nnx.Param)[0]
    state = layout.place(population(members, init()))
    checkpoints = Checkpoints(Path(save or restore)) if save or restore else None
    if restore:
        state = checkpoints.restore(like=state)
    keys, rates = layout.place(
        population(members, (jax.random.split(jax.random.key(1), MEMBERS), np.linspace(1.0, 0.5, MEMBERS, dtype='f')))
    )
    arguments = (layout.replicate(TASK), keys)
    chunk = make_chunk(graphdef, layout, state).lower(state, *arguments, jnp.int32(0), rates).compile()
    losses = []
    for stop in range(int(state.step) + 1, STEPS + 1):
        state, metrics = chunk(state, *arguments, jnp.int32(stop), rates)
        losses.append(np.asarray(metrics['loss']))
        if save and stop == STEPS // 2:
            checkpoints.save(stop, state)
    if checkpoints:
        checkpoints.close()
    params = layout.replicate(state.params)
    leaves = {
        f'params{jax.tree_util.keystr(path)}': np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)
    }
    local = {
        f'local{jax.tree_util.keystr(path)}': np.array(leaf.addressable_shards[0].data.shape)
        for path, leaf in jax.tree.leaves_with_path(state)
    }
    found = re.findall(rf'= (.*?) ({"|".join(EXCHANGES)})(?:-start)?\(', chunk.as_text())
    return {
        'losses': np.array(losses),
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
