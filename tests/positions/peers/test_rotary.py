"""The rotary family against public implementations. Theirs compute angles as float32 products, so positions are near.

Differences of convention, read in their code:
- transformers names the trained length `max_position_embeddings` in the dynamic form of NTK and
  `original_max_position_embeddings` elsewhere, and counts the largest position plus one where we count tokens.
- x-transformers and rotary-embedding-torch have heads before tokens and pair channels 2m and 2m + 1. xPos is centred at
  half the batch's length there; the centre cancels in the logits.
- x-transformers keeps delta of PoPE as [H, 1, K].
- rotary-embedding-torch takes a row and a column for its axial form, where we take the cell's number.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.positions import Coords, Dims

torch = pytest.importorskip('torch')

HEADS, WIDTH, LENGTH = 3, 16, 24
LONG, SHORT = tuple(1 + 0.9 * m for m in range(8)), tuple(1 + 0.1 * m for m in range(8))


def make(text, width=WIDTH, causal=True):
    return positions.make(text, Dims(48, HEADS, width, 64, causal), rngs=nnx.Rngs(0))


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ours(scheme, q, k):
    """Queries and keys [B, H, T, W] of our scheme at positions 0, 1, .."""
    pos = jnp.arange(LENGTH)[None]
    coords = Coords(q_pos=pos, k_pos=pos, visible=pos + 1, x=jnp.zeros((2, LENGTH, 48)))
    return [
        np.moveaxis(np.asarray(x), 1, 2)
        for x in scheme.qk(*(jnp.asarray(np.moveaxis(x, 1, 2)) for x in (q, k)), coords)
    ]


def queries_and_keys():
    return draw(2, HEADS, LENGTH, WIDTH), draw(2, HEADS, LENGTH, WIDTH, seed=1)


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config():
    transformers = pytest.importorskip('transformers')

    def build(**parameters):
        return transformers.LlamaConfig(
            hidden_size=HEADS * WIDTH,
            num_attention_heads=HEADS,
            head_dim=WIDTH,
            max_position_embeddings=32,
            rope_parameters=dict(rope_theta=1000.0, **parameters),
        )

    return build


@pytest.mark.parametrize(
    ('text', 'rope_type', 'parameters', 'length'),
    [
        ('yarn(scale=4, original_length=2048, theta=1000.0)', 'yarn', dict(factor=4.0, original=2048), None),
        ('yarn(scale=8, original_length=40, theta=1000.0)', 'yarn', dict(factor=8.0, original=40), None),
        (
            'yarn(scale=8, original_length=4096, theta=1000.0, beta_fast=20, beta_slow=3, attention_factor=1.3)',
            'yarn',
            dict(factor=8.0, original=4096, beta_fast=20, beta_slow=3, attention_factor=1.3),
            None,
        ),
        (
            'llama3(scale=5, original_length=256, theta=1000.0)',
            'llama3',
            dict(factor=5.0, low_freq_factor=1.0, high_freq_factor=4.0, original=256),
            None,
        ),
        (
            f'longrope(factors={LONG}, scale=4, original_length=64, theta=1000.0)',
            'longrope',
            dict(factor=4.0, long_factor=LONG, short_factor=SHORT, original=64),
            65,
        ),
        (
            f'longrope(factors={SHORT}, scale=4, original_length=64, theta=1000.0)',
            'longrope',
            dict(factor=4.0, long_factor=LONG, short_factor=SHORT, original=64),
            64,
        ),
        ('prope(p=0.75, theta=1000.0)', 'proportional', dict(partial_rotary_factor=0.75), None),
        ('prope(p=0.3, theta=1000.0)', 'proportional', dict(partial_rotary_factor=0.3), None),
    ],
)
def test_frequencies(text, rope_type, parameters, length, config):
    functions = pytest.importorskip('transformers.modeling_rope_utils').ROPE_INIT_FUNCTIONS
    if rope_type not in functions:
        pytest.skip(f'this release of transformers has no {rope_type}')
    parameters = {
        'original_max_position_embeddings' if key == 'original' else key: list(value) if key.endswith('r_') else value
        for key, value in parameters.items()
    }
    expected, factor = functions[rope_type](config(rope_type=rope_type, **parameters), seq_len=length)
    scheme = make(text)
    np.testing.assert_allclose(scheme.frequencies, expected, rtol=2e-6)
    assert scheme.amplitude == pytest.approx(factor, rel=1e-6)


def test_linear_frequencies(config):
    """They divide the frequencies, we the positions."""
    functions = pytest.importorskip('transformers.modeling_rope_utils').ROPE_INIT_FUNCTIONS
    expected, _ = functions['linear'](config(rope_type='linear', factor=4.0))
    turn = np.exp(1j * np.outer(np.arange(LENGTH), np.asarray(expected, np.float64)))
    scheme = make('pi(scale=4)|rope(theta=1000.0)')
    pos = scheme.remap(jnp.arange(LENGTH)[None])
    out = np.asarray(scheme.parts[1].turn(jnp.ones((1, LENGTH, 1, WIDTH)), pos))[0, :, 0]
    np.testing.assert_allclose(out[:, :8] + 1j * out[:, 8:], (1 + 1j) * turn, atol=1e-5)


@pytest.mark.parametrize('n', [20, 32, 33, 200])
def test_dynamic_frequencies(n, config):
    functions = pytest.importorskip('transformers.modeling_rope_utils').ROPE_INIT_FUNCTIONS
    expected, _ = functions['dynamic'](config(rope_type='dynamic', factor=3.0), seq_len=n)
    scheme = make('ntk(dynamic=True, scale=3, original_length=32, theta=1000.0)')
    x = jnp.ones((1, LENGTH, 1, WIDTH))
    pos = jnp.arange(LENGTH)[None]
    x_in, tokens = jnp.zeros((1, LENGTH, 48)), jnp.asarray([n])
    coords = Coords(q_pos=pos, k_pos=pos, visible=jnp.full((1, LENGTH), n), x=x_in, tokens=tokens)
    turn = (1 + 1j) * np.exp(1j * np.outer(np.arange(LENGTH), np.asarray(expected, np.float64)))
    for out in scheme.qk(x, x, coords):
        out = np.asarray(out)[0, :, 0]
        np.testing.assert_allclose(out[:, :8] + 1j * out[:, 8:], turn, atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'parameters'),
    [
        ('rope(theta=1000.0)', dict(rope_type='default')),
        (
            'yarn(scale=4, original_length=2048, theta=1000.0)',
            dict(rope_type='yarn', factor=4.0, original_max_position_embeddings=2048),
        ),
    ],
)
def test_llama(text, parameters, config):
    llama = pytest.importorskip('transformers.models.llama.modeling_llama')
    q, k = queries_and_keys()
    cos, sin = llama.LlamaRotaryEmbedding(config(**parameters))(torch.tensor(q), torch.arange(LENGTH)[None])
    expected = llama.apply_rotary_pos_emb(torch.tensor(q), torch.tensor(k), cos, sin)
    for found, wanted in zip(ours(make(text), q, k), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


# --- x-transformers --------------------------------------------------------------------------------------------------


@pytest.fixture
def x_transformers():
    return pytest.importorskip('x_transformers.x_transformers')


@pytest.mark.parametrize(
    ('text', 'settings'),
    [
        ("rope(layout='interleaved')", dict()),
        ("rope(layout='interleaved', fraction=0.5, theta=500.0)", dict(dim=8, base=500)),
        ("ntk(scale=4, layout='interleaved')", dict(base_rescale_factor=4)),
    ],
)
def test_x_transformers_rotary(text, settings, x_transformers):
    q, k = queries_and_keys()
    angles, _ = x_transformers.RotaryEmbedding(**dict(dim=WIDTH) | settings)(torch.arange(LENGTH))
    for found, x in zip(ours(make(text), q, k), (q, k), strict=True):
        expected = x_transformers.apply_rotary_pos_emb(torch.tensor(x), angles)
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize('scale_base', [512, 20])
def test_x_transformers_xpos(scale_base, x_transformers):
    q, k = queries_and_keys()
    angles, scale = x_transformers.RotaryEmbedding(WIDTH, use_xpos=True, scale_base=scale_base)(torch.arange(LENGTH))
    theirs_q = x_transformers.apply_rotary_pos_emb(torch.tensor(q), angles, scale)
    theirs_k = x_transformers.apply_rotary_pos_emb(torch.tensor(k), angles, scale**-1)
    found_q, found_k = ours(make(f"xpos(scale_base={scale_base}, layout='interleaved')"), q, k)
    past = np.tril(np.ones((LENGTH, LENGTH), bool))
    expected = (theirs_q @ theirs_k.mT).numpy()
    np.testing.assert_allclose((found_q @ found_k.swapaxes(-1, -2))[..., past], expected[..., past], atol=5e-5)


def test_x_transformers_pope(x_transformers):
    if not hasattr(x_transformers, 'PolarEmbedding'):
        pytest.skip('this release of x-transformers has no PoPE')
    q, k = queries_and_keys()
    scheme, theirs = make('pope'), x_transformers.PolarEmbedding(WIDTH, HEADS)
    delta = 4 * draw(HEADS, WIDTH, seed=2) - 3
    scheme.delta[...] = jnp.asarray(delta)
    theirs.learned_bias.data = torch.tensor(delta)[:, None]
    angles, bias = theirs(torch.arange(LENGTH))
    expected = [x_transformers.apply_polar_pos_emb(torch.tensor(x), a) for x, a in ((q, angles), (k, angles + bias))]
    for found, wanted in zip(ours(scheme, q, k), expected, strict=True):
        np.testing.assert_allclose(found, wanted.detach(), atol=2e-5)


# --- rotary-embedding-torch ------------------------------------------------------------------------------------------


@pytest.fixture
def rotary_torch():
    return pytest.importorskip('rotary_embedding_torch')


@pytest.mark.parametrize(
    ('text', 'settings'),
    [
        ("rope(layout='interleaved')", dict()),
        ("ntk(scale=4, layout='interleaved', theta=500.0)", dict(theta=500, theta_rescale_factor=4)),
    ],
)
def test_rotary_embedding_torch(text, settings, rotary_torch):
    q, k = queries_and_keys()
    theirs = rotary_torch.RotaryEmbedding(WIDTH, **settings)
    for found, x in zip(ours(make(text), q, k), (q, k), strict=True):
        np.testing.assert_allclose(found, theirs.rotate_queries_or_keys(torch.tensor(x)).detach(), atol=2e-5)


def test_rotary_embedding_torch_xpos(rotary_torch):
    q, k = queries_and_keys()
    theirs = rotary_torch.RotaryEmbedding(WIDTH, use_xpos=True, xpos_scale_base=20)
    theirs_q, theirs_k = theirs.rotate_queries_and_keys(torch.tensor(q), torch.tensor(k))
    found_q, found_k = ours(make("xpos(scale_base=20, layout='interleaved')"), q, k)
    past = np.tril(np.ones((LENGTH, LENGTH), bool))
    expected = (theirs_q @ theirs_k.mT).detach().numpy()
    np.testing.assert_allclose((found_q @ found_k.swapaxes(-1, -2))[..., past], expected[..., past], atol=5e-5)


def test_rotary_embedding_torch_axial(rotary_torch):
    q, k = queries_and_keys()
    theirs = rotary_torch.RotaryEmbedding(WIDTH // 2, theta=100)
    angles = theirs.get_axial_freqs(LENGTH // 6, 6).reshape(LENGTH, WIDTH)
    for found, x in zip(ours(make("rope2d(columns=6, layout='interleaved')"), q, k), (q, k), strict=True):
        expected = rotary_torch.apply_rotary_emb(angles, torch.tensor(x))
        np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
