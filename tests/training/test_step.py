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

POSITION = 'randomize(max_position=32)|t5'
AVERAGE = 0.3
"""So small that the running mean soon decays by it."""
VARIED = {'learning_rate': (1e-2, 1e-3, 1e-3), 'weight_decay': (0.0, 0.1, 0.1), 'dropout_rate': (0.2, 0.0, 0.5)}
# Settings of several tests. Gradients are compiled per bucket: one, where they are not what is tested.
POPULATION = dict(position=POSITION, buckets=(6,), average=AVERAGE, options={'together': False})
PLAIN = dict(position=POSITION, buckets=(6,), dropout_rate=0.0)
LEARNING = dict(position='rope', dropout_rate=0.0)
CHUNKS = {}
"""Compiled chunks by settings, number of members and names of what varies: equal ones share one program."""


def start(seeds=(0,), varied=None, **options):
    """The arguments of a chunk, one member per seed, and the chunk."""
    varied = varied or {}
    if (settings := repr((len(seeds), sorted(varied), sorted(options.items())))) not in CHUNKS:
        CHUNKS[settings] = make_chunk(**options)
    task, make_model, init, chunk = CHUNKS[settings]
    params = [nnx.to_pure_dict(nnx.state(make_model(seed), nnx.Param)) for seed in seeds]
    state = init(jax.tree.map(lambda *leaves: jnp.stack(leaves), *params))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return task, state, chunk, keys, {name: jnp.array(values) for name, values in varied.items()}


def make_chunk(
    position=POSITION,
    task='bucket_sort',
    lengths=(2, 3, 6),
    buckets=(3, 6),
    curriculum='uniform',
    average=0.0,
    dropout_rate=0.1,
    optimizer=None,
    options=None,
    **model,
):
    """A task, the model of a seed and the first state of parameters as functions, and the chunk that trains them."""
    task = tasks.make(task)
    sizes = dict(vocab_size=task.vocab_size, num_classes=task.num_classes, max_len=task.num_tokens(max(lengths)))
    settings = {'layers': 1, 'dim': 16, 'heads': 2, 'position': position, 'dropout_rate': dropout_rate, **model}

    def make_model(seed):
        return Encoder(**sizes, **settings, rngs=nnx.Rngs(seed))

    def make_optimizer(**numbers):
        return optim.make(100, **{'learning_rate': 3e-3, **(optimizer or {}), **numbers})

    chunk = training.Chunk(
        nnx.split(make_model(0), nnx.Param)[0],
        make_optimizer,
        curriculum=curricula.make(curriculum, lengths, steps=100),
        buckets=buckets,
        batch_size=16,
        average=average,
        **(options or {}),
    ).compiled()
    return task, make_model, lambda params: training.init(params, make_optimizer(), average), chunk


def run(stops, **options):
    task, state, chunk, keys, varied = start(**options)
    for stop in stops:
        state, means = chunk(state, task, keys, stop, varied)
    return state, means, chunk


@pytest.mark.parametrize('position', [POSITION, pytest.param('learned', marks=pytest.mark.slow)])
def test_two_chunks_equal_one_bit_for_bit(position):
    halves, _, _ = run([2, 6], position=position)
    whole, _, _ = run([6], position=position)
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
    _, _, chunk = run([1, 5, 12, 30], position=POSITION)
    assert chunk._cache_size() == 1


def test_program_holds_one_update_per_bucket():
    for options in {}, {'seeds': (0, 1), 'options': {'together': True}}:
        sizes = dict(position='none', lengths=tuple(range(1, 11)), buckets=(2, 5, 10))
        task, state, chunk, keys, varied = start(**sizes, **options)
        program = jax.make_jaxpr(chunk)(state, task, keys, 1, varied).jaxpr
        (switch,) = [eqn for eqn in equations(program) if 'branches' in eqn.params]
        assert len(switch.params['branches']) == 3


def test_as_many_updates_as_steps():
    state, _, _ = run([7], position=POSITION)
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
    """Under any scheme and any settings."""
    met = lengths_met(range(1, 9), seeds=(3, 4, 5), varied=VARIED, **POPULATION)
    assert all(len({*lengths}) == 1 for lengths in met)
    assert len({first for first, *_ in met}) == 3
    assert met == lengths_met(range(1, 9), seeds=(6, 7, 8), varied=VARIED, **POPULATION)
    assert [[first] for first, *_ in met] == lengths_met(range(1, 9), seeds=(9,), **LEARNING)


def test_one_program_follows_a_curriculum():
    growing = 'regular_increase(start=1, amount=2, every=2, sample_all=False)'
    met = lengths_met(range(1, 8), position='none', lengths=(1, 3, 5), buckets=(5,), curriculum=growing)
    assert met == [[1], [1], [3], [3], [5], [5], [5]]


def test_each_example_may_draw_its_length():
    means = np.array(lengths_met(range(1, 41), options={'length_per': 'example'}, **PLAIN))
    assert len(np.unique(means)) > 10  # of 16 examples, not of one draw
    assert means.mean() == pytest.approx(11 / 3, abs=0.2)


@pytest.mark.parametrize('position', ['cape|sincos', 'pose(target_length=16)|rope'])
def test_padding_of_other_examples_changes_nothing(position):
    """A batch of mixed lengths is as good as its examples alone."""
    task = tasks.make('reverse_string')
    model = Encoder(
        vocab_size=3, num_classes=2, max_len=32, layers=1, dim=16, heads=2, position=position, rngs=nnx.Rngs(0)
    )
    graphdef, params = nnx.split(model, nnx.Param)
    logits_of = jax.jit(training.logits_of, static_argnums=0, static_argnames=('train', 'one_length'))
    keys, lengths = jax.random.split(jax.random.key(0), 3), jnp.array([2, 6, 2])
    examples = jax.jit(task.examples, static_argnums=2)
    mixed = examples(keys, lengths, 6)
    options = dict(train=False, position=jax.random.key(1))
    together = logits_of(graphdef, nnx.to_pure_dict(params), mixed, one_length=False, **options)
    for row, (key, length) in enumerate(zip(keys, lengths.tolist(), strict=True)):
        alone = examples(key[None], length, length)
        assert alone.valid.sum() == mixed.valid[row].sum()
        logits = logits_of(graphdef, nnx.to_pure_dict(params), alone, **options)
        np.testing.assert_allclose(together[row, : 2 * length], logits[0], atol=1e-5)
        np.testing.assert_array_equal(mixed.targets[row, : 2 * length], alone.targets[0])


def alone_as(index, **options):
    """The member of that number in `VARIED` as a run of its own, with its settings as constants."""
    own = {name: values[index] for name, values in VARIED.items()}
    return dict(seeds=(index,), dropout_rate=own.pop('dropout_rate'), optimizer=own, **options)


@pytest.mark.parametrize('together', [False, True])
@pytest.mark.parametrize('buckets', [(6,), pytest.param((3, 6), marks=pytest.mark.slow)], ids=['one', 'two'])
def test_each_member_equals_the_same_run_alone(buckets, together):
    """To rounding: what varies is an argument of the program, not a constant in it, and products are batched."""
    options = {**POPULATION, 'buckets': buckets}
    state, means, _ = run([3, 8], seeds=(0, 1, 2), varied=VARIED, **{**options, 'options': {'together': together}})
    options.pop('options')
    for index in (0, 2):
        alone, mean, _ = run([3, 8], **alone_as(index, **options))
        for one, other in zip(
            jax.tree.leaves((state.evaluated, means)), jax.tree.leaves((alone.evaluated, mean)), strict=True
        ):
            np.testing.assert_allclose(one[index], other[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('together', [False, True])
def test_a_member_that_diverges_leaves_the_others_alone(together):
    varied = {**VARIED, 'learning_rate': (np.inf, 1e-3, 1e-3)}
    options = {**POPULATION, 'options': {'together': together}}
    _, means, _ = run([3, 5], seeds=(0, 0, 0), varied=varied, **options)
    assert np.isfinite(means['loss']).tolist() == [False, True, True]


def faulty(monkeypatch):
    """Lengths of eight steps; makes the gradient norm of those at length 6 infinite."""
    lengths = [first for first, *_ in lengths_met(range(1, 9), position=POSITION)]
    norm = training.METRICS['gradient_norm']

    def patched(sums, grads, length):
        return jnp.where(length.max() == 6, jnp.inf, norm(sums, grads, length))

    monkeypatch.setitem(training.METRICS, 'gradient_norm', patched)
    return lengths


def test_the_first_fault_is_told(monkeypatch):
    lengths = faulty(monkeypatch)
    settings = dict(position='none', average=0.5)  # of no other test
    _, means, _ = run([8], **settings)
    assert means['fault']['step'].tolist() == [lengths.index(6) + 1]
    assert means['fault']['gradient_norm'].tolist() == [np.inf]
    assert np.isfinite(means['fault']['loss']).all()
    _, means, _ = run([lengths.index(6)], **settings)
    assert means['fault']['step'].tolist() == [0]


@pytest.mark.parametrize('seeds', [(0,), (0, 1)])
def test_faults_are_skipped(seeds, monkeypatch):
    """Such a step changes nothing but the number of steps, and counts in no mean."""
    lengths = faulty(monkeypatch)
    settings = dict(position='none', seeds=seeds, options={'non_finite': 'skip'})
    state, means, _ = run([8], **settings)
    assert int(state.step) == 8
    assert means['skipped_steps'].tolist() == [lengths.count(6)] * len(seeds)
    good = [length for length in lengths if length != 6]
    np.testing.assert_allclose(means['length'], np.mean(good), rtol=1e-6)
    assert np.isfinite(means['loss']).all()
    counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert all((leaf == len(good)).all() for leaf in counts)
    at = lengths.index(6)
    before, _, _ = run([at], **settings)
    after, means, _ = run([at, at + 1], **settings)
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    assert np.isnan(means['loss']).all()  # of a chunk without a good step


@pytest.mark.parametrize('length_per', ['batch', 'example'])
def test_microbatches_make_the_step_of_the_whole_batch(length_per):
    whole, mean, _ = run([4], options={'length_per': length_per}, **PLAIN)
    parts, means, _ = run([4], options={'length_per': length_per, 'microbatches': 4}, **PLAIN)
    for one, other in zip(jax.tree.leaves((whole.params, mean)), jax.tree.leaves((parts.params, means)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_mean_of_parameters_lags_behind():
    """By hand, from the parameters after every step."""
    task, state, chunk, keys, varied = start(**alone_as(0, position=POSITION, buckets=(6,), average=AVERAGE))
    expected = np.asarray(jax.tree.leaves(state.params)[0])
    for step in range(6):
        state, _ = chunk(state, task, keys, step + 1, varied)
        decay = min(AVERAGE, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * np.asarray(jax.tree.leaves(state.params)[0])
    np.testing.assert_allclose(jax.tree.leaves(state.mean)[0], expected, rtol=1e-5, atol=1e-7)
    assert state.evaluated is state.mean


def test_loss_falls():
    (_, first, _), (_, last, _) = (run(stops, **LEARNING) for stops in ([1], [60, 61]))
    assert last['loss'].item() < 0.8 * first['loss'].item()


def test_seeds_differ():
    one, two = (run([1], seeds=(seed,), position=POSITION)[0] for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))


def test_pooled_readout_trains_single_answers():
    _, means, _ = run([3], task='parity_check', position='none', buckets=(6,), readout='pooled')
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
