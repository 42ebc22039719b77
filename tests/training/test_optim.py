"""Optimisers and schedules by spec: against plain optax, over learning rates in one program, and the mistakes named."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mha.model.encoder import Encoder
from mha.spec import UserError
from mha.training import optim

STEPS = 20


def encoder_params(position='t5'):
    sizes = dict(vocab_size=5, num_classes=3, max_len=8, layers=1, dim=8, heads=2, mlp_dim=12)
    model = Encoder(**sizes, position=position, use_bias=True, rngs=nnx.Rngs(0))
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


PARAMS = jax.jit(encoder_params)()
BLOCK = PARAMS['blocks'][0]
PART = {
    'head': PARAMS['head'],
    'blocks': {0: {'up': BLOCK['up'], 'attention': {name: BLOCK['attention'][name] for name in ('query', 'out')}}},
}
"""One parameter of every kind, to compile less."""
CONSTANT = optax.constant_schedule(1e-3)
SCALES = jnp.array([0.01, 1.0, 0.01, 1.0])
"""Of the gradients of a few steps: like those of a run, some beyond the norm that clips, some below."""


def trained(optimizer, steps=4):
    """Parameters and state after so many updates."""
    rng = np.random.default_rng(0)
    noise = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal((steps, *p.shape)), p.dtype), PART)

    def step(carry, grads):
        params, state = carry
        grads, scale = grads
        updates, state = optimizer.update(jax.tree.map(lambda g: scale * g, grads), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (PART, optimizer.init(PART)), (noise, SCALES[:steps]))[0]


def rates(schedule, steps=STEPS, learning_rate=1.0):
    """What plain gradient descent moves a parameter by at each step of a run, for a gradient of 1."""
    optimizer = optim.make(steps, 'sgd', learning_rate, schedule, clip_norm=0.0)

    def step(state, _):
        updates, state = optimizer.update(jnp.ones(()), state, jnp.ones(()))
        return state, -updates

    return np.asarray(jax.jit(lambda: jax.lax.scan(step, optimizer.init(jnp.ones(())), None, steps)[1])())


# --- optimisers ------------------------------------------------------------------------------------------------------


def clipped(rate_of, optimizer, clip=1.0):
    return optax.chain(optax.clip_by_global_norm(clip), optimizer(rate_of))


def warm_cosine(lr):
    return optax.join_schedules([optax.linear_schedule(0.0, lr, 5), optax.cosine_decay_schedule(lr, STEPS - 5)], [5])


def matrices():
    """The axes of every matrix of `PART`; None for the other parameters."""
    dims = optax.contrib.MuonDimensionNumbers
    axes = jax.tree.map(lambda _: None, PART)
    block = axes['blocks'][0]
    block['up']['kernel'] = dims((0,), (1,))
    block['attention']['query']['kernel'] = dims((0,), (1, 2))
    block['attention']['out']['kernel'] = dims((0, 1), (2,))
    return axes


DISTINCT = ('adam', 'lion', 'muon', 'sgd', 'sgd(momentum=0.9)')
PLAIN = {
    'default': ({}, lambda: clipped(CONSTANT, optax.adam)),
    'cosine': (
        dict(learning_rate=2e-3, schedule='cosine'),
        lambda: clipped(optax.cosine_decay_schedule(2e-3, STEPS), optax.adam),
    ),
    'warm-up': (dict(schedule='warmup(steps=5)|cosine'), lambda: clipped(warm_cosine(1e-3), optax.adam)),
    'decay': (dict(weight_decay=0.1), lambda: clipped(CONSTANT, lambda lr: optax.adamw(lr, weight_decay=0.1))),
    'adamw': (
        dict(name='adamw(b2=0.98, eps=1e-6)', weight_decay=0.1, clip_norm=0.5),
        lambda: clipped(CONSTANT, lambda lr: optax.adamw(lr, b2=0.98, eps=1e-6, weight_decay=0.1), 0.5),
    ),
    'lion': (
        dict(name='lion', weight_decay=0.1),
        lambda: clipped(CONSTANT, lambda lr: optax.lion(lr, weight_decay=0.1)),
    ),
    'sgd': (dict(name='sgd(0.9, nesterov=True)'), lambda: clipped(CONSTANT, lambda lr: optax.sgd(lr, 0.9, True))),
    'no clipping': (dict(name='sgd', clip_norm=0.0), lambda: optax.sgd(CONSTANT)),
    'muon': (
        dict(name='muon(beta=0.9)', weight_decay=0.1),
        lambda: clipped(
            CONSTANT,
            lambda lr: optax.contrib.muon(
                lr,
                beta=0.9,
                weight_decay=0.1,
                adam_weight_decay=0.1,
                consistent_rms=0.2,
                muon_weight_dimension_numbers=matrices(),
            ),
        ),
    ),
}


@pytest.mark.parametrize('case', PLAIN)
def test_updates_are_those_of_plain_optax_bit_for_bit(case):
    options, plain = PLAIN[case]
    got, expected = (jax.jit(trained, static_argnums=0)(each)[0] for each in (optim.make(STEPS, **options), plain()))
    for (path, leaf), same in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(leaf, same, err_msg=jax.tree_util.keystr(path))
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize('name', DISTINCT)
def test_learning_rates_and_decays_in_one_program(name):
    """A population: values are traced, and every member is trained as if alone."""
    schedule = 'warmup(steps=2)|rsqrt'

    def member(learning_rate, weight_decay):
        optimizer = optim.make(STEPS, name, learning_rate, schedule, weight_decay)
        return trained(optimizer, 3)

    values = [(1e-3, 0.0), (0.2, 0.5)]
    together = jax.jit(jax.vmap(member))(*jnp.array(values).T)
    for i, (learning_rate, weight_decay) in enumerate(values):
        alone = jax.jit(lambda pair=(learning_rate, weight_decay): member(*pair))()
        assert jax.tree.structure(alone) == jax.tree.structure(together)
        for one, all_ in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(all_[i], one, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize('name', DISTINCT)
def test_state_does_not_depend_on_the_numbers(name):
    plain, other = (
        jax.eval_shape(optim.make(STEPS, name, *numbers).init, PARAMS)
        for numbers in ((1e-3, 'constant', 0.0, 0.0), (1.0, 'cosine', 0.1, 2.0))
    )
    assert plain == other


@pytest.mark.parametrize('name', DISTINCT)
def test_decay_is_decoupled(name):
    """Without a gradient, nothing but the decay moves a parameter: by the learning rate times its share."""
    optimizer = optim.make(STEPS, name, 0.5, weight_decay=0.1)
    zeros = jax.tree.map(jnp.zeros_like, PART)
    updates = jax.jit(lambda: optimizer.update(zeros, optimizer.init(PART), PART)[0])()
    for update, p in zip(jax.tree.leaves(updates), jax.tree.leaves(PART), strict=True):
        np.testing.assert_allclose(update, -0.05 * p, rtol=1e-5, atol=1e-8)


def test_muon_orthogonalises_the_matrices_of_the_blocks_alone():
    """Their updates have singular values near 0.2 sqrt(max(m, n)); the others the signs that Adam starts with."""
    optimizer = optim.make(STEPS, 'muon', 1.0, clip_norm=0.0)
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), PARAMS)
    updates, state = jax.jit(lambda: optimizer.update(grads, optimizer.init(PARAMS), PARAMS))()
    attention, up = updates['blocks'][0]['attention'], updates['blocks'][0]['up']['kernel']
    for matrix in (attention['query']['kernel'].reshape(8, -1), attention['out']['kernel'].reshape(-1, 8), up):
        singular = np.linalg.svd(matrix, compute_uv=False) / (0.2 * max(matrix.shape) ** 0.5)
        assert singular.min() > 0.5
        assert singular.max() < 1.3
    for adam in (
        lambda tree: tree['embedding'],
        lambda tree: tree['head'],
        lambda tree: tree['positions'],
        lambda tree: tree['blocks'][0]['up']['bias'],
    ):
        for update, g in zip(jax.tree.leaves(adam(updates)), jax.tree.leaves(adam(grads)), strict=True):
            np.testing.assert_array_equal(np.sign(update), -np.sign(g))
            np.testing.assert_allclose(np.abs(update), np.abs(update).max(), rtol=1e-2)
    second_moments = [path for path, _ in jax.tree.leaves_with_path(state) if '.nu' in jax.tree_util.keystr(path)]
    assert len(second_moments) == len(jax.tree.leaves(PARAMS)) - 6


@pytest.mark.parametrize('position', ['cpb', 'dape', 'txl', 'none'])
def test_muon_takes_the_parameters_of_schemes(position):
    params = jax.eval_shape(lambda: encoder_params(position))
    optimizer = optim.make(STEPS, 'muon')
    moved = jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p)[0], params)
    assert moved == params


# --- schedules -------------------------------------------------------------------------------------------------------

T = np.arange(STEPS)
RATES = {
    'constant': T * 0 + 1.0,
    'linear': 1 - T / STEPS,
    'linear(final=0.2)': 1 - 0.8 * T / STEPS,
    'cosine': (1 + np.cos(np.pi * T / STEPS)) / 2,
    'cosine(final=0.1)': 0.1 + 0.9 * (1 + np.cos(np.pi * T / STEPS)) / 2,
    'rsqrt': np.maximum(T, 1) ** -0.5,
    'rsqrt(timescale=4)': (4 / np.maximum(T, 4)) ** 0.5,
    'warmup(5)|constant': np.minimum(T / 5, 1),
    'warmup(steps=5)|linear': np.where(T < 5, T / 5, 1 - (T - 5) / 15),
    'warmup(steps=5)|cosine(final=0.1)': np.where(T < 5, T / 5, 0.1 + 0.45 * (1 + np.cos(np.pi * (T - 5) / 15))),
    # Vaswani et al. (2017), section 5.3: proportional to min(t^-0.5, t warm^-1.5), here 1 at its height
    'warmup(steps=5)|rsqrt': 5**0.5 * np.minimum(np.maximum(T, 1) ** -0.5, T * 5**-1.5),
    'warmup(steps=5)|rsqrt(timescale=8)': np.where(T < 5, T / 5, (8 / np.maximum(T, 8)) ** 0.5),
}


@pytest.mark.parametrize('schedule', RATES)
def test_schedule(schedule):
    np.testing.assert_allclose(rates(schedule), RATES[schedule], atol=1e-6)
    np.testing.assert_allclose(rates(schedule, learning_rate=0.02), 0.02 * RATES[schedule], atol=1e-7)


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(name='adm'), "unknown optimizer 'adm' - did you mean 'adam'\\? \\(choices: adam, adamw, lion, muon, sgd"),
        (dict(name='adam(b3=0.9)'), "unknown argument of optimizer 'adam': 'b3' .*choices: b1, b2, eps"),
        (dict(name='adam(b2=1.0)'), 'b2 must be at least 0 and below 1, not 1.0'),
        (dict(name='muon(ns_steps=0)'), 'ns_steps must be at least 1, not 0'),
        (dict(name='muon(ns_steps=1000)'), 'ns_steps must be at most 100, not 1000'),
        (dict(name='adam(eps=-1)'), 'eps must be above 0 and at most 1, not -1.0'),
        (dict(name='adam(eps=0)'), 'eps must be above 0 and at most 1, not 0.0'),
        (dict(name='adam|sgd'), 'optimizers do not compose'),
        (
            dict(schedule='cosin'),
            "did you mean 'cosine'\\? \\(choices: constant, cosine, linear, rsqrt, warmup\\)",
        ),
        (dict(schedule='cosine(final=2)'), 'final must be from 0 to 1, not 2'),
        (dict(schedule='warmup(steps=20)|cosine'), 'steps must be at least 1 and below train.steps=20, not 20'),
        (dict(schedule='warmup(steps=0)|cosine'), 'steps must be at least 1'),
        (dict(schedule='warmup|cosine'), "schedule 'warmup' needs 'steps'"),
        (dict(schedule='warmup(steps=5)'), 'constant, cosine, linear, rsqrt, with at most a warm-up before it'),
        (dict(schedule='cosine|linear'), 'with at most a warm-up before it'),
        (dict(schedule='cosine|warmup(steps=5)'), 'with at most a warm-up before it'),
        (dict(schedule='warmup(steps=5)|warmup(steps=5)'), 'with at most a warm-up before it'),
        (dict(schedule='rsqrt(timescale=0)'), 'timescale must be at least 1, not 0'),
        (
            dict(schedule='warmup(5)|rsqrt(timescale=4)'),
            'timescale must be at least 5, the steps of the warm-up, not 4',
        ),
        (dict(learning_rate=0.0), r'learning_rate must be from 1e-30 to 1e\+30, not 0.0'),
        (dict(learning_rate=float('nan')), 'learning_rate must be from .*, not nan'),
        (dict(learning_rate=1e39), 'learning_rate must be from .*, not 1e'),
        (dict(weight_decay=-0.1), r'weight_decay must be 0, or from 1e-30 to 1e\+30, not -0.1'),
        (dict(clip_norm=-1.0), 'clip_norm must be 0, or from'),
    ],
    ids=str,
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        optim.make(STEPS, **options)
    assert len(str(error.value).splitlines()) == 1


def test_spec_mistakes_are_user_errors():
    for options in (dict(name='adm'), dict(schedule='cosin'), dict(name='adam(b2=1.0)'), dict(schedule='cosine|')):
        with pytest.raises(UserError):
            optim.make(STEPS, **options)
