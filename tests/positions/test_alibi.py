"""ALiBi against the paper's slopes and the three biases of encoders and decoders."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import masks, positions
from mha.cores import dense
from mha.positions import Dims
from mha.spec import UserError

# Press et al. (2022), section 3, and the rule of their code for a head count that is no power of two.
SLOPES = {
    1: [2**-8],
    2: [2**-4, 2**-8],
    3: [2**-4, 2**-8, 2**-2],
    4: [2**-2, 2**-4, 2**-6, 2**-8],
    8: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256],
    12: [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
}


def oracle(variant, heads, offset):
    """b [H, T, S] from the offsets D."""
    distance = np.abs(offset).astype(np.float64)
    if variant == 'offset':
        distance = np.where(offset > 0, distance - 0.5, distance)
    return -np.array(SLOPES[heads])[:, None, None] * distance


def make(text, heads=4, causal=False):
    return positions.make(text, Dims(24, heads, 8, max_len=32, causal=causal), rngs=nnx.Rngs(0))


@pytest.mark.parametrize('variant', [None, 'causal', 'symmetric', 'offset'])
def test_weights(variant, case):
    if variant == 'causal' and not case.causal:
        pytest.skip('refused, see below')
    expected = variant or ('causal' if case.causal else 'offset')
    text = 'alibi' if variant is None else f'alibi(variant={variant!r})'
    case.check(case.make(text), case.dot() + oracle(expected, case.heads, case.offset))


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


def test_the_causal_variant_needs_a_causal_model():
    with pytest.raises(UserError, match="choose 'symmetric' or 'offset'"):
        make("alibi(variant='causal')")
