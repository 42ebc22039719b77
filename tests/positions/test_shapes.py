"""What a scheme's file may get wrong: it is told with scheme and hook, and the others still work."""

import importlib

import jax.numpy as jnp
import pytest
from flax import nnx

from mha import positions, spec
from mha.positions import Dims, Position
from mha.views.catalogue import schemes

DIMS = Dims(16, 2, 8, max_len=8)


class Flat(Position):
    def bias(self, q_pos, k_pos):
        return jnp.zeros((q_pos.shape[1], k_pos.shape[1] + 1))


class Wide(Position):
    def embed(self, x, pos):
        return jnp.concatenate([x, x], -1)


class Lost(Position):
    def qk(self, q, k, coords):
        return q[:, :, 0], k


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        (Flat, r'bias gives the shape \(3, 4\) where it must be \(any, 2, 3, 3\)'),
        (Wide, r'embed gives the shape \(2, 3, 32\) where it must be \(2, 3, 16\)'),
        (Lost, r'qk gives the shape \(2, 3, 8\) where it must be \(2, 3, 2, any\)'),
    ],
)
def test_a_wrong_shape_is_told_with_scheme_and_hook(kind, words):
    scheme = kind(DIMS, rngs=nnx.Rngs(0))
    for each in scheme, positions.Chain([Position(DIMS, rngs=nnx.Rngs(0)), scheme], 'none|x'):
        with pytest.raises(spec.UserError, match=f"position scheme 'test_shapes': {words}"):
            positions.check_shapes(each, DIMS)


@pytest.mark.parametrize('text', [*map(positions.example, positions.names()), 'randomize_offsets|t5'])
def test_the_schemes_have_the_shapes_of_the_protocol(text):
    entry = schemes.look(text, DIMS)
    positions.check_shapes(entry.scheme, entry.dims)


@pytest.mark.parametrize('inner', ['alibi', 't5', 'txl', 'kerple', 'sandwich'])
def test_what_draws_when_placed_is_not_asked_before(inner):
    positions.check_shapes(positions.make(f'randomize_offsets(max_position=8)|{inner}', DIMS, rngs=nnx.Rngs(0)), DIMS)


def test_a_broken_file_leaves_the_others_listed(monkeypatch):
    load = importlib.import_module

    def broken(name, *rest):
        if name == 'mha.positions.alibi':
            raise SyntaxError('invalid syntax', ('mha/positions/alibi.py', 3, 1, ''))
        return load(name, *rest)

    monkeypatch.setattr(importlib, 'import_module', broken)
    lines = schemes.table().splitlines()
    assert (
        lines[-1] == "broken: position scheme 'alibi' cannot be loaded: SyntaxError in alibi.py, line 3: invalid syntax"
    )
    assert any('rope' in line for line in lines)
