"""Lengths drawn by a curriculum against its definition, counted in plain Python."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha.spec import UserError
from mha.training import curricula

KEYS = jax.random.split(jax.random.key(0), 4000)


@functools.cache
def program(text, lengths, steps):
    return jax.jit(jax.vmap(curricula.make(text, lengths, steps).draw, (0, None)))


def drawn(text, lengths=(1, 2, 3, 5, 8), step=0, steps=10_000):
    """The share of each length among many draws at one step, the step traced."""
    found = program(text, tuple(lengths), steps)(KEYS, jnp.int32(step))
    counts = collections.Counter(found.tolist())
    return {length: count / KEYS.size for length, count in sorted(counts.items())}


def close(found, expected):
    """Within five standard errors."""
    errors = {length: (share * (1 - share) / KEYS.size) ** 0.5 for length, share in expected.items()}
    return found.keys() == expected.keys() and all(abs(found[n] - expected[n]) <= 5 * errors[n] for n in expected)


def test_uniform():
    assert close(drawn('uniform'), dict.fromkeys((1, 2, 3, 5, 8), 1 / 5))


@pytest.mark.parametrize(('text', 'length'), [('fixed', 8), ('fixed(3)', 3), ('fixed(length=1)', 1)])
def test_fixed(text, length):
    assert drawn(text, step=9999) == {length: 1.0}
    assert curricula.make(text, (1, 2, 3, 5, 8), 1).lengths == (length,)


@pytest.mark.parametrize('tau', [0.5, 0.9, 1.0])
def test_reverse_exponential(tau):
    lengths = (2, 3, 5, 8)
    total = sum(tau**length for length in lengths)
    assert close(drawn(f'reverse_exponential(tau={tau})', lengths), {n: tau**n / total for n in lengths})


@pytest.mark.parametrize(('tau', 'mean'), [(0.8, 5.0), (0.9, 9.4), (0.95, 14.1)])
def test_reverse_exponential_has_the_known_means(tau, mean):
    shares = drawn(f'reverse_exponential({tau})', range(1, 41))
    assert sum(length * share for length, share in shares.items()) == pytest.approx(mean, abs=0.7)


def test_reverse_exponential_of_long_lengths_does_not_vanish():
    assert drawn('reverse_exponential(0.5)', (5000, 6000)) == {5000: 1.0}


@pytest.mark.parametrize('offset', [-1.5, 0.0, 4.0])
def test_linear(offset):
    lengths = (2, 3, 5, 8)
    total = sum(length + offset for length in lengths)
    assert close(drawn(f'linear(offset={offset})', lengths), {n: (n + offset) / total for n in lengths})


def test_linear_draws_lengths_like_pairs_of_numbers():
    """Shares of lengths as those of the larger of two numbers uniform in 1 .. 8."""
    pairs = collections.Counter(max(a, b) for a in range(1, 9) for b in range(1, 9))
    assert close(drawn('linear(offset=-0.5)', range(1, 9)), {n: pairs[n] / 64 for n in range(1, 9)})


def stages(step, start, amount, every, longest):
    """The lengths so far, one more every so many steps, the last of them the longest."""
    found = [start]
    for done in range(1, step + 1):
        if done % every == 0 and found[-1] < longest:
            found.append(min(found[-1] + amount, longest))
    return found


@pytest.mark.parametrize('step', [0, 9, 10, 29, 30, 59, 60, 70, 500])
@pytest.mark.parametrize(('start', 'amount', 'every', 'longest'), [(1, 1, 10, 6), (3, 4, 10, 13), (2, 3, 30, 10)])
def test_regular_increase(step, start, amount, every, longest):
    lengths, arguments = range(1, longest + 1), f'start={start}, amount={amount}, every={every}'
    so_far = stages(step, start, amount, every, longest)
    shares = drawn(f'regular_increase({arguments})', lengths, step)
    assert close(shares, dict.fromkeys(so_far, 1 / len(so_far)))
    assert drawn(f'regular_increase({arguments}, sample_all=False)', lengths, step) == {so_far[-1]: 1.0}
    assert curricula.make(f'regular_increase({arguments})', tuple(lengths), step + 1).lengths == tuple(so_far)


def test_regular_increase_over_chosen_lengths():
    assert drawn('regular_increase(10, 10, 5)', (5, 10, 20, 30), step=7).keys() == {10, 20}
    assert drawn('regular_increase(start=30, every=1)', (5, 10, 20, 30), step=7) == {30: 1.0}


def test_lengths_of_a_run_are_those_that_it_can_meet():
    for steps, met in {
        1: (1,),
        1000: (1,),
        1001: (1, 2),
        10_000: tuple(range(1, 11)),
        10**6: tuple(range(1, 41)),
    }.items():
        assert curricula.make('regular_increase', tuple(range(1, 41)), steps).lengths == met


@pytest.mark.parametrize('text', ['uniform', 'reverse_exponential', 'linear', 'regular_increase(every=2)'])
def test_draws_do_not_depend_on_how_long_the_run_is(text):
    short, long = (curricula.make(text, tuple(range(1, 21)), steps) for steps in (12, 100))
    steps = jnp.arange(12)
    np.testing.assert_array_equal(*(jax.jit(jax.vmap(each.draw))(KEYS[:12], steps) for each in (short, long)))


def test_steps_beyond_a_counter():
    assert drawn('regular_increase(every=2147483647)', step=9999) == {1: 1.0}


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('unifrom', "unknown curriculum 'unifrom' - did you mean 'uniform'"),
        ('make', 'choices: fixed, linear, regular_increase, reverse_exponential, uniform'),
        ('uniform|fixed', 'curricula do not compose'),
        ('uniform(2)', 'too many arguments, it is uniform()'),
        ('fixed(4)', 'length must be one of train.lengths, not 4'),
        ('fixed(2.0)', 'length must be a whole number or None, not 2.0'),
        ('reverse_exponential(0)', 'tau must be above 0 and at most 1, not 0.0'),
        ('reverse_exponential(tau=1.5)', 'tau must be above 0 and at most 1, not 1.5'),
        ('reverse_exponential(tau=True)', 'tau must be a number, not True'),
        ('reverse_exponential(tua=0.5)', "did you mean 'tau'"),
        ('linear(-1)', 'offset must be above -1, minus the shortest length, not -1'),
        ('regular_increase(amount=0)', 'amount must be at least 1, not 0'),
        ('regular_increase(every=0)', 'every must be at least 1, not 0'),
        ('regular_increase(start=4)', 'start must be one of train.lengths, not 4'),
        ('regular_increase(start=9)', 'start must be one of train.lengths, not 9'),
        ('regular_increase', 'start=1 and amount=1 lead to length 4, not one of train.lengths'),
        ('regular_increase(sample_all=1)', 'sample_all must be True or False, not 1'),
    ],
)
def test_mistakes_are_one_line(text, words):
    with pytest.raises(UserError) as raised:
        curricula.make(text, (1, 2, 3, 5, 8), 10_000)
    assert words in str(raised.value)
    assert '\n' not in str(raised.value)
