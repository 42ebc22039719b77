"""Picture of what a position scheme does to attention. All tokens are equal, so that all structure is due to position:

    x_i = z + embedding,   z ~ N(0, 1/sqrt(K)),   q_i = k_i = the heads of x_i, scaled so that z . z / sqrt(K) = 1
    cell (i, j) = mean over heads of   q_i . k_j / sqrt(K) + bias + content,   or of the weights A_ij

For a scheme that replaces the softmax, weights are divided by the largest weight of their row. A scheme that only
changes coordinates is shown by the offsets D = p_i - p_j in training.
"""

import dataclasses
import io
import math
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx
from matplotlib import colormaps
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mha import positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import HOOKS, Chain, Coords, Dims, OffsetBias, Position

MOVE = 0.5
"""Standard deviation of the noise added to parameters whose initial values show no structure."""


@dataclasses.dataclass(frozen=True)
class Heatmap:
    values: np.ndarray
    """Values [T, T] with queries down and keys across; NaN for masked keys."""
    quantity: str
    moved: bool
    """Whether noise was added to the initial parameters."""

    @property
    def flat(self) -> bool:
        return bool(np.nanmax(self.values) - np.nanmin(self.values) < 1e-4)


def compute(text: str, dims: Dims) -> Heatmap:
    """Heatmap of a spec for `dims.max_len` tokens."""
    scheme = nnx.eval_shape(lambda: positions.make(text, dims, rngs=nnx.Rngs(0)))
    moves_only = set(hooks(scheme)) in ({'remap'}, {'place'}, {'remap', 'place'})
    quantity = 'D' if moves_only else 'A / max' if scheme.whole_rows else 'logit'
    mask = masks.causal() if dims.causal else masks.full()
    visible = np.asarray(mask.dense(dims.max_len, dims.max_len)[0, 0])

    scale = 0.0 if moves_only else dims.head_dim**-0.5
    z = np.random.default_rng(0).standard_normal(dims.dim).astype(np.float32) * dims.head_dim**-0.25

    @jax.jit
    def cells(z, key, move):
        scheme = positions.make(text, dims, rngs=nnx.Rngs(key))
        params, tree = jax.tree.flatten(nnx.state(scheme, nnx.Param))
        keys = jax.random.split(key, len(params) + 1)
        params = [p + move * jax.random.normal(k, p.shape, p.dtype) for p, k in zip(params, keys, strict=False)]
        nnx.update(scheme, jax.tree.unflatten(tree, params))
        return _cells(_shown(scheme, dims) if moves_only else scheme, z, mask, scale, keys[-1], dims)

    key = jax.random.key(0)
    with jax.default_matmul_precision('highest'):
        values, moved = np.asarray(cells(z, key, 0.0)), False
        if jax.tree.leaves(nnx.state(scheme, nnx.Param)) and np.allclose(values * visible, visible, atol=1e-4):
            values, moved = np.asarray(cells(z, key, MOVE)), True
    return Heatmap(np.where(visible, values, np.nan), quantity, moved)


def hooks(scheme: Position) -> list[str]:
    """Hooks that a scheme uses. 'place' stands for random draws that coordinates cannot express."""
    parts = scheme.parts if isinstance(scheme, Chain) else [scheme]
    places = any(type(part).place is not Position.place for part in parts)
    return ['place'] * places + [hook for hook in HOOKS if scheme.overrides(hook)]


def _cells(scheme, z, mask, scale, key, dims):
    """Values [T, T], averaged over heads."""
    length, width = dims.max_len, dims.heads * dims.head_dim
    scheme, pos = scheme.place(jnp.arange(length)[None], key=key, train=True)

    def split(x):  # into heads, repeating or dropping channels if H K is not D
        return x[..., np.arange(width) % dims.dim].reshape(*x.shape[:-1], dims.heads, dims.head_dim)

    token = jnp.broadcast_to(z, (1, length, dims.dim))
    unit = dims.head_dim**0.25 / jnp.linalg.norm(split(token), axis=-1, keepdims=True)
    x = scheme.embed(token, pos)
    coords = Coords(q_pos=pos, k_pos=pos, visible=mask.dense(length, length)[:, 0].sum(-1), x=x)
    q, k = scheme.qk(unit * split(x), unit * split(x), coords)
    if scheme.whole_rows:
        a = dense.weights(q, k, position=scheme, coords=coords, mask=mask, scale=scale)[0].mean(0)
        return a / jnp.maximum(a.max(-1, keepdims=True), 1e-30)
    logits = scale * jnp.einsum('bthw,bshw->bhts', q, k)
    for term in (scheme.bias(pos, pos), scheme.content(q, k, pos, pos)):
        logits = logits if term is None else logits + term
    return logits[0].mean(0, where=logits[0] > -1e20)  # heads that mask j themselves are left out


class _Offset(OffsetBias):
    """Bias b = D, which shows the offsets that a scheme sees."""

    def __init__(self, dims):
        self.heads = dims.heads

    def offset_bias(self, offset):
        return jnp.broadcast_to(offset.astype(jnp.float32), (self.heads, *offset.shape))


def _shown(scheme: Position, dims: Dims) -> Position:
    """Scheme that only changes coordinates, followed by one that shows the offsets."""
    *before, last = scheme.parts if isinstance(scheme, Chain) else [scheme]
    if last.wraps:
        last.inner = _Offset(dims)  # pyright: ignore[reportAttributeAccessIssue] - what `wraps` promises
        return Chain([*before, last], '')
    return Chain([*before, last, _Offset(dims)], '')


SIDE, LEFT, BOTTOM, RIGHT, BAR = 480, 62, 60, 104, 16
"""Pixels: smallest side of the square of cells, margins on the left, bottom and right, width of the colour bar."""
INK, GREY = '#24292f', '#57606a'
STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans',
    'font.size': 18,
    'text.parse_math': False,
    'axes.linewidth': 0,
    'text.color': INK,
    'axes.labelcolor': INK,
    'xtick.labelcolor': GREY,
    'ytick.labelcolor': GREY,
    'xtick.major.size': 0,
    'ytick.major.size': 0,
    'xtick.major.pad': 5,
    'ytick.major.pad': 5,
    'figure.dpi': 72,
    'savefig.dpi': 72,
}


def png(heatmap: Heatmap, title: str = '') -> bytes:
    """Picture as PNG. Every cell has the same whole number of pixels."""
    length = len(heatmap.values)
    side = length * math.ceil(SIDE / length)
    width, height = LEFT + side + RIGHT, BOTTOM + side + (44 if title else 12)
    low, high = float(np.nanmin(heatmap.values)), float(np.nanmax(heatmap.values))
    if heatmap.quantity == 'D':
        norm, colours = CenteredNorm(0, max(-low, high)), 'RdBu'
    else:
        norm, colours = Normalize(low - heatmap.flat / 2, high + heatmap.flat / 2), 'viridis'
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))

        def panel(left, wide):
            return figure.add_axes((left / width, BOTTOM / height, wide / width, side / height))

        def write(text, left, bottom, **style):
            figure.text(left / width, bottom / height, text, **style)

        axes = panel(LEFT, side)
        image = axes.imshow(
            heatmap.values, cmap=colormaps[colours].resampled(160), norm=norm, interpolation='nearest', aspect='auto'
        )
        ticks = sorted({0, length // 4, length // 2, 3 * length // 4, length - 1})
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        write('key j', LEFT + side / 2, 10, ha='center')
        write('query i', 6, BOTTOM + side / 2, va='center', rotation='vertical')
        left = LEFT + side + 12
        bar = figure.colorbar(image, cax=panel(left, BAR), ticks=MaxNLocator(5))
        bar.outline.set_visible(False)
        write(heatmap.quantity, left, 10)
        if heatmap.moved:
            write('parameters moved', LEFT, 10, color=GREY, fontsize=15)
        write(title if len(title) <= 50 else f'{title[:49]}…', LEFT, BOTTOM + side + 14)
        drawn, file = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format='png')
    Image.open(drawn).convert('RGB').quantize(255, dither=Image.Dither.NONE).save(file, format='png', optimize=True)
    return file.getvalue()


SAME = 0.5
"""Largest distance of two pictures that count as equal, because fonts and compilers differ slightly between
machines."""


def distance(one: bytes, other: bytes) -> float:
    """Mean difference of two PNGs, in units of 1/255."""
    a, b = (np.asarray(Image.open(io.BytesIO(png)).convert('RGB'), np.int16) for png in (one, other))
    return float(np.abs(a - b).mean()) if a.shape == b.shape else math.inf
