"""Pictures of schemes: the cells against formulas, and the pixels against the cells."""

import io

import numpy as np
import pytest
from PIL import Image

from mha import positions
from mha.positions import Dims
from mha.views.catalogue import heatmap

T = 12
OFFSET = np.arange(T)[:, None] - np.arange(T)[None]
STAIRCASE = """
import jax.numpy as jnp
from mha.positions.base import OffsetBias

class Staircase(OffsetBias):
    def __init__(self, dims, *, rngs):
        self.heads = dims.heads

    def offset_bias(self, offset):
        return jnp.broadcast_to(-(jnp.abs(offset) // 4).astype(jnp.float32), (self.heads, *offset.shape))
"""
ZEROS = """
import jax.numpy as jnp
from flax import nnx
from mha.positions.base import OffsetBias

class Zeros(OffsetBias):
    def __init__(self, dims, *, rngs):
        self.slope = nnx.Param(jnp.zeros(dims.heads))

    def offset_bias(self, offset):
        return self.slope[...].reshape(-1, *[1] * offset.ndim) * offset[None]
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / 'stairs.py').write_text(STAIRCASE)
    (tmp_path / 'zeros.py').write_text(ZEROS)
    monkeypatch.setattr(positions, '__path__', [*positions.__path__, str(tmp_path)])


def compute(text, causal=False, **sizes):
    return heatmap.compute(text, Dims(**{'dim': 16, 'heads': 2, 'head_dim': 8, 'max_len': T, **sizes}, causal=causal))


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('sizes', [{}, {'dim': 12}, {'heads': 3}])
def test_cells_are_the_formula(plugins, causal, sizes):
    """One token repeated has the logit 1 everywhere, and the rest is the scheme's."""
    drawn = compute('stairs', causal, **sizes)
    assert (drawn.quantity, drawn.moved) == ('logit', False)
    visible = (OFFSET >= 0) | (not causal)
    np.testing.assert_allclose(drawn.values, np.where(visible, 1 - abs(OFFSET) // 4, np.nan), atol=1e-6)


def test_parameters_are_moved_where_they_show_nothing(plugins):
    drawn = compute('zeros')
    assert drawn.moved
    slope = drawn.values[1, 0] - 1
    assert abs(slope) > 1e-2
    np.testing.assert_allclose(drawn.values, 1 + slope * OFFSET, atol=1e-5)
    assert not compute('zeros|stairs').moved


def test_without_a_scheme_all_logits_are_one():
    drawn = compute('none')
    np.testing.assert_allclose(drawn.values, np.ones((T, T)), atol=1e-6)
    assert drawn.flat
    assert not drawn.moved


def test_embeddings_reach_queries_and_keys():
    """(z + e_i) . (z + e_j): without the terms of one position alone, the product of the embeddings is left."""
    values = compute('sincos', heads=1, head_dim=16).values
    angle = np.arange(T)[:, None] * 10000.0 ** (-np.arange(8) / 8)
    wave = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(T, 16)

    def centred(a):
        return a - a.mean(0) - a.mean(1)[:, None] + a.mean()

    actual, product = centred(values), centred(wave @ wave.T)
    np.testing.assert_allclose(actual / np.abs(actual).max(), product / np.abs(product).max(), atol=1e-5)
    assert np.ptp(values - actual) > 0.1  # the terms of one position


def test_schemes_that_place_tokens_are_shown_by_their_offsets():
    drawn = compute('pi(scale=4)')
    assert drawn.quantity == 'D'
    np.testing.assert_allclose(drawn.values, OFFSET / 4, atol=1e-6)
    drawn = compute('randomize(max_position=64)').values
    np.testing.assert_array_equal(drawn, drawn[:, :1] - drawn[:, :1].T)
    assert (np.diff(drawn[:, 0]) >= 1).all()
    assert drawn[-1, 0] > T
    drawn = compute('randomize_offsets(max_position=64)').values
    assert all(len(set(np.diagonal(drawn, shift))) == 1 for shift in range(-T + 1, T))
    assert drawn[-1, 0] > T
    np.testing.assert_array_equal(compute('none|pi(scale=2)').values, OFFSET / 2)


def test_weights_are_shares_of_the_largest_of_their_row():
    drawn = compute('stickbreaking', causal=True)
    assert drawn.quantity == 'A / max'
    rest = 1 - 1 / (1 + np.exp(-1))  # of the stick after a token whose logit is 1
    expected = np.where(OFFSET > 0, rest ** (OFFSET - 1.0), 0)
    np.testing.assert_allclose(drawn.values, np.where(OFFSET >= 0, expected, np.nan), atol=1e-5)


def test_heads_that_mask_a_key_themselves_do_not_count():
    values = compute("alibi(variant='asymmetric')").values
    assert np.nanmin(values) > -T
    assert np.isfinite(values).all()


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert('RGB'), int)


@pytest.mark.parametrize('length', [2, T, 500])
def test_pixels(length):
    """Every cell is a square of one colour: brighter is more, white is masked."""
    values = -np.abs(np.subtract.outer(np.arange(length), np.arange(length))).astype(float)
    values[np.triu_indices(length, 1)] = np.nan
    image = pixels(heatmap.png(heatmap.Heatmap(values, 'logit', moved=False)))
    size = -(-heatmap.SIDE // length)
    right = heatmap.LEFT + size * length
    cells = image[-heatmap.BOTTOM - size * length : -heatmap.BOTTOM, heatmap.LEFT : right]
    assert image.shape == (heatmap.BOTTOM + size * length + 12, right + heatmap.RIGHT, 3)
    blocks = cells.reshape(length, size, length, size, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    cells = blocks[:, 0, :, 0].sum(-1)
    assert (cells[np.triu_indices(length, 1)] == 3 * 255).all()
    assert (cells[0, 0] == np.diagonal(cells)).all()
    assert cells[-1, 0] < cells[0, 0] < 3 * 255
    assert (image[:, -3:] == 255).all()  # labels fit


def test_size_title_and_note():
    drawn = compute('randomize(max_position=2048)')
    png = heatmap.png(drawn)
    assert len(png) < 20_000
    titled = pixels(heatmap.png(drawn, title='x' * 300))
    assert titled.shape[0] > pixels(png).shape[0]
    assert (titled[:, -3:] == 255).all()
    noted = heatmap.png(heatmap.Heatmap(drawn.values, drawn.quantity, moved=True))
    assert 0 < heatmap.distance(png, noted) < heatmap.distance(png, heatmap.png(compute('none')))


def test_distance_tells_schemes_apart_and_machines_not():
    one, other = heatmap.png(compute('rope')), heatmap.png(compute('rope(theta=100)'))
    nudged = compute('rope')
    nudged = heatmap.Heatmap(nudged.values * (1 + 1e-5), nudged.quantity, nudged.moved)
    assert heatmap.distance(one, one) == 0
    assert heatmap.distance(one, heatmap.png(nudged)) < heatmap.SAME < heatmap.distance(one, other)
    assert heatmap.distance(one, heatmap.png(nudged, title='rope')) == np.inf
