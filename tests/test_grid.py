"""The grid of attention: position scheme x normalizer x mixing x gate x pattern x core, in both directions. Samples of
the combinations that exist keep the promises of attention; others are refused in one line that says why."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mha import cores, mixing, normalizers, positions, spec
from mha.cores import blockwise
from mha.cores.flash import Flash
from mha.model.attention import MultiHeadAttention
from mha.nn import masks
from mha.positions import HOOKS, Coords, Dims, Position
from mha.positions.base import WHOLE
from mha.spec import UserError

D, H, MAP_DIM, T = 12, 2, 8, 9
AXES = dict(
    scheme=(*map(positions.example, positions.names()), 'heads(1)|alibi', 'randomize(max_position=50)|rope', 'rope|t5'),
    normalizer=(*normalizers.names(), "sink(kind='query')", 'entmax(alpha=1.3)'),
    mixing=('none', *mixing.names()),
    pattern=('full', 'window(2)', 'local(2)', 'hard_alibi', 'global(1)|window(1)', 'random(3)'),
    core=cores.names(),
    causal=(True, False),
    gate=('none', 'head', 'channel'),
)
VALID = np.arange(T)[None] < np.array([[T], [T - 3], [0]])
"""Of three examples, the second is padded and the third is nothing but padding."""


@dataclasses.dataclass(frozen=True)
class Combination:
    """Settings of a layer."""

    scheme: str
    normalizer: str
    mixing: str
    pattern: str
    core: str
    causal: bool
    gate: str = 'none'

    def refusals(self):
        """Reasons for which this layer does not exist, as patterns of the message."""
        maps, whole = mixed(self.mixing)
        form, ordered = normalizing(self.normalizer)
        hooks, wider = entering(self.scheme, self.causal)
        if hooks is None or (ordered and not self.causal):
            yield 'is defined for causal attention only'
            return
        if 'weights' in hooks and self.normalizer != 'softmax':
            yield 'choose one of them'
        if 'values' in hooks and maps > 1:
            yield 'values are wider'
        if self.core in ('blockwise', 'flash') and (whole or form == 'rows' or hooks & {*WHOLE}):
            yield 'works on whole rows - set model.core=dense'
        if self.core in ('linear', 'delta'):
            if self.normalizer != 'softmax' or whole:
                yield 'core has no logits'
            if hooks & {*WHOLE, 'bias', 'content', 'values'} or wider:
                yield 'core forms no logits'
            if self.pattern != 'full':
                yield 'it has no .* mask'
            if self.core == 'delta' and not self.causal:
                yield 'set model.causal=True'


@functools.cache
def mixed(text):
    kind = mixing.kind(text)
    return kind.maps, kind.whole_rows


@functools.cache
def normalizing(text):
    kind = spec.load(normalizers, text.partition('(')[0], normalizers.Normalizer, 'normalizer')
    return kind.form, kind.causal_only


@functools.cache
def entering(text, causal):
    """Hooks of a scheme, or None if it is not for this direction, and whether it appends channels."""
    if not causal and any(spec.load(positions, call.name, Position, 'scheme').causal_only for call in spec.parse(text)):
        return None, False
    pos, q = jnp.arange(T)[None], jnp.zeros((1, T, H, MAP_DIM))

    def turned():
        scheme = make_scheme(text, causal)
        return scheme, scheme.qk(q, q, Coords(pos, pos, pos + 1, jnp.zeros((1, T, D))))[0]

    scheme, turned_q = nnx.eval_shape(turned)
    return {hook for hook in HOOKS if scheme.overrides(hook)}, turned_q.shape != q.shape


def make_scheme(text, causal):
    return positions.make(text, Dims(D, H, MAP_DIM, max_len=T, causal=causal), rngs=nnx.Rngs(0))


def test_tens_of_thousands_of_combinations_exist():
    """Gates are part of every one, so they are only counted. No other setting is for nothing."""
    axes = {name: values for name, values in AXES.items() if name != 'gate'}
    legal = [point for point in itertools.product(*axes.values()) if not any(Combination(*point).refusals())]
    assert len(AXES['gate']) * len(legal) > 20_000
    assert [set(column) for column in zip(*legal, strict=True)] == [set(values) for values in axes.values()]


def build(this):
    """Parameters of layer and scheme, away from their initial values, and the function `run(params, x, cotangent)`: the
    output, and gradients of parameters and inputs."""
    core = Flash(block=16, interpret=True) if this.core == 'flash' else this.core
    options = dict(normalizer=this.normalizer, gate=this.gate, mixing=this.mixing, is_causal=this.causal)
    options['head_dim'] = MAP_DIM * mixing.kind(this.mixing).maps
    layer = MultiHeadAttention(H, D, use_bias=False, core=core, rngs=nnx.Rngs(1), **options)
    graph, params, rest = nnx.split((layer, make_scheme(this.scheme, this.causal)), nnx.Param, ...)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * jnp.asarray(rng.standard_normal(x.shape), x.dtype), params)
    slots, valid = jnp.arange(T)[None], jnp.asarray(VALID)
    mask = masks.make(this.pattern, H) & masks.padding(valid) & (masks.causal() if this.causal else masks.full())

    @jax.jit
    def run(params, x, cotangent):
        def output(params, x):
            layer, scheme = nnx.merge(graph, params, rest)
            placed, pos = scheme.place(slots, valid=valid, key=jax.random.key(2))
            moved = entering(this.scheme, this.causal)[0] & {'remap', 'embed'}
            where = dict(q_pos=pos, k_pos=pos) if moved else {}  # else, coordinates are known to be slots
            return layer(placed.embed(x, pos), mask=mask, position=placed, **where)

        out, pull = jax.vjp(output, params, x)
        return out, *pull(cotangent)

    return run, params


def trace(this):
    run, params = build(this)
    jax.eval_shape(run, params, draw(0), draw(1))


def draw(seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((len(VALID), T, D)), jnp.float32)


def check(this):
    real = VALID[..., None]
    x, cotangent = draw(0), jnp.where(real, draw(1), 0)
    run, params = build(this)
    out, of_params, of_x = run(params, x, cotangent)
    assert out.shape == x.shape
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((out, of_params, of_x)))
    assert np.abs(of_x[:2]).max() > 0
    np.testing.assert_array_equal(out[2], 0)  # queries without keys
    np.testing.assert_array_equal(np.where(real, 0, of_x), 0)
    other_padding = run(params, jnp.where(real, x, draw(2)), cotangent)[0]
    np.testing.assert_allclose(np.where(real, other_padding, 0), np.where(real, out, 0), atol=1e-5)
    if this.causal:
        at_4 = cotangent.at[:, :4].set(0).at[:, 5:].set(0)
        np.testing.assert_array_equal(run(params, x, at_4)[2][:, 5:], 0)
    if this.core in ('blockwise', 'flash'):
        dense, params = build(dataclasses.replace(this, core='dense'))
        expected = dense(params, x, cotangent)
        for one, other in zip(*map(jax.tree.leaves, ((out, of_params, of_x), expected)), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max() + 1e-5)


combinations = st.builds(Combination, **{name: st.sampled_from(values) for name, values in AXES.items()})
legal = given(combinations.filter(lambda this: not any(this.refusals())))
UNSHRUNK = dict(
    deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=[HealthCheck.filter_too_much]
)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(blockwise, 'SIDES', (8,))


@settings(max_examples=10, **UNSHRUNK)
@legal
def test_combinations(this):
    check(this)


@pytest.mark.slow
@settings(max_examples=150, **UNSHRUNK)
@legal
def test_many_combinations(this):
    check(this)


@settings(max_examples=20, **UNSHRUNK)
@given(combinations.filter(lambda this: any(this.refusals())))
def test_others_are_refused_in_one_line(this):
    with pytest.raises(UserError) as error:
        trace(this)
    assert '\n' not in str(error.value)
    assert any(re.search(reason, str(error.value)) for reason in this.refusals()), error.value
