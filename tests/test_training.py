import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha import curricula, optim, tasks, training
from mha.encoder import Encoder


def start(
    position='none', task='bucket_sort', lengths=(2, 3, 6), buckets=(3, 6), seed=0, curriculum='uniform', **model
):
    task = tasks.make(task)
    sizes = dict(vocab_size=task.vocab_size, num_classes=task.num_classes, max_len=task.num_tokens(max(lengths)))
    settings = {'layers': 1, 'dim': 16, 'heads': 2, 'position': position, **model}
    optimizer = optim.make(100, learning_rate=3e-3)
    graphdef, state = training.init(Encoder(**sizes, **settings, rngs=nnx.Rngs(seed)), optimizer)
    curriculum = curricula.make(curriculum, lengths, steps=100)
    chunk = training.make_chunk(graphdef, optimizer, curriculum=curriculum, buckets=buckets, batch_size=16)
    return task, state, chunk, jax.random.key(seed)


def run(stops, **options):
    task, state, chunk, key = start(**options)
    for stop in stops:
        state, means = chunk(state, task, key, stop)
    return state, means, chunk


def test_two_chunks_equal_one_bit_for_bit():
    for position in ('learned', 'randomize(max_position=32)|t5'):
        task, state, chunk, key = start(position=position)
        part, _ = chunk(jax.tree.map(jnp.copy, state), task, key, 2)
        halves, _ = chunk(part, task, key, 6)
        whole, _ = chunk(state, task, key, 6)
        assert int(whole.step) == 6
        for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(halves), strict=True):
            np.testing.assert_array_equal(one, other)


def equations(jaxpr):
    """All equations, in inner programs too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')):
            if hasattr(inner, 'jaxpr'):
                yield from equations(inner.jaxpr)


def test_one_program_serves_every_length_and_chunk_size():
    _, _, chunk = run([1, 5, 12, 30])
    assert chunk._cache_size() == 1


def test_program_holds_one_update_per_bucket():
    task, state, chunk, key = start(lengths=tuple(range(1, 11)), buckets=(2, 5, 10))
    (switch,) = [eqn for eqn in equations(jax.make_jaxpr(chunk)(state, task, key, 1).jaxpr) if 'branches' in eqn.params]
    assert len(switch.params['branches']) == 3


def test_as_many_updates_as_steps():
    state, _, _ = run([7])
    count = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert count
    assert all(int(leaf) == 7 for leaf in count)


def test_data_and_dropout_do_not_depend_on_the_scheme():
    def first_batch(position):
        _, means, _ = run([1], position=position, dropout_rate=0.0)
        return float(means['length'])

    lengths = {first_batch(position) for position in ('none', 'learned', 'randomize(max_position=32)|rope')}
    assert len(lengths) == 1


def test_uniform_lengths_are_a_choice_by_seed_and_step():
    task, state, chunk, key = start(seed=3)
    for step in range(6):
        state, means = chunk(state, task, key, step + 1)
        drawn = jax.random.choice(jax.random.split(jax.random.fold_in(key, step), 4)[0], jnp.array([2, 3, 6]))
        assert means['length'] == drawn


def test_one_program_follows_a_curriculum():
    growing = 'regular_increase(start=1, amount=2, every=2, sample_all=False)'
    task, state, chunk, key = start(lengths=(1, 3, 5), buckets=(3, 5), curriculum=growing)
    lengths = []
    for stop in range(1, 8):
        state, means = chunk(state, task, key, stop)
        lengths.append(float(means['length']))
    assert lengths == [1, 1, 3, 3, 5, 5, 5]
    assert chunk._cache_size() == 1


def test_loss_falls():
    _, first, _ = run([1], position='rope', dropout_rate=0.0)
    _, last, _ = run([60, 61], position='rope', dropout_rate=0.0)
    assert float(last['loss']) < 0.8 * float(first['loss'])


def test_seeds_differ():
    one, two = run([1], seed=0)[0], run([1], seed=1)[0]
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))


def test_pooled_readout_trains_single_answers():
    _, means, _ = run([3], task='parity_check', readout='pooled')
    assert np.isfinite(float(means['loss']))
