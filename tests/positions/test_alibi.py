"""ALiBi against the paper's slopes and the biases of encoders and decoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import Dims
from mha.spec import UserError

# Press et al. (2022), section 3, and the rule of their code for a head count that is no power of two.
SLOPES = {
    1: [2**-8],
    2: [2**-4, 2**-8],
    3: [2**-4, 2**-8, 2**-2],
    4: [2**-2, 2**-4, 2**-6, 2**-8],
    8: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256],
    6: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3],
    12: [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
}


def oracle(variant, heads, offset):
    """b [H, T, S] from the offsets D."""
    distance = np.abs(offset).astype(np.float64)
    if variant == 'offset':
        distance = np.where(offset > 0, distance - 0.5, distance)
    return -np.array(SLOPES[heads])[:, None, None] * distance


def asymmetric(back, ahead, offset):
    """b [H, T, S] from the slopes of each head for the past and for the future; None where a side is not seen."""
    out = np.zeros((len(back), *offset.shape))
    for h, (past, future) in enumerate(zip(back, ahead, strict=True)):
        for index, d in np.ndenumerate(offset):
            slope = past if d > 0 else future if d < 0 else 0.0
            out[h][index] = -np.inf if slope is None else -slope * abs(d)
    return out


def make(text, heads=4, causal=False):
    return positions.make(text, Dims(24, heads, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('variant', [None, 'causal', 'symmetric', 'offset'])
def test_weights(variant, case):
    if variant == 'causal' and not case.causal:
        pytest.skip('refused, see below')
    expected = variant or ('causal' if case.causal else 'offset')
    text = 'alibi' if variant is None else f'alibi(variant={variant!r})'
    case.check(case.make(text), case.dot() + oracle(expected, case.heads, case.offset))


def bidirectional(case):
    if case.causal:
        pytest.skip('refused, see below')


@pytest.mark.parametrize('learned', [False, True])
def test_split_heads(learned, case):
    """Half of the heads look back and half ahead, each half with the slopes of that many heads."""
    bidirectional(case)
    half = case.heads // 2
    scheme = case.make(f"alibi(variant='asymmetric', learned={learned})")
    slopes = np.exp(np.asarray(scheme.log_slopes[...], np.float64)) if learned else 2 * SLOPES[half]
    back, ahead = [*slopes[:half], *[None] * half], [*[None] * half, *slopes[half:]]
    case.check(scheme, case.dot() + asymmetric(back, ahead, case.offset))


def test_slopes_of_each_side(case):
    bidirectional(case)
    scheme = case.make("alibi(variant='asymmetric', side='slopes')")
    back, ahead = np.exp(np.asarray(scheme.log_slopes[...], np.float64))
    assert back.shape == (case.heads,)
    case.check(scheme, case.dot() + asymmetric(back, ahead, case.offset))


@pytest.mark.parametrize('variant', ['symmetric', 'offset', 'causal'])
def test_learned_slopes(variant, case):
    if variant == 'causal' and not case.causal:
        pytest.skip('refused, see below')
    scheme = case.make(f'alibi(variant={variant!r}, learned=True)')
    slopes = np.exp(np.asarray(scheme.log_slopes[...], np.float64))
    unit = oracle(variant, case.heads, case.offset) / np.array(SLOPES[case.heads])[:, None, None]
    case.check(scheme, case.dot() + slopes[:, None, None] * unit)


@pytest.mark.parametrize('form', ['learned=True', "variant='asymmetric', side='slopes'"])
@pytest.mark.parametrize('slopes', [None, (0.5, 0.25, 2, 3.0)])
def test_learned_slopes_start_at_the_fixed_ones(form, slopes):
    scheme = make(f'alibi({form}, slopes={slopes})')
    assert scheme.log_slopes.size == (8 if 'side' in form else 4)
    expected = np.log(SLOPES[4] if slopes is None else slopes)
    np.testing.assert_allclose(scheme.log_slopes[...], np.broadcast_to(expected, scheme.log_slopes.shape), rtol=1e-6)


def test_slopes_of_ones_own():
    bias = make("alibi(variant='symmetric', slopes=(0, 1, 0.5, 3))").bias(jnp.arange(5)[None], jnp.arange(5)[None])
    np.testing.assert_allclose(bias[0, :, 0, 4], [0, -4, -2, -12])


def test_an_odd_head_looks_back():
    bias = np.asarray(make("alibi(variant='asymmetric')", heads=5).bias(jnp.arange(3)[None], jnp.arange(3)[None]))[0]
    np.testing.assert_array_equal(bias[:, 2, 0] > -1e20, [True, True, True, False, False])
    np.testing.assert_array_equal(bias[:, 0, 2] > -1e20, [False, False, False, True, True])
    np.testing.assert_allclose(bias[:3, 2, 0], -2 * np.array(SLOPES[3]))
    np.testing.assert_allclose(bias[3:, 0, 2], -2 * np.array(SLOPES[2]))


def test_split_heads_reveal_nothing_that_is_masked():
    """A query whose own place is masked keeps to the keys that it may see, even on the wrong side."""
    scheme = make("alibi(variant='asymmetric')")
    pos = jnp.arange(4)[None]
    q = jax.random.normal(jax.random.key(0), (1, 4, 4, 8))
    coords = positions.Coords(q_pos=pos, k_pos=pos, visible=jnp.full((1, 4), 4), x=jnp.zeros((1, 4, 24)))
    allowed = np.ones((1, 1, 4, 4), bool)
    allowed[0, 0, 0, :2] = False
    allowed[0, 0, 3, 2:] = False
    mask = masks.explicit(jnp.asarray(allowed))
    weights = dense.weights(q, q, position=scheme, coords=coords, mask=mask, scale=1.0)
    assert np.all(np.asarray(weights)[:, :, ~allowed[0, 0]] == 0)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ('text', 'directed'),
    [
        ('alibi', True),
        ("alibi(variant='symmetric')", False),
        ("alibi(variant='symmetric', learned=True)", False),
        ("alibi(variant='asymmetric')", True),
        ("alibi(variant='asymmetric', side='slopes')", True),
    ],
)
def test_direction(text, directed):
    assert make(text).directed == directed


@pytest.mark.parametrize('heads', SLOPES)
def test_slopes_and_bias(heads):
    pos = np.sort(np.random.default_rng(heads).choice(2048, 11, replace=False))
    bias = make("alibi(variant='symmetric')", heads).bias(jnp.asarray(pos)[None], jnp.asarray(pos)[None])
    assert bias.shape == (1, heads, 11, 11)
    np.testing.assert_allclose(bias[0], oracle('symmetric', heads, pos[:, None] - pos[None]), rtol=1e-6)


def test_the_offset_variant_in_units_of_the_slope():
    bias = make("alibi(variant='offset')", heads=1).bias(jnp.arange(3)[None], jnp.arange(3)[None])
    expected = [[0, -1, -2], [-0.5, 0, -1], [-1.5, -0.5, 0]]
    np.testing.assert_allclose(bias[0, 0] * 256, expected, rtol=1e-6)


def test_bias_is_added_after_the_scale(case):
    """Where queries and keys are zero the logits are the bias."""
    zero = np.zeros_like(case.q)
    scheme = case.make("alibi(variant='symmetric')")
    q = jnp.asarray(zero, jnp.float32)
    coords = positions.Coords(
        q_pos=jnp.asarray(case.pos)[None],
        k_pos=jnp.asarray(case.pos)[None],
        visible=jnp.full((1, len(case.pos)), len(case.pos)),
        x=jnp.zeros((2, len(case.pos), 24)),
    )
    weights = dense.weights(q, q, position=scheme, coords=coords, mask=masks.full(), scale=0.1)
    expected = np.exp(oracle('symmetric', case.heads, case.offset))
    np.testing.assert_allclose(weights[0], expected / expected.sum(-1, keepdims=True), atol=1e-5)


def test_bfloat16_positions_would_be_wrong_and_are_not_used():
    pos = jnp.arange(1000, 1010)[None]
    bias = make("alibi(variant='symmetric')", heads=1).bias(pos, pos)
    assert bias.dtype == jnp.float32
    assert len(np.unique(np.asarray(bias))) == 10


@pytest.mark.parametrize(
    ('arguments', 'causal', 'message'),
    [
        ("variant='causal'", False, "choose 'symmetric' or 'offset'"),
        ("variant='asymmetric'", True, "needs a bidirectional model - choose 'causal'"),
        ("side='split'", False, "side='split' needs variant='asymmetric'"),
        ("variant='offset', side='slopes'", False, "side='slopes' needs variant='asymmetric'"),
        ('slopes=(1, 2, 3)', False, 'must be 4 numbers'),
        ('slopes=(1, 2, 3, -4)', False, 'of at least 0'),
        ("slopes=(1, 2, 3, 'x')", False, 'must be a list of numbers'),
        ('slopes=(1, 2, 3, 0), learned=True', False, 'must start above 0'),
        ("slopes=(1, 2, 3, 0), variant='asymmetric', side='slopes'", False, 'must start above 0'),
    ],
)
def test_errors(arguments, causal, message):
    with pytest.raises(UserError, match=message):
        make(f'alibi({arguments})', causal=causal)


def test_one_head_cannot_be_split():
    with pytest.raises(UserError, match='at least 2 heads'):
        make("alibi(variant='asymmetric')", heads=1)
