import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import tasks
from mha.cores import flash
from mha.model.encoder import Encoder
from mha.training import curricula, optim
from mha.training import step as training


def start(
    position='none',
    task='bucket_sort',
    lengths=(2, 3, 6),
    buckets=(3, 6),
    seeds=(0,),
    curriculum='uniform',
    varied=None,
    average=0.0,
    dropout_rate=0.1,
    optimizer=None,
    options=None,
    **model,
):
    """The arguments of a chunk, one member per seed, and the chunk."""
    task = tasks.make(task)
    sizes = dict(vocab_size=task.vocab_size, num_classes=task.num_classes, max_len=task.num_tokens(max(lengths)))
    settings = {'layers': 1, 'dim': 16, 'heads': 2, 'position': position, 'dropout_rate': dropout_rate, **model}

    def make_optimizer(**numbers):
        return optim.make(100, **{'learning_rate': 3e-3, **(optimizer or {}), **numbers})

    models = [nnx.split(Encoder(**sizes, **settings, rngs=nnx.Rngs(seed)), nnx.Param) for seed in seeds]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.to_pure_dict(params) for _, params in models))
    state = training.init(params, make_optimizer(), average)
    chunk = training.Chunk(
        models[0][0],
        make_optimizer,
        curriculum=curricula.make(curriculum, lengths, steps=100),
        buckets=buckets,
        batch_size=16,
        average=average,
        **(options or {}),
    ).compiled()
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return task, state, chunk, keys, {name: jnp.array(values) for name, values in (varied or {}).items()}


STARTS = {}
"""Results of `start` by its arguments: equal settings share one compiled chunk."""


def run(stops, **options):
    if (settings := repr(sorted(options.items()))) not in STARTS:
        STARTS[settings] = start(**options)
    task, state, chunk, keys, varied = STARTS[settings]
    state = jax.tree.map(jnp.copy, state)  # a chunk takes over the memory of the one that it is given
    for stop in stops:
        state, means = chunk(state, task, keys, stop, varied)
    return state, means, chunk


def test_two_chunks_equal_one_bit_for_bit():
    for position in ('learned', 'randomize(max_position=32)|t5'):
        task, state, chunk, keys, varied = start(position=position)
        part, _ = chunk(jax.tree.map(jnp.copy, state), task, keys, 2, varied)
        halves, _ = chunk(part, task, keys, 6, varied)
        whole, _ = chunk(state, task, keys, 6, varied)
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
    for options in {}, {'seeds': (0, 1), 'options': {'together': True}}:
        task, state, chunk, keys, varied = start(lengths=tuple(range(1, 11)), buckets=(2, 5, 10), **options)
        program = jax.make_jaxpr(chunk)(state, task, keys, 1, varied).jaxpr
        (switch,) = [eqn for eqn in equations(program) if 'branches' in eqn.params]
        assert len(switch.params['branches']) == 3


def test_as_many_updates_as_steps():
    state, _, _ = run([7])
    count = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert count
    assert all((leaf == 7).all() for leaf in count)


def lengths_met(stops, **options):
    task, state, chunk, keys, varied = start(**options)
    met = []
    for stop in stops:
        state, means = chunk(state, task, keys, stop, varied)
        met.append(means['length'].tolist())
    assert chunk._cache_size() == 1
    return met


def test_all_seeds_meet_the_same_lengths():
    met = lengths_met(range(1, 9), seeds=(3, 4))
    assert all(one == other for one, other in met)
    assert len({one for one, _ in met}) == 3
    assert met == lengths_met(range(1, 9), seeds=(5, 6), position='rope')


def test_one_program_follows_a_curriculum():
    growing = 'regular_increase(start=1, amount=2, every=2, sample_all=False)'
    met = lengths_met(range(1, 8), lengths=(1, 3, 5), buckets=(3, 5), curriculum=growing)
    assert met == [[1], [1], [3], [3], [5], [5], [5]]


def test_each_example_may_draw_its_length():
    per_example = {'options': {'length_per': 'example'}}
    means = np.array(lengths_met(range(1, 41), **per_example))
    assert len(np.unique(means)) > 10  # of 16 examples, not of one draw
    assert means.mean() == pytest.approx(11 / 3, abs=0.2)


@pytest.mark.parametrize('position', ['randomize(max_position=32)|t5', 'cape|sincos', 'pose(target_length=16)|rope'])
def test_padding_of_other_examples_changes_nothing(position):
    """A batch of mixed lengths is as good as its examples alone."""
    task = tasks.make('reverse_string')
    model = Encoder(
        vocab_size=3, num_classes=2, max_len=32, layers=1, dim=16, heads=2, position=position, rngs=nnx.Rngs(0)
    )
    graphdef, params = nnx.split(model, nnx.Param)
    logits_of = jax.jit(training.logits_of, static_argnums=0, static_argnames=('train', 'one_length'))
    keys, lengths = jax.random.split(jax.random.key(0), 3), jnp.array([2, 6, 4])
    mixed = task.examples(keys, lengths, 6)
    options = dict(train=False, position=jax.random.key(1))
    together = logits_of(graphdef, nnx.to_pure_dict(params), mixed, one_length=False, **options)
    for row, (key, length) in enumerate(zip(keys, lengths.tolist(), strict=True)):
        alone = task.examples(key[None], length, length)
        assert alone.valid.sum() == mixed.valid[row].sum()
        if 'randomize' not in position:  # its draws depend on the longest of the batch
            logits = logits_of(graphdef, nnx.to_pure_dict(params), alone, **options)
            np.testing.assert_allclose(together[row, : 2 * length], logits[0], atol=1e-5)
        np.testing.assert_array_equal(mixed.targets[row, : 2 * length], alone.targets[0])


VARIED = {'learning_rate': (1e-2, 1e-3, 1e-3), 'weight_decay': (0.0, 0.1, 0.1), 'dropout_rate': (0.2, 0.0, 0.5)}


@pytest.mark.parametrize('together', [False, True])
def test_each_member_equals_the_same_run_alone(together):
    """To rounding: what varies is an argument of the program, not a constant in it, and products are batched."""
    options = dict(position='randomize(max_position=32)|t5', average=0.9)
    state, means, _ = run([3, 8], seeds=(0, 1, 2), varied=VARIED, options={'together': together}, **options)
    for index in (0, 2):
        own = {name: values[index] for name, values in VARIED.items()}
        alone, mean, _ = run(
            [3, 8],
            seeds=(index,),
            dropout_rate=own.pop('dropout_rate'),
            optimizer=own,
            **options,
        )
        for one, other in zip(
            jax.tree.leaves((state.evaluated, means)), jax.tree.leaves((alone.evaluated, mean)), strict=True
        ):
            np.testing.assert_allclose(one[index], other[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('together', [False, True])
def test_a_member_that_diverges_leaves_the_others_alone(together):
    rates = {'learning_rate': (np.inf, 1e-3)}
    _, means, _ = run([3, 5], seeds=(0, 0), varied=rates, options={'together': together})
    assert np.isfinite(means['loss']).tolist() == [False, True]


@pytest.mark.parametrize('length_per', ['batch', 'example'])
def test_microbatches_make_the_step_of_the_whole_batch(length_per):
    options = dict(position='randomize(max_position=32)|t5', dropout_rate=0.0)
    whole, mean, _ = run([4], options={'length_per': length_per}, **options)
    parts, means, _ = run([4], options={'length_per': length_per, 'microbatches': 4}, **options)
    for one, other in zip(jax.tree.leaves((whole.params, mean)), jax.tree.leaves((parts.params, means)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_mean_of_parameters_lags_behind():
    """By hand, from the parameters after every step."""
    task, state, chunk, keys, varied = start(average=0.5)
    expected = np.asarray(jax.tree.leaves(state.params)[0])
    for step in range(6):
        state, _ = chunk(state, task, keys, step + 1, varied)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * np.asarray(jax.tree.leaves(state.params)[0])
    np.testing.assert_allclose(jax.tree.leaves(state.mean)[0], expected, rtol=1e-5, atol=1e-7)
    assert state.evaluated is state.mean


def test_loss_falls():
    (_, first, _), (_, last, _) = (run(stops, position='rope', dropout_rate=0.0) for stops in ([1], [60, 61]))
    assert last['loss'].item() < 0.8 * first['loss'].item()


def test_seeds_differ():
    one, two = run([1], seeds=(0,))[0], run([1], seeds=(1,))[0]
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))


def test_pooled_readout_trains_single_answers():
    _, means, _ = run([3], task='parity_check', readout='pooled')
    assert np.isfinite(means['loss']).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('position', 'length', 'kernels', 'branches'),
    [('rope', 12, 0, 1), ('t5', 140, 4, 1), ('shaw', 140, 0, 3)],
    ids=['dense', 'flash', 'blockwise'],
)
@pytest.mark.parametrize('seeds', [(0,), (0, 1)], ids=['alone', 'together'])
def test_lowers_for_cuda_without_a_gpu(seeds, position, length, kernels, branches, lower_for_cuda, monkeypatch):
    """One switch over the buckets a step, also of members trained together: the length is theirs in common. The tiles
    of `blockwise` add one in each pass, for those that padding empties."""
    options = dict(lengths=(2, length), buckets=(2, length), options=dict(together=len(seeds) > 1))
    sizes = dict(dim=24, heads=3)  # of no other test: blocks that were traced, here as if for a GPU, are kept
    task, state, chunk, keys, varied = start(seeds=seeds, position=position, **sizes, **options)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(flash, 'probe', lambda *_: (64, None))
    text = lower_for_cuda(chunk, state, task, keys, 3, varied)
    assert text.count('stablehlo.case') == branches
    assert text.count('custom_call @__gpu$xla.gpu.triton') == kernels


def test_purposes_share_no_keys():
    """The numbers are in every run's random keys: they never change."""
    expected = {'WEIGHTS': 0, 'TRAINING': 1, 'EVALUATION': 2, 'LENGTHS': 3}
    assert {purpose.name: purpose.value for purpose in training.Purpose} == expected


def test_metrics_from_sums():
    sums = training.Sums(*map(jnp.float32, (6.0, 3, 8, 2)))
    gradients = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
    found = {name: float(metric(sums, gradients, jnp.array([2, 4]))) for name, metric in training.METRICS.items()}
    assert found == {'loss': 2, 'accuracy': 0.25, 'gradient_norm': 5, 'length': 3}
