"""Specs become schemes: composition, what each part sees, extents, and mistakes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import HOOKS, Coords, Dims
from mha.spec import UserError

DIMS = Dims(dim=16, heads=2, head_dim=8, max_len=12)
POS = jnp.arange(6)[None]


def make(text, dims=DIMS, seed=0):
    return positions.make(text, dims, rngs=nnx.Rngs(seed))


def attention(length=6):
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((2, length, 2, 8)), jnp.float32) for _ in range(2))
    x = jnp.asarray(rng.standard_normal((2, length, 16)), jnp.float32)
    pos = jnp.arange(length)[None]
    return q, k, x, Coords(q_pos=pos, k_pos=pos, visible=jnp.full((1, length), length), x=x)


@pytest.mark.parametrize('name', positions.names())
def test_one_scheme_is_not_a_chain(name):
    scheme = make(positions.example(name), dataclasses.replace(DIMS, causal=True))
    assert not isinstance(scheme, positions.Chain)
    assert type(scheme).__module__ == f'mha.positions.{name}'
    assert any(scheme.overrides(hook) for hook in HOOKS) is (name not in ('none', 'randomize_offsets', 'heads'))


def test_biases_add():
    both, alibi, t5 = make('alibi|t5'), make('alibi'), make('t5')
    both.parts[1].table[...] = t5.table[...] = jax.random.normal(jax.random.key(0), (32, 2))
    np.testing.assert_allclose(both.bias(POS, POS), alibi.bias(POS, POS) + t5.bias(POS, POS), atol=1e-6)
    assert make('rope|sincos').bias(POS, POS) is None
    q, k, _, _ = attention()
    assert make('rope|sincos').content(q, k, POS, POS) is None


def test_embeddings_add():
    _, _, x, _ = attention()
    both, sincos, learned = make('sincos|learned'), make('sincos'), make('learned')
    learned.table[...] = both.parts[1].table[...]
    np.testing.assert_allclose(both.embed(x, POS), learned.embed(sincos.embed(x, POS), POS), atol=1e-6)


def test_queries_and_keys_pass_through_from_left_to_right():
    q, k, _, coords = attention()
    chain, txl = make("rope|txl(form='channels')"), make("txl(form='channels')")
    nnx.update(txl, nnx.state(chain.parts[1]))
    expected = txl.qk(*make('rope').qk(q, k, coords), coords)
    for found, wanted in zip(chain.qk(q, k, coords), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize('text', ['rope', 'sincos|t5', 'randomize(max_position=64)|learned', 'none|none'])
def test_overrides_is_what_any_part_does(text):
    scheme = make(text)
    parts = list(getattr(scheme, 'parts', [scheme]))
    for hook in HOOKS:
        assert scheme.overrides(hook) is any(part.overrides(hook) for part in parts)


@pytest.mark.parametrize(
    ('text', 'extent'),
    [
        ('rope', 12),
        ('learned', 12),
        ('randomize(max_position=64)', 64),
        ('randomize(max_position=64)|learned', 64),
        ('none|randomize(max_position=64)|learned(max_position=64)', 64),
    ],
)
def test_extent(text, extent):
    assert make(text).extent(12) == extent


def test_a_table_grows_with_the_range_of_what_comes_before():
    assert make('learned').table.shape == (12, 16)
    assert make('randomize(max_position=64)|learned').parts[1].table.shape == (64, 16)
    assert make('randomize(max_position=64)|learned(max_position=100)').parts[1].table.shape == (100, 16)


def test_a_remap_after_the_table_that_reads_it_is_refused_or_served():
    """All remaps run before any embedding, wherever they stand: the table must hold their range."""
    try:
        scheme = make('learned|randomize(max_position=64)')
    except UserError:
        return
    pos = scheme.remap(jnp.arange(12)[None], key=jax.random.key(0))
    assert np.isfinite(scheme.embed(jnp.zeros((1, 12, 16)), pos)).all()


def test_two_remaps_are_refused_or_keep_positions_distinct():
    try:
        scheme = make('randomize(max_position=64)|randomize(max_position=128)')
    except UserError:
        return
    drawn = scheme.remap(jnp.arange(12)[None], key=jax.random.key(0))
    assert len(np.unique(drawn)) == 12


def test_parts_draw_from_keys_of_their_own():
    chain = make('none|randomize(max_position=64)')
    key = jax.random.key(3)
    expected = make('randomize(max_position=64)').remap(POS, key=jax.random.fold_in(key, 1))
    np.testing.assert_array_equal(chain.remap(POS, key=key), expected)


def test_remap_passes_its_arguments_on():
    chain = make("randomize(max_position=64, test='linspace')|none")
    spaced = chain.remap(POS)
    np.testing.assert_array_equal(spaced[0], np.round(np.arange(6) * 63 / 5))
    drawn = chain.remap(POS, key=jax.random.key(0), train=True)
    assert not np.array_equal(spaced, drawn)
    valid = jnp.array([[True] * 3 + [False] * 3])
    np.testing.assert_array_equal(chain.remap(POS, valid=valid)[0, :3], [0, 32, 63])


@pytest.mark.parametrize('text', ['learned', 't5', 'txl', 'randomize(max_position=64)|txl', 'sincos|t5'])
def test_initial_parameters_follow_the_seed(text):
    one, two, other = (jax.tree.leaves(nnx.state(make(text, seed=seed))) for seed in (0, 0, 1))
    assert one
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('ropee', "unknown position scheme 'ropee' - did you mean 'rope'"),
        ('base', "unknown position scheme 'base'"),
        ('rope|ropee', "unknown position scheme 'ropee'"),
        ('rope(thet=1)', "unknown argument of position scheme 'rope': 'thet' - did you mean 'theta'"),
        ('rope(dims=1)', "unknown argument of position scheme 'rope': 'dims'"),
        ('rope(rngs=1)', "unknown argument of position scheme 'rope': 'rngs'"),
        ('none(1)', 'too many arguments'),
        ("rope(theta='big')", 'theta must be a number'),
        ('randomize(max_position=2.5)|rope', 'max_position must be a whole number'),
        ('learned(max_position=11)', "'learned.max_position=11.': its table has 11 rows"),
        ('randomize(max_position=64)|learned(max_position=63)', 'its table has 63 rows for 64 positions'),
        ('randomize(max_position=11)', '11 positions cannot serve 12 tokens'),
        ('rope,none', 'cannot read'),
        ('', 'cannot read'),
    ],
)
def test_mistakes_are_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        make(text)
    assert len(str(error.value).splitlines()) == 1
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize('keep', [np.asarray, jnp.asarray, nnx.Variable, lambda x: nnx.data([jnp.asarray(x)])])
def test_a_scheme_that_keeps_an_array_is_named(keep, monkeypatch):
    """A model with one would not split into parameters and what is static."""

    class Keeping(positions.Position):
        def __init__(self, dims, *, rngs):
            self.slopes = keep(np.ones(2, np.float32))

    monkeypatch.setattr(positions.spec, 'load', lambda *_: Keeping)
    with pytest.raises(UserError, match="'keeping' keeps an array in 'slopes' - write constants as numbers or tuples"):
        make('keeping')


def test_at_most_one_scheme_replaces_the_softmax():
    class Replacing(positions.Position):
        def weights(self, logits, mask, q, coords):
            return logits

    one, two = (Replacing(DIMS, rngs=nnx.Rngs(0)) for _ in range(2))
    q, _, _, coords = attention()
    arguments = jnp.zeros((2, 2, 6, 6)), jnp.ones((1, 1, 6, 6), bool), q, coords
    assert positions.Chain([one, make('rope')], 'a|rope').weights(*arguments) is arguments[0]
    with pytest.raises(UserError, match='at most one scheme may replace the softmax, here 2 do'):
        positions.Chain([one, make('rope'), two], 'a|rope|b')


@pytest.mark.parametrize('name', [*positions.names(), "randomize(test='linspace')", "rfs(test='linspace')"])
def test_draws_in_evaluation_are_claimed(name):
    """`draws` is above 0 exactly where an evaluation places tokens by chance."""
    text = positions.example(name) if name in positions.names() else name
    text = f'{text}|alibi' if name == 'randomize_offsets' else text
    dims = Dims(16, 2, 8, max_len=32)
    try:
        scheme = positions.make(text, dims, rngs=nnx.Rngs(0))
    except UserError:
        scheme = positions.make(text, dataclasses.replace(dims, causal=True), rngs=nnx.Rngs(0))
    slots = jnp.arange(9)[None]

    def placed(key):
        stand_in, coordinates = scheme.place(slots, key=key)
        return jax.tree.leaves((nnx.to_pure_dict(nnx.state(stand_in)), getattr(stand_in, 'offsets', 0), coordinates))

    drawn = [placed(key) for key in jax.random.split(jax.random.key(0))]
    differ = any(np.any(one != other) for one, other in zip(*drawn, strict=True))
    assert differ == (scheme.draws > 0)
    if not scheme.draws:
        scheme.place(slots)
