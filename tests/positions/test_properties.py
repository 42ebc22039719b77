"""Properties of every position scheme: one table over the files of `mha/positions`, alone, with options of their own,
and under random positions.

A new scheme file is tested without an edit here. Its claims (`directed`, `causal_only`) are checked; the sets below
list properties that schemes do not declare themselves.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, positions
from mha import spec as spec_module
from mha.model.encoder import Encoder
from mha.nn import masks
from mha.positions import HOOKS, Coords
from mha.spec import UserError

FORMS = (
    "alibi(variant='symmetric')",
    "alibi(variant='asymmetric', side='split')",
    "alibi(variant='asymmetric', side='slopes')",
    'alibi(learned=True)',
    "kerple(kind='power', weighted=True)",
    'sandwich(as_channels=True)',
    "txl(form='channels')",
    'shaw(values=False)',
    "deberta(k=8, log_buckets=8, p2c_index='released')",
    "cope(gate='raw')",
    'cable(scale=False)',
    "stickbreaking(remainder='self')",
    'ssmax(bias=True)',
    'ntk(dynamic=True, original_length=10)',
    'rope2d(columns=4, mixed=True)',
    "shape(max_shift='room')|sincos",
    'randomize_offsets(max_position=1000)|t5(max_distance=2000)',
    'randomize_offsets(max_position=1000)|shaw(k=500)',
    "randomize(max_position=1000, test='linspace')|sincos",
    'randomize(max_position=1000, per_example=True)|rope',
    'rope(resonance=True, imaginary=True)',
    "rope(learned='head')",
    "grape(gate='both')",
    'selective_rope(gate=True)',
    'selective_rope(scalar=True)',
    'fope(released=True)',
    'bam(location=True)',
    'inkling(reach=5, alpha=0.5, floor=2)',
    'heads|rope',
    'dape(kernel=3)',
)
"""Specs whose code differs from that of the bare name."""
ABSOLUTE = {'sincos', 'learned', 'fourier', 'abacus', 'coupling', 'fire', 'rope2d', 'dca', 'selfextend', 'fope'}
"""Shifting all coordinates changes their output; that of all others it does not."""
SELF = {'shaw', 'stickbreaking'}
"""A query that sees itself alone does not read its own value as it is."""
COUNTING = {'none', 'ssmax', 'logn', 'asscale', 'scale', 'heads'}
"""These read how many keys a query sees, not where they are."""
CONTENT = {'fox', 'cable', 'cope', 'stickbreaking', 'selective_rope', 'wall', 'path'}
"""These find distances in what is between two tokens, or read the order of slots: coordinates do not matter."""
DRAWS = 'randomize(max_position=1000)'

DIM, HEADS, HEAD_DIM, MAX_LEN, CLASSES = 16, 2, 8, 900, 3
LENGTH, REAL = 12, 8
PARAMETERS = {
    'learned': MAX_LEN * DIM,
    'abacus': 1024 * DIM,
    'coupling': (MAX_LEN + 1) * DIM,
    'fourier': DIM // 4 + (DIM // 2 + 1) * DIM + (DIM + 1) * DIM,
    't5': 32 * HEADS,
    'kerple': 2 * HEADS,
    'fire': 33 * HEADS + 64 + 2,
    'cpb': 2 * 4 + (4 * 4 + 4) + 4 * HEADS + HEADS,
    'dape': 2 * HEADS + (2 * HEADS + 1) * 32 + 33 * HEADS,
    'shaw': 2 * 33 * HEAD_DIM,
    'txl': HEADS * HEAD_DIM * DIM + 2 * HEADS * HEAD_DIM,
    'deberta': 2 * 512 * DIM + 2 * DIM * HEADS * HEAD_DIM,
    'cope': 16 * HEAD_DIM,
    'fox': 2 * HEADS * (DIM + 1),
    'cable': HEADS * (DIM + 1),
    'ssmax': HEADS,
    'pope': HEADS * HEAD_DIM,
    'grape': HEADS * HEAD_DIM + HEADS,
    'inkling': DIM * HEADS * 16 + 16 * 2 * 512,
    'asscale': 2 * DIM * HEADS,
    'bam': 2 * HEADS,
    'selective_rope': DIM * 16 + 16 * DIM // 2 + 4 * DIM // 2,
    'path': DIM * 32 + 35 * HEADS * HEAD_DIM + (DIM + 1) * HEADS,
    'wall': (DIM + 1) * HEADS * HEAD_DIM,
    'fope': 2 * HEADS * 3 * 2,
}
"""At these sizes, 0 for all others."""

ALONE = tuple(positions.example(name) for name in positions.names())
SPECS = (*ALONE, *FORMS)
RANDOMISED = tuple(
    f'{DRAWS}|{spec}' for spec in ('none', 'sincos', 'learned', 'rope', 'alibi', 't5', 'txl', 'shaw', 'cope')
)


def causal_only(spec):
    name = spec.split('|')[-1].split('(')[0]
    return spec_module.load(positions, name, positions.Position, 'scheme').causal_only


def directions(spec):
    """The directions that differ: a scheme that never asks for the model's leaves them to the mask."""
    source = Path(positions.__file__).with_name(f'{spec.split("(")[0]}.py').read_text()
    return (True,) if causal_only(spec) else (False, True) if 'dims.causal' in source else (False,)


CASES = (
    *((spec, causal) for spec in ALONE for causal in directions(spec)),
    *((spec, causal_only(spec)) for spec in FORMS),
)
CAUSAL = tuple(spec for spec, causal in CASES if causal)


def param(spec, *arguments):
    return pytest.param(spec, *arguments, marks=[pytest.mark.slow] * (spec in FORMS))


every_spec = pytest.mark.parametrize('spec', [param(spec) for spec in SPECS], scope='module')
every_causal = pytest.mark.parametrize('spec', [param(spec) for spec in ('none', *CAUSAL)], scope='module')
every_randomised = pytest.mark.parametrize('spec', [param(spec) for spec in RANDOMISED], scope='module')
every_case = pytest.mark.parametrize(
    ('spec', 'causal'),
    [param(*case) for case in CASES],
    ids=[f'{spec}-{"causal" if causal else "bidirectional"}' for spec, causal in CASES],
    scope='module',
)


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder under one scheme, with compiled functions of its weights and inputs."""

    graph: nnx.GraphDef
    weights: nnx.State

    @property
    def scheme(self):
        return nnx.merge(self.graph, self.weights).positions[0]

    def logits(self, weights, tokens, valid, pos, key):
        rngs = nnx.Rngs(position=key)
        return nnx.merge(self.graph, weights)(tokens, valid=valid, pos=pos, rngs=rngs)

    def forward(self, *inputs):
        """Logits of `LENGTH` tokens, from the program that gives gradients as well: one less to compile."""
        return np.asarray(self.gradients(cotangents(REAL), *inputs)[0])

    @functools.cached_property
    def gradients(self):
        """Logits [B, T, C], and for each of N cotangents [N, B, T, C] the gradient of the weights."""

        def run(weights, cotangents, *inputs):
            out, pullback = jax.vjp(lambda weights: self.logits(weights, *inputs), weights)
            return out, jax.vmap(lambda cotangent: pullback(cotangent)[0])(cotangents)

        return functools.partial(jax.jit(run), self.weights)

    @functools.cached_property
    def compiled(self):
        """The logits alone: where no test of the model asks for gradients."""
        return functools.partial(jax.jit(self.logits), self.weights)


def model(spec, causal=False, dtype='float32'):
    """Tests of one scheme share its model and what it compiled."""
    return build(spec, causal, dtype)


@functools.cache
def build(spec, causal, dtype):
    """A model of attention alone, whose programs are smaller by a third. The scheme's parameters move away from their
    initial values, which are small on purpose."""
    try:
        encoder = Encoder(
            vocab_size=2 * LENGTH,
            num_classes=CLASSES,
            max_len=MAX_LEN,
            layers=1,
            dim=DIM,
            heads=HEADS,
            mlp='none',
            norm_kind='rms',
            position=spec,
            causal=causal,
            dtype=dtype,
            rngs=nnx.Rngs(0),
        )
    except UserError as error:
        if any(words in str(error) for words in ('causal', 'takes slot numbers', 'rows', 'positions')):
            pytest.skip(str(error))  # refused, as the scheme's own tests check
        raise
    rng = np.random.default_rng(1)
    own = nnx.state(encoder.positions, nnx.Param)
    nnx.update(encoder.positions, jax.tree.map(lambda x: x + 0.4 * rng.standard_normal(x.shape, np.float32), own))
    return Model(*nnx.split(encoder))


def any_direction(spec):
    """The model under the directions that the scheme is defined for, bidirectional first."""
    return model(spec, causal_only(spec))


@functools.cache
def inputs(real=REAL, left=False, length=LENGTH):
    """Two rows without a token in common; the first has `real` tokens and padding of random other tokens. The real
    tokens and all of the second row are the same whatever the padding."""
    rng = np.random.default_rng(3)
    tokens = rng.permutation(2 * LENGTH).reshape(2, LENGTH)
    first, junk = tokens[0, :real], tokens[0, real:length]
    padded = np.concatenate([junk, first] if left else [first, junk])
    valid = np.ones((2, length), bool)
    valid[0] = np.arange(length) >= length - real if left else np.arange(length) < real
    tokens = np.stack([padded, tokens[1, :length]])
    return jnp.asarray(tokens), jnp.asarray(valid), jnp.cumsum(jnp.asarray(valid), -1) - 1, jax.random.key(11)


@functools.cache
def cotangents(real, left=False):
    """One per real token of the first row: a fixed random direction of its logits."""
    at, start = np.arange(real), LENGTH - real if left else 0
    out = np.zeros((real, 2, LENGTH, CLASSES), np.float32)
    out[at, 0, start + at] = np.random.default_rng(5).standard_normal((real, CLASSES))
    return jnp.asarray(out)


@functools.cache
def outcome(spec, causal, left=False):
    """Logits and the gradient at each real token of the first row, as numpy arrays."""
    out, gradients = model(spec, causal).gradients(cotangents(REAL, left), *inputs(REAL, left))
    assert (out.shape, out.dtype) == ((2, LENGTH, CLASSES), jnp.float32)
    return np.asarray(out), {path: np.asarray(leaf) for path, leaf in flat(gradients).items()}


def flat(state):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(state))}


def tokens_read(gradients):
    """[N, vocabulary]: whether each token's embedding moves the logits behind cotangent n."""
    return np.abs(gradients["['embedding']['embedding']"]).sum(-1) > 0


def parts(spec):
    return [part.split('(')[0] for part in spec.split('|')]


# --- shapes ----------------------------------------------------------------------------------------------------------


@every_case
def test_shape_and_type(spec, causal):
    """Whatever the type of the computation."""
    this = model(spec, causal, dtype='bfloat16')
    out = jax.eval_shape(this.compiled, *inputs())  # traced once, for the test of far coordinates as well
    assert (out.shape, out.dtype) == ((2, LENGTH, CLASSES), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(this.weights)} == {jnp.dtype('float32')}


@every_spec
def test_declared_parameters_and_no_others(spec):
    this = any_direction(spec)
    shared = flat(model('none').weights)
    own = {path: leaf for path, leaf in flat(this.weights).items() if path not in shared}
    assert set(shared) <= set(flat(this.weights))
    assert all(path.startswith("['positions'][0]") for path in own)
    if spec in ALONE:
        assert sum(leaf.size for leaf in own.values()) == PARAMETERS.get(spec.split('(')[0], 0)


@every_spec
def test_shared_weights_start_equal(spec):
    shared, weights = flat(model('none').weights), flat(any_direction(spec).weights)
    for path, leaf in shared.items():
        np.testing.assert_array_equal(weights[path], leaf, err_msg=path)


# --- hooks -----------------------------------------------------------------------------------------------------------


def hooks(spec, causal=False, length=LENGTH, dtype=jnp.float32):
    """A scheme with moved parameters, and one attention call's queries, keys and coordinates."""
    this = model(spec, causal)
    scheme = this.scheme
    if not scheme.overrides('remap'):
        scheme, _ = scheme.place(jnp.arange(24)[None], key=jax.random.key(6))
    rng = np.random.default_rng(2)
    q, k, v = (jnp.asarray(rng.standard_normal((2, length, HEADS, HEAD_DIM)), dtype) for _ in range(3))
    pos = jnp.asarray(np.sort(np.stack([rng.choice(24, length, replace=False) for _ in range(2)])))
    x = jnp.asarray(rng.standard_normal((2, length, DIM)), dtype)
    mask = masks.causal() if causal else masks.full()
    coords = Coords(q_pos=pos, k_pos=pos, visible=mask.dense(length, length)[:, 0].sum(-1), x=x)
    return scheme, q, k, v, coords, mask


@every_case
def test_a_tile_is_a_slice_of_the_whole(spec, causal):
    """Bias and content; and what the output gains is a sum over tiles of keys."""
    scheme, q, k, _, coords, mask = hooks(spec, causal)
    q, k = scheme.qk(q, k, coords)
    seen = np.asarray(mask.dense(LENGTH, LENGTH))
    a = jnp.asarray(np.random.default_rng(8).random((2, HEADS, LENGTH, LENGTH)), jnp.float32)
    every, rows, columns, left = slice(None), slice(3, 8), slice(5, LENGTH), slice(0, 5)

    @jax.jit
    def run(q, k, a, pos):
        """Bias under two rows of coordinates and under one, content and values, of the whole and of a tile; and values
        of the tile on its left."""

        def values(t, s):
            return scheme.values(a[:, :, t, s], pos[:, t], pos[:, s])

        return *(
            (
                scheme.bias(pos[:, t], pos[:, s]),
                scheme.bias(pos[:1, t], pos[:1, s]),
                scheme.content(q[:, t], k[:, s], pos[:, t], pos[:, s]),
                values(t, s),
            )
            for t, s in ((every, every), (rows, columns))
        ), values(rows, left)

    (bias, bias_of_one, content, values), tile, tile_left = run(q, k, a, coords.q_pos)
    for hook, whole, part, batch, atol in (
        ('bias', bias, tile[0], 2, 1e-6),
        ('bias', bias_of_one, tile[1], 1, 1e-6),
        ('content', content, tile[2], 2, 1e-5),
    ):
        assert scheme.overrides(hook) is (whole is not None)
        assert (part is None) is (whole is None)
        if whole is not None:
            assert (whole.shape, whole.dtype) == ((batch, HEADS, LENGTH, LENGTH), jnp.float32)
            part, whole = (np.where(seen[:, :, rows, columns], x, 0) for x in (part, whole[:, :, rows, columns]))
            np.testing.assert_allclose(part, whole, atol=atol)
    assert scheme.overrides('values') is (values is not None)
    if values is not None:
        np.testing.assert_allclose(tile[3] + tile_left, values[:, rows], atol=1e-4)


@every_case
def test_hidden_rows_are_zero_and_gradients_finite(spec, causal):
    """A query that may see no key, and one that sees only itself, at equal coordinates too."""
    scheme, q, k, v, coords, mask = hooks(spec, causal)
    allowed = np.ones((2, 1, LENGTH, LENGTH), bool)
    allowed[0, :, 4] = False
    allowed[1, :, 7] = np.arange(LENGTH) == 7
    mask = mask & masks.explicit(jnp.asarray(allowed))
    graph, weights, drawn = nnx.split(scheme, nnx.Param, ...)

    @jax.jit
    def run(weights, q, k, v, pos):
        at = dataclasses.replace(coords, q_pos=pos, k_pos=pos)

        def attend(q, k, v, weights):
            out = cores.attend(q, k, v, position=nnx.merge(graph, weights, drawn), coords=at, mask=mask)
            return out.sum() ** 2, out

        gradients, out = jax.grad(attend, (0, 1, 2, 3), has_aux=True)(q, k, v, weights)
        return out, gradients

    for pos in (coords.q_pos, jnp.zeros_like(coords.q_pos)):
        out, gradients = run(weights, q, k, v, pos)
        np.testing.assert_array_equal(out[0, 4], 0)
        if not SELF & set(parts(spec)):
            np.testing.assert_allclose(out[1, 7], v[1, 7], atol=1e-5)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


# --- invariances of the whole model ----------------------------------------------------------------------------------


@every_case
def test_causality_and_padding_by_gradient(spec, causal):
    """Token j moves the logits at i exactly where i may see j: not from the future, the padding or another row."""
    tokens, valid, _, _ = inputs()
    read = tokens_read(outcome(spec, causal)[1])[:, np.asarray(tokens)]
    assert not read[:, 1].any()
    assert not read[:, 0, ~np.asarray(valid[0])].any()
    visible = np.tril(np.ones((REAL, REAL), bool)) if causal else np.ones((REAL, REAL), bool)
    np.testing.assert_array_equal(read[:, 0, :REAL], visible)


@every_case
def test_padding_changes_nothing(spec, causal):
    """On the right or on the left: the logits are those without padding, and the gradients those of the other side."""
    (right, right_gradients), (left, left_gradients) = (outcome(spec, causal, side) for side in (False, True))
    expected = model(spec, causal).compiled(*inputs(length=REAL))[0]
    np.testing.assert_allclose(right[0, :REAL], expected, atol=2e-5)
    np.testing.assert_allclose(left[0, LENGTH - REAL :], expected, atol=2e-5)
    for path, gradient in right_gradients.items():
        np.testing.assert_allclose(left_gradients[path], gradient, atol=1e-4, err_msg=path)


@every_case
def test_right_padding_needs_no_coordinates(spec, causal):
    tokens, valid, _, key = inputs()
    this = model(spec, causal)
    slots = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
    np.testing.assert_allclose(
        this.forward(tokens, valid, slots, key)[0, :REAL], outcome(spec, causal)[0][0, :REAL], atol=2e-5
    )


@every_causal
def test_the_future_changes_nothing(spec):
    tokens, valid, pos, key = inputs(LENGTH)
    this = model(spec, True)
    other = tokens.at[:, 7:].set((tokens[:, 7:] + 5) % 24)
    one, two = this.forward(tokens, valid, pos, key), this.forward(other, valid, pos, key)
    np.testing.assert_allclose(one[:, :7], two[:, :7], atol=1e-6)
    assert np.abs(one[:, 7:] - two[:, 7:]).min(-1).max() > 1e-3


@every_case
def test_an_example_does_not_depend_on_other_rows(spec, causal):
    tokens, valid, pos, key = inputs()
    this = model(spec, causal)
    full = this.forward(tokens, valid, pos, key)
    other = this.forward(tokens.at[1].set((tokens[1] * 7 + 3) % 24), valid.at[1, 3:].set(False), pos, key)
    np.testing.assert_allclose(full[0], other[0], atol=1e-6)


@every_case
def test_gradients_are_finite(spec, causal):
    """At distinct coordinates, with every token at one place, and with a row that is nothing but padding."""
    tokens, valid, pos, key = inputs()
    for at, real in ((pos, valid), (jnp.zeros_like(pos), valid), (pos, valid.at[0].set(False))):
        out, gradients = model(spec, causal).gradients(cotangents(REAL), tokens, real, at, key)
        assert np.isfinite(out).all()
        for path, leaf in flat(gradients).items():
            assert np.isfinite(leaf).all(), path


@every_case
def test_own_parameters_receive_gradients(spec, causal):
    for path, leaf in outcome(spec, causal)[1].items():
        constant = path.endswith("['out']['bias']")  # of a row: the softmax does not see it
        if path.startswith("['positions']") and not constant:
            assert np.abs(leaf).max() > 1e-5, path


# --- what a scheme knows of order ------------------------------------------------------------------------------------


@every_spec
def test_permutation(spec):
    """Without positions a bidirectional encoder treats its input as a set."""
    tokens, valid, pos, key = inputs(LENGTH)
    this, order = model(spec), np.random.default_rng(0).permutation(LENGTH)
    one = this.forward(tokens, valid, pos, key)[:, order]
    two = this.forward(tokens[:, order], valid, pos, key)
    difference = np.abs(one - two).max()
    assert difference < 1e-5 if blind(spec) else difference > 1e-2


def blind(spec):
    """Whether the model has nothing that reads the coordinates: no scheme, remaps alone, or scales of the logits."""
    scheme = any_direction(spec).scheme
    if not any(scheme.overrides(hook) for hook in HOOKS if hook != 'remap'):
        return True
    return set(parts(spec)) <= COUNTING | {'randomize'}


@every_causal
def test_a_causal_mask_leaks_order(spec):
    tokens, valid, pos, key = inputs(LENGTH)
    this, order = model(spec, True), np.array([1, 0, *range(2, LENGTH)])
    one, two = this.forward(tokens, valid, pos, key), this.forward(tokens[:, order], valid, pos, key)
    assert np.abs(one[:, 0] - two[:, 1]).max() > 1e-3


@every_spec
def test_mirror(spec):
    """A scheme that claims no direction sees the mirrored sequence as the mirror of what it saw; the others know left
    from right."""
    if 'sincos' in spec and 'linspace' in spec:
        pytest.skip('positions that are evenly spaced and directed: no claim of its own')
    tokens, valid, pos, key = inputs(LENGTH)
    this = model(spec)
    one = this.forward(tokens, valid, pos, key)[:, ::-1]
    two = this.forward(tokens[:, ::-1], valid, pos, key)
    difference = np.abs(one - two).max()
    directed = this.scheme.directed
    assert difference > 1e-2 if directed else difference < 1e-5


@pytest.mark.parametrize('spec', [param(spec) for spec in ALONE])
def test_shift(spec):
    """p -> p + 100 changes nothing for a relative scheme."""
    tokens, valid, pos, key = inputs(LENGTH)
    this = any_direction('fire(init_length=8)' if spec == 'fire' else spec)
    difference = np.abs(this.forward(tokens, valid, pos, key) - this.forward(tokens, valid, pos + 100, key)).max()
    assert difference > 1e-2 if ABSOLUTE & set(parts(spec)) else difference < 2e-4


# --- random positions ------------------------------------------------------------------------------------------------


@every_randomised
def test_random_positions_reach_the_model(spec):
    """Another key, another output, where something listens to what is drawn."""
    tokens, valid, pos, _ = inputs(LENGTH)
    this = any_direction(spec)
    one, two = (this.compiled(tokens, valid, pos, jax.random.key(seed)) for seed in (0, 1))
    difference = np.abs(one - two).max()
    assert difference < 1e-6 if blind(spec) or CONTENT & set(parts(spec)) else difference > 1e-2


@every_spec
def test_keys_change_nothing_unless_the_scheme_draws(spec):
    tokens, valid, pos, _ = inputs(LENGTH)
    this = any_direction(spec)
    one, two = (this.forward(tokens, valid, pos, jax.random.key(seed)) for seed in (0, 1))
    difference = np.abs(one - two).max()
    draws = spec.startswith('randomize') and 'linspace' not in spec and not blind(spec)
    assert difference > 1e-2 if draws else difference == 0


@pytest.mark.parametrize('spec', [param(spec) for spec in ALONE])
def test_bfloat16_far_away(spec):
    """bfloat16 holds whole numbers to 256 only: coordinates, angles and distances stay in float32."""
    tokens, valid, _, key = inputs(LENGTH)
    pos = jnp.asarray(np.sort(np.random.default_rng(4).choice(np.arange(500, 900), (2, LENGTH), replace=False)))
    exact = any_direction(spec).forward(tokens, valid, pos, key)
    rough = model(spec, causal_only(spec), dtype='bfloat16').compiled(tokens, valid, pos, key)
    assert np.abs(exact - rough).max() < 5e-2
