"""What holds for every core: one check of shapes, one door for masks, nothing hidden has an influence, wide floats; and
what a core says of itself."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha.model.attention as layers
from mha import cores, positions
from mha.cores import blockwise, flash
from mha.model.encoder import Encoder
from mha.nn import masks
from mha.positions import Coords, Dims
from mha.spec import UserError

B, T, S, H, K = 2, 20, 20, 2, 4
RNG = np.random.default_rng(0)
Q, KEYS, VALUES, CT = (jnp.asarray(RNG.standard_normal((B, T, H, K)).astype(np.float32)) for _ in range(4))
CORES = {name: cores.make(name) for name in cores.names()} | {'flash': flash.Flash(block=16, interpret=True)}
each_core = pytest.mark.parametrize('core', CORES.values(), ids=list(CORES))
DIMS = Dims(H * K, H, K, max_len=64, causal=True)


def scheme(spec='none', causal=False):
    return positions.make(spec, Dims(H * K, H, K, max_len=64, causal=causal), rngs=nnx.Rngs(0))


def coords(queries=T, keys=S, **options):
    slots = {'q_pos': jnp.arange(queries)[None], 'k_pos': jnp.arange(keys)[None]}
    given = {**slots, 'visible': jnp.full((1, queries), keys), 'x': jnp.zeros((B, queries, H * K)), **options}
    return Coords(**given)


def attend(core, q=Q, k=KEYS, v=VALUES, *, position='none', at=None, **options):
    at, core = at or coords(q.shape[1], k.shape[1]), cores.make(core)
    variant = cores.Variant(parameters=core.parameters(DIMS, rngs=nnx.Rngs(0)))
    return cores.attend(q, k, v, position=scheme(position), coords=at, core=core, variant=variant, **options)


# --- the object ------------------------------------------------------------------------------------------------------


def test_a_spec_is_one_object_and_says_what_it_can_do():
    assert [cores.make(text) for text in ('dense', 'auto', 'linear')] == list(
        map(cores.make, ('dense()', 'auto()', 'linear()'))
    )
    assert len({cores.make('dense'), cores.make('dense()'), cores.make('linear(count=3)')}) == 2
    assert cores.make(cores.make('dense')) is not None
    plain, ssmax, cope = scheme(), scheme('ssmax'), scheme('cope', causal=True)
    expected = {
        'dense': (1, 1, 1),
        'dense()': (1, 1, 1),
        'blockwise': (0, 0, 0),
        'auto': (0, 0, 1),
        'auto()': (0, 0, 1),
    }
    for text, found in expected.items():
        assert tuple(cores.make(text).quadratic(p, 20_000) for p in (plain, ssmax, cope)) == found
        assert cores.make(text).quadratic(plain, 40) == (text != 'blockwise')
    assert [name for name in cores.names() if not cores.make(name).has_map] == ['delta', 'linear']


@pytest.mark.parametrize(
    ('core', 'quadratic'), [('auto()', False), ('dense()', True), ('auto', False), ('dense', True)]
)
def test_a_model_knows_what_its_core_holds_in_memory(core, quadratic):
    sizes = dict(vocab_size=5, num_classes=3, max_len=64, layers=1)
    model = nnx.eval_shape(lambda: Encoder(**sizes, core=core, rngs=nnx.Rngs(0)))
    assert model.quadratic(20_000) == quadratic


# --- shapes ----------------------------------------------------------------------------------------------------------


@each_core
@pytest.mark.parametrize(('q', 'k'), [(19, 20), (21, 20), (20, 19), (20, 21)])
def test_coordinates_are_those_of_the_tokens(core, q, k):
    with pytest.raises(ValueError, match='_pos holds coordinates'):
        attend(core, at=coords(q, k, visible=jnp.ones((1, q))))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(v=VALUES[:, 1:]), 'keys .* and values'),
        (dict(v=jnp.concatenate([VALUES, VALUES], 1)), 'keys .* and values'),
        (dict(k=KEYS[:1], v=VALUES[:1]), 'queries .* and keys'),
        (dict(k=KEYS[..., 1:]), 'queries .* and keys'),
        (dict(q=Q[0]), 'queries .* and keys'),
    ],
)
def test_what_does_not_belong_together_is_refused(given, message):
    """What `attend` checks first; the tests' own checks of signatures would come before it."""
    with pytest.raises(ValueError, match=message):
        cores.check_shapes(**{'q': Q, 'k': KEYS, 'v': VALUES, 'coords': coords(), **given})


@each_core
def test_no_keys_and_no_queries(core):
    np.testing.assert_array_equal(attend(core, k=KEYS[:, :0], v=VALUES[:, :0]), np.zeros((B, T, H, K)))
    assert attend(core, q=Q[:, :0]).shape == (B, 0, H, K)


def test_a_layer_without_keys_or_queries():
    layer = layers.MultiHeadAttention(H, 8, position='rope', rngs=nnx.Rngs(0))
    x, nothing = np.ones((B, 3, 8), np.float32), np.ones((B, 0, 8), np.float32)
    call = nnx.jit(lambda layer, *x: layer(*x))
    np.testing.assert_array_equal(call(layer, x, nothing), np.broadcast_to(layer.out.bias[...], (B, 3, 8)))
    assert call(layer, nothing, x).shape == (B, 0, 8)
    mask = masks.causal() & masks.padding(jnp.ones((1, 0), bool))
    assert nnx.jit(lambda layer, x: layer(x, mask=mask))(layer, nothing).shape == (B, 0, 8)


# --- masks -----------------------------------------------------------------------------------------------------------

ALLOWED = np.tril(np.ones((1, 1, T, S), bool))


@pytest.mark.parametrize('core', [CORES['dense'], CORES['blockwise']], ids=['dense', 'blockwise'])
@pytest.mark.parametrize(
    'dtype',
    ['bool', 'float32', 'uint8', *(pytest.param(name, marks=pytest.mark.slow) for name in ('int32', 'bfloat16'))],
)
def test_masks_of_any_type(core, dtype):
    expected = attend(core, mask=masks.causal())
    mask = jnp.asarray(ALLOWED, dtype)
    np.testing.assert_allclose(attend(core, mask=mask), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda mask: attend(core, mask=mask))(mask), expected, atol=1e-6)


def test_a_mask_of_flax():
    mask = nnx.make_causal_mask(jnp.ones((B, T)))
    assert mask.dtype == jnp.float32
    np.testing.assert_allclose(attend('blockwise', mask=mask), attend('blockwise', mask=masks.causal()), atol=1e-6)


@pytest.mark.parametrize('mask', [np.where(ALLOWED, 0.0, -np.inf), 2 * ALLOWED, ALLOWED - 1, ALLOWED * np.nan], ids=str)
@each_core
def test_other_numbers_are_no_mask(core, mask):
    with pytest.raises(ValueError, match='holds True where a key is seen'):
        attend(core, mask=jnp.asarray(mask, jnp.float32))


def test_each_head_counts_its_own_keys():
    """Under ssmax, whose logits grow with the number of visible keys: heads with other masks are as heads alone."""
    allowed = jnp.asarray(RNG.random((1, H, T, S)) < 0.4).at[..., 0].set(True)
    mask = masks.explicit(allowed)
    visible = mask.count(T, S)
    np.testing.assert_array_equal(visible, allowed.sum(-1).swapaxes(1, 2))
    for spec in ('ssmax', 'logn(length=5)'):
        both = attend('dense', position=spec, mask=mask, at=coords(visible=visible))
        for head in range(H):
            at = coords(visible=visible[:, :, head])
            alone = attend('dense', position=spec, mask=masks.explicit(allowed[:, head : head + 1]), at=at)
            np.testing.assert_allclose(both[:, :, head], alone[:, :, head], atol=1e-6)


# --- what a mask hides -----------------------------------------------------------------------------------------------

HIDDEN = slice(13, None)
HIDING = {
    'padding': masks.padding(jnp.asarray(np.arange(S)[None] < 13)),
    'causal padding': masks.causal() & masks.padding(jnp.asarray(np.arange(S)[None] < 13)),
}
ACAUSAL = 'delta', 'padding'
"""The pair that does not exist: this core reads tokens in order."""
SPECS = ('rope', 'shaw', 'alibi', 'dape')
MORE_SPECS = ('none', "txl(form='content')", 'deberta(k=4)')


@functools.partial(jax.jit, static_argnums=(0, 1))
def outcome(core, hiding, k, v):
    """Output of a core, and the gradients of queries, keys and values."""
    out, pull = jax.vjp(lambda *x: attend(core, *x, mask=HIDING[hiding]), Q, k, v)
    return out, *pull(CT)


@pytest.mark.parametrize('bad', ['key', 'value', 'both', 'infinite'])
@pytest.mark.parametrize(('name', 'hiding'), [pair for pair in itertools.product(CORES, HIDING) if pair != ACAUSAL])
def test_hidden_keys_and_values_have_no_influence(name, bad, hiding):
    """Outputs, and the gradients of everything else, are those beside zeros."""
    what = jnp.inf if bad == 'infinite' else jnp.nan
    k = KEYS.at[:, HIDDEN].set(0) if bad == 'value' else KEYS.at[:, HIDDEN].set(what)
    v = VALUES.at[:, HIDDEN].set(0) if bad == 'key' else VALUES.at[:, HIDDEN].set(what)
    clean = KEYS.at[:, HIDDEN].set(0), VALUES.at[:, HIDDEN].set(0)
    for found, expected in zip(*(outcome(CORES[name], hiding, *given) for given in ((k, v), clean)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('spec', SPECS + tuple(pytest.param(spec, marks=pytest.mark.slow) for spec in MORE_SPECS))
@pytest.mark.parametrize('core', ['dense', 'blockwise'])
def test_hidden_keys_have_no_influence_under_any_scheme(core, spec):
    k, v = KEYS.at[:, HIDDEN].set(jnp.nan), VALUES.at[:, HIDDEN].set(jnp.nan)
    graph, params = nnx.split(scheme(spec))

    @jax.jit
    def run(k, v):
        def out(params, q):
            position = nnx.merge(graph, params)
            return cores.attend(q, k, v, position=position, coords=coords(), mask=HIDING['padding'], core=core)

        found, pull = jax.vjp(out, params, Q)
        return jax.tree.leaves((found, pull(CT)))

    for found, expected in zip(run(k, v), run(KEYS.at[:, HIDDEN].set(0), VALUES.at[:, HIDDEN].set(0)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('bad', ['key', 'value'])
@each_core
def test_what_is_seen_does_have_influence(core, bad):
    """A causal mask: queries before a NaN are as without it, those from there on are NaN."""
    k = KEYS.at[0, 7].set(jnp.nan) if bad == 'key' else KEYS
    v = VALUES.at[0, 7, :, 1].set(jnp.nan) if bad == 'value' else VALUES
    found, expected = attend(core, k=k, v=v, mask=masks.causal()), attend(core, mask=masks.causal())
    np.testing.assert_allclose(found[0, :7], expected[0, :7], atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
    assert np.isnan(found[0, 7:]).all()


# --- wide floats -----------------------------------------------------------------------------------------------------


@each_core
def test_float64(core):
    """As a softmax in float64, cores without a map and the kernels aside, and of the inputs' type; gradients too."""
    with jax.enable_x64(True):
        q, k, v, ct = (jnp.asarray(np.asarray(x), jnp.float64) for x in (Q, KEYS, VALUES, CT))
        mask = masks.causal() & masks.padding(jnp.arange(S)[None] < 13)
        spec = 'rope' if core.has_map is False else 'alibi'
        run = jax.jit(lambda *x: attend(core, *x, position=spec, mask=mask))
        out, pull = jax.vjp(run, q, k, v)
        assert [x.dtype for x in (out, *pull(ct))] == 4 * [jnp.float64]
        narrow = [np.asarray(x, np.float32) for x in (q, k, v)]
        assert jax.eval_shape(run, *narrow).dtype == jnp.float32
        if not core.has_map:
            return
        out = jax.jit(lambda *x: attend(core, *x, mask=mask))(q, k, v)
        logits = np.where(mask.dense(T, S), np.einsum('bthk,bshk->bhts', q, k) / np.sqrt(K), -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        expected = np.einsum('bhts,bshk->bthk', weights / weights.sum(-1, keepdims=True), v)
        np.testing.assert_allclose(out, expected, atol=1e-13)


# --- derivatives -----------------------------------------------------------------------------------------------------


def test_dense_is_differentiable_in_every_mode_to_any_order():
    """Against attention in plain jax, in float64."""
    with jax.enable_x64(True):
        q, k, v = (jnp.asarray(np.asarray(x[:1, :5]), jnp.float64) for x in (Q, KEYS, VALUES))
        mask = masks.causal()

        def ours(x):
            return (attend('dense', x * q, x**2 * k, jnp.sin(x) * v, mask=mask) ** 3).sum()

        def plain(x):
            logits = jnp.einsum('bthk,bshk->bhts', x * q, x**2 * k) / np.sqrt(K)
            weights = jax.nn.softmax(jnp.where(mask.dense(5, 5), logits, -1e30))
            return (jnp.einsum('bhts,bshk->bthk', weights, jnp.sin(x) * v) ** 3).sum()

        x = jnp.asarray([0.7])
        orders = (
            (lambda f: lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1], jax.grad),
            (
                lambda f: jax.grad(jax.grad(f)),
                jax.hessian,  # forward over reverse
                lambda f: jax.jacrev(jax.jacfwd(f)),
            ),
            (lambda f: jax.grad(jax.grad(jax.grad(f))),),
        )
        for ways in orders:
            expected = jax.jit(jax.vmap(ways[-1](plain)))(x)
            for derive in ways:
                np.testing.assert_allclose(jax.jit(jax.vmap(derive(ours)))(x), expected, rtol=1e-9)


def test_a_product_with_the_hessian_of_a_model():
    model = Encoder(vocab_size=5, num_classes=3, max_len=8, layers=1, dim=8, heads=2, position='rope', rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    tokens = jnp.asarray(RNG.integers(0, 5, (2, 6)))
    loss = lambda params: (nnx.merge(graph, params)(tokens) ** 2).sum()  # noqa: E731
    direction = jax.tree.map(jnp.ones_like, params)
    product = jax.jit(lambda params: jax.jvp(jax.grad(loss), (params,), (direction,))[1])(params)
    along = lambda params: sum(map(jnp.vdot, *map(jax.tree.leaves, (jax.grad(loss)(params), direction))))  # noqa: E731
    for found, expected in zip(*map(jax.tree.leaves, (product, jax.jit(jax.grad(along))(params))), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max() + 1e-4)


# --- the door --------------------------------------------------------------------------------------------------------


def test_attention_at_the_front_door():
    """A scheme, its spec, or none; masks and coordinates."""
    expected = attend('dense', position='alibi', mask=masks.causal())
    for position in ('alibi', scheme('alibi')):
        np.testing.assert_allclose(
            layers.attend(Q, KEYS, VALUES, position=position, mask=masks.causal()), expected, atol=1e-6
        )
    np.testing.assert_allclose(layers.attend(Q, KEYS, VALUES), attend('dense'), atol=1e-6)
    apart = coords(q_pos=3 * jnp.arange(T)[None])
    found = layers.attend(Q, KEYS, VALUES, position='randomize(max_position=99)|alibi', coords=apart)
    np.testing.assert_allclose(found, attend('dense', position='alibi', at=apart), atol=1e-6)
    with pytest.raises(UserError, match=r"'randomize.*alibi' has a 'remap' hook"):
        layers.attend(Q, KEYS, VALUES, position='randomize(max_position=99)|alibi')
    with pytest.raises(UserError, match='defined for causal attention only'):
        layers.attend(Q, KEYS, VALUES, position='cable')
    with pytest.raises(UserError, match='made for 2 heads of 4, but the layer has 4 of 2'):
        layers.attend(*(x.reshape(B, T, 4, 2) for x in (Q, KEYS, VALUES)), position=scheme('alibi'))


def test_watching_a_forward_pass():
    """Only programs traced within tell, and they go on to tell; nobody else hears."""
    seen, run = [], jax.jit(lambda q: attend('blockwise', q))
    with blockwise.watched(seen.append):
        told = jax.jit(lambda q: attend('blockwise', q)).lower(Q).compile()
    for program in (told, run, told):
        jax.block_until_ready(program(Q))
    jax.effects_barrier()
    assert sum(seen) >= 2 * B * T
    assert len(seen) == 2
