"""Properties of all schemes that replace coordinates: padding, order, training against evaluation."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha import spec as spec_module
from mha.positions import Dims, Position

TRAIN_ONLY = {'shape', 'cape', 'pose', 'equal_mean', 'abacus', 'coupling'}
"""Schemes that change coordinates in training but not in evaluation."""
ALWAYS = {'randomize', 'rfs'}
"""Schemes that draw in both."""
GIVEN = {'abacus', 'coupling'}
"""Schemes whose coordinates come from the caller and need not increase."""
LENGTH, REAL = 12, 8


@functools.cache
def make(spec):
    return positions.make(spec, Dims(16, 2, 8, max_len=24), rngs=nnx.Rngs(0))


def remaps(name):
    """Whether the scheme's class has a `remap` of its own; nothing is built, since every worker asks."""
    return spec_module.load(positions, name, Position, 'scheme').remap is not Position.remap


SPECS = tuple(positions.example(name) for name in positions.names() if remaps(name))


@functools.cache
def compiled(spec, train):
    return jax.jit(lambda pos, valid, key: make(spec).remap(pos, valid=valid, key=key, train=train))


@functools.cache
def remapped(spec, train, seed, real=LENGTH, left=False, length=LENGTH):
    """New coordinates of two rows, the first with padding."""
    valid = np.ones((2, length), bool)
    valid[0] = np.arange(length) >= length - real if left else np.arange(length) < real
    out = compiled(spec, train)(np.cumsum(valid, -1, dtype=np.int32) - 1, valid, jax.random.key(seed))
    return np.broadcast_to(np.asarray(out, np.float64), (2, length))


@pytest.mark.parametrize('spec', SPECS)
def test_training_and_evaluation(spec):
    name = spec.split('(')[0]
    varies = {train: np.any(remapped(spec, train, 0) != remapped(spec, train, 1)) for train in (True, False)}
    assert varies == {True: name in TRAIN_ONLY | ALWAYS, False: name in ALWAYS}


@pytest.mark.parametrize('spec', SPECS)
@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('left', [False, True], ids=['right', 'left'])
def test_padding_changes_nothing(spec, train, left):
    padded, short = remapped(spec, train, 0, REAL, left), remapped(spec, train, 0, REAL, length=REAL)
    real = padded[0, LENGTH - REAL :] if left else padded[0, :REAL]
    np.testing.assert_allclose(real, short[0], rtol=1e-6)


@pytest.mark.parametrize('spec', SPECS)
def test_tokens_stay_in_order_and_apart(spec):
    if spec.split('(')[0] in GIVEN:
        pytest.skip('coordinates from the caller')
    for seed in range(20):
        assert (np.diff(remapped(spec, True, seed)) > 0).all()


@pytest.mark.parametrize('spec', SPECS)
def test_extent_holds(spec):
    """A table sized by `extent` has a row for every coordinate of a sequence."""
    extent = make(spec).extent(LENGTH)
    for seed in range(20):
        assert np.ceil(remapped(spec, True, seed)[1]).max() < extent
