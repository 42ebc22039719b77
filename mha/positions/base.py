"""Position protocol: hooks through which position enters a Transformer, and code that schemes share.

Every hook defaults to "no effect"; a scheme overrides only the hooks it uses. Hooks take *coordinates*, which may be
random, interpolated or packed; masks are about *slots* of the array and live in `mha.nn.masks`.

Order within one attention layer, with K the head dimension before `qk` widens anything:

    q, k   = qk(q, k, coords)
    logits = q . k / sqrt(K) + bias(q_pos, k_pos) + content(q, k, q_pos, k_pos)
    logits = rows(logits, mask, q, coords)
    A      = softmax(where(mask, logits, -inf))       or  weights(logits, mask, q, coords)
    out    = A v + values(A, q_pos, k_pos)

Instead of q . k, `product(q, k, coords)` if a scheme has this hook. Instead of the softmax, another normalizer of the
layer (`mha.normalizers`). `values` changes no logit. Only one scheme uses it.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key, Num, PRNGKeyArray

from mha.arguments import Count, at_least, checked
from mha.nn.prng import rows
from mha.spec import UserError

HOOKS = ('remap', 'embed', 'qk', 'product', 'bias', 'content', 'rows', 'weights', 'values')
BARRED = -1e20
"""Upper bound of the logits with which a scheme itself hides keys."""
WHOLE = ('product', 'rows', 'weights')
"""Hooks that work on whole rows of logits. Tiled cores have none."""


@checked
@dataclasses.dataclass(frozen=True)
class Dims:
    """Facts of the model that a scheme may use: widths, the longest sequence in tokens, and the direction."""

    dim: Count
    heads: Count
    head_dim: Count
    max_len: Annotated[int, at_least(0)]
    causal: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coords:
    """Inputs of one attention call that per-layer hooks may read."""

    q_pos: Num[Array, '#B T']
    k_pos: Num[Array, '#B S']
    visible: Num[Array, '#B T'] | Num[Array, '#B T H']
    """Number of keys that each query may see; by head where the mask has some."""
    x: Float[Array, 'B T D']
    """Input of the layer, from which the queries are projected."""
    contiguous: bool = dataclasses.field(default=False, metadata={'static': True})
    """Whether coordinates are known to be the slot numbers, so that a bias of the offset needs no gather."""
    tokens: Num[Array, '#B'] | None = None
    """Number of keys that are tokens of the sequence instead of padding, even if a pattern hides them; None: all
    keys."""

    @property
    def length(self) -> Num[Array, '#B']:
        """Number of tokens in the sequence."""
        return jnp.full((1,), self.k_pos.shape[1]) if self.tokens is None else self.tokens

    @property
    def visible_by_head(self) -> Num[Array, '#B T #H']:
        return self.visible if self.visible.ndim == 3 else self.visible[:, :, None]


class Position(nnx.Module):
    """Base class of position schemes. Subclasses override the hooks they use and set the claims below that hold."""

    directed = False
    """Whether the scheme tells left from right by itself. Under other schemes, a bidirectional encoder cannot tell a
    sequence from its mirror image; a causal mask tells them apart under any scheme."""
    causal_only = False
    """Whether the scheme is defined for causal attention only."""
    first_only = False
    """Whether `remap` requires slot numbers, so that no other remap may come before it."""
    per_example = False
    """Whether `remap` draws for each example from a key of its own, even if all rows of coordinates are equal."""
    per_layer = False
    """Whether every layer places its tokens anew, from a key of its own."""
    mixes_heads = False
    """Whether the logits of a head depend on those of other heads."""
    cacheable = True
    """Whether keys and values of earlier tokens can be cached: tokens that follow do not change them, and a layer needs
    the inputs of new tokens only."""
    draws = 0
    """Number of random placements over which an evaluation averages logits; 0 for schemes without random draws in
    evaluation."""
    wraps = False
    """Whether the constructor takes the rest of the spec as `inner`. The scheme then stands for all of it."""
    dims: Dims | None = None
    """Dimensions of the model that the scheme was made for; None if `mha.positions.make` did not make it."""
    example = ''
    """Example arguments, for a scheme that cannot be built without any."""

    def __init__(self, dims: Dims, *, rngs: nnx.Rngs):
        pass

    def remap(
        self,
        pos: Num[Array, '#B T'],
        *,
        valid: Bool[Array, '#B T'] | None = None,
        key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> Num[Array, '#B T']:
        """Replaces coordinates, once per forward pass. `valid` marks real tokens, whose new coordinates must not
        depend on how much padding follows them; `key` is for schemes that draw."""
        return pos

    def embed(self, x: Float[Array, 'B T D'], pos: Num[Array, '#B T']) -> Float[Array, 'B T D']:
        """Changes the token embeddings, once per forward pass."""
        return x

    def qk(
        self, q: Float[Array, 'B T H K'], k: Float[Array, 'B S H K'], coords: Coords
    ) -> tuple[Float[Array, 'B T H W'], Float[Array, 'B S H W']]:
        """Transforms queries and keys in every layer; may append channels (the logits' scale stays 1/sqrt(K))."""
        return q, k

    def product(
        self, q: Float[Array, 'B T H W'], k: Float[Array, 'B S H W'], coords: Coords
    ) -> Float[Array, 'B H T S']:
        """Products of queries and keys that take the place of q . k. Linear in the queries, which are scaled. A key
        that is not finite makes its column NaN."""
        raise NotImplementedError

    def bias(self, q_pos: Num[Array, '#B Q'], k_pos: Num[Array, '#B P']) -> Float[Array, '#B H Q P'] | None:
        """Logits that depend on positions alone, added to the scaled products. A pure function of the parameters and
        the positions: the bias of a tile is that tile of the full bias."""
        return None

    def content(
        self,
        q: Float[Array, 'B Q H K'],
        k: Float[Array, 'B P H K'],
        q_pos: Num[Array, '#B Q'],
        k_pos: Num[Array, '#B P'],
    ) -> Float[Array, 'B H Q P'] | None:
        """Logits that depend on content and offset, added to the scaled products."""
        return None

    def rows(
        self,
        logits: Float[Array, 'B H T S'],
        mask: Bool[Array, '#B #H T S'],
        q: Float[Array, 'B T H K'],
        coords: Coords,
    ) -> Float[Array, 'B H T S']:
        """Logits computed from whole rows of logits, which are 0 where the mask hides the key."""
        return logits

    def weights(
        self,
        logits: Float[Array, 'B H T S'],
        mask: Bool[Array, '#B #H T S'],
        q: Float[Array, 'B T H K'],
        coords: Coords,
    ) -> Float[Array, 'B H T S']:
        """Attention weights computed from whole rows of logits, which are 0 where the mask hides the key, instead of
        the softmax."""
        raise NotImplementedError

    def values(
        self, weights: Float[Array, 'B H Q P'], q_pos: Num[Array, '#B Q'], k_pos: Num[Array, '#B P']
    ) -> Float[Array, 'B Q H V'] | None:
        """Term added to the output A v. Linear in the attention weights, so that it can be summed over tiles."""
        return None

    def place(
        self,
        pos: Num[Array, '#B T'],
        *,
        valid: Bool[Array, '#B T'] | None = None,
        key: Key[Array, '*B'] | None = None,
        train: bool = False,
    ) -> 'tuple[Position, Num[Array, "#B T"]]':
        """Scheme and coordinates for one forward pass. By default these are the scheme itself and the result of
        `remap`. A scheme whose random draws coordinates cannot express returns a substitute that holds the draws, as
        `nnx.data`. `key` is one for the batch, or one per example [B]."""
        if key is None or not (self.per_example or key.ndim):
            return self, self.remap(pos, valid=valid, key=key, train=train)
        pos, valid = jnp.broadcast_arrays(pos, True if valid is None else valid)
        if key.ndim:
            pos, valid = (jnp.broadcast_to(x, (len(key), x.shape[1])) for x in (pos, valid))

        def one(pos, valid, key):
            return self.remap(pos[None], valid=valid[None], key=key, train=train)[0]

        return self, jax.vmap(one)(pos, valid, rows(key, len(pos)))

    def extent(self, length: int) -> int:
        """Number of coordinates 0, 1, .. that sequences of `length` tokens can have after `remap`. Raises `ValueError`
        if the scheme cannot represent that many. This check runs before training starts."""
        return length

    @property
    def name(self) -> str:
        """Name of the scheme in specs."""
        return type(self).__module__.rpartition('.')[2]

    def overrides(self, hook: str) -> bool:
        """Whether the scheme has an effect in `hook`."""
        return getattr(type(self), hook) is not getattr(Position, hook)

    @property
    def whole_rows(self) -> bool:
        """Whether the scheme works on whole rows of logits, which tiled cores do not have."""
        return any(map(self.overrides, WHOLE))


def angles(pos: Num[Array, '#B T'], frequencies: Sequence[float]) -> Float[Array, '#B T F']:
    """Angles p f of every position and frequency, up to whole turns, in float32 whatever the compute type.

    The turns per position are fixed-point numbers of 40 bits, so that integer arithmetic drops whole turns exactly. The
    error is below 4e-6 for |p| up to a million; p must stay below 2^23. A product of float32 numbers would be off by
    0.06 there, one of bfloat16 numbers by a radian at p = 1000. Fractions of a position add f times the fraction.
    """
    f = np.asarray(frequencies, np.float64)[None, None]
    turns = (np.round(f / (2 * np.pi) * 2.0**40) % 2.0**40).astype(np.int64)  # a large f would overflow int64
    high, low = (turns >> 8).astype(np.uint32), (turns & 255).astype(np.int32)
    whole = jnp.floor(pos)
    n = whole.astype(jnp.int32)[:, :, None]
    turned = n.astype(jnp.uint32) * high + ((n * low) >> 8).astype(jnp.uint32)
    angle = jax.lax.bitcast_convert_type(turned, jnp.int32).astype(jnp.float32) * np.float32(2 * np.pi / 2**32)
    if jnp.issubdtype(pos.dtype, jnp.integer):
        return angle
    return angle + (pos - whole).astype(jnp.float32)[:, :, None] * f.astype(np.float32)


def frequencies(width: int, theta: float) -> tuple[float, ...]:
    """Frequencies theta^(-2m/width), m = 0 .. width/2 - 1, of the sinusoidal family, in float64."""
    if theta <= 0:
        raise ValueError(f'theta must be above 0, not {theta}')
    return tuple(float(theta) ** (-2 * m / width) for m in range(width // 2))


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Slopes of ALiBi as published, one per head, 1/2 and below: those of the next lower power of two come first, then
    every second one of the next higher (Press et al., 2022, arXiv:2108.12409)."""
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    between = [2 ** (-4 * (h + 1) / power) for h in range(0, 2 * power, 2)]
    return tuple(first + between[: heads - power])


def lookup(table: Float[Array, 'N D'], pos: Num[Array, '#B T']) -> Float[Array, '#B T D']:
    """Rows of a table at rounded positions; row 0 for padding on the left, at position -1. Rows that do not exist are
    NaN."""
    rows = jnp.round(pos).astype(jnp.int32)
    # Plain indexing would silently count from the end, or clamp to the last row.
    rows = jnp.where(rows < -1, len(table), jnp.maximum(rows, 0))
    return table.at[rows].get(mode='fill', fill_value=jnp.nan)


def uniform_start(fan_in: int) -> Callable[..., Array]:
    """Initial values uniform in +-1/sqrt(fan_in), as those of linear layers and convolutions in torch."""
    high = fan_in**-0.5

    def start(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -high, high)

    return start


def uniform_linear(fan_in: int, width: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Linear layer whose weights and biases start as those of `nn.Linear` in torch."""
    start = uniform_start(fan_in)
    return nnx.Linear(fan_in, width, kernel_init=start, bias_init=start, rngs=rngs)


def required(key: Key[Array, '*B'] | None) -> Key[Array, '*B']:
    """`key`; raises an error if it is None, for a scheme that draws."""
    if key is None:
        raise ValueError('the position scheme draws at random: pass rngs with a key for it')
    return key


def add_difference(
    q: Float[Array, 'B T H K'], k: Float[Array, 'B T H K'], c: Float[Array, 'B T H'], head_dim: int
) -> tuple[Float[Array, 'B T H W'], Float[Array, 'B T H W']]:
    """Queries and keys with extra channels that add c_i - c_j to the logits: [c_i, 1] for the query, [1, -c_j] for the
    key. The float32 sums c may be large. Each is split into three terms of eight bits, which bfloat16 and the float32
    products of a GPU (ten bits) represent exactly."""
    c, terms = head_dim**0.5 * c, []  # the logits' scale is 1/sqrt(K)
    for _ in range(3):
        terms.append(c.astype(jnp.bfloat16).astype(jnp.float32))
        c = c - terms[-1]
    c = jnp.stack(terms, axis=-1).astype(q.dtype)
    one = jnp.ones_like(c)
    return jnp.concatenate([q, c, one], axis=-1), jnp.concatenate([k, one, -c], axis=-1)


def first_channels(q: Float[Array, 'B T H W'], head_dim: int, name: str) -> None:
    """Raises `UserError` if another scheme has appended channels to the queries, before `name` appends its own."""
    if q.shape[-1] != head_dim:
        raise UserError(f'position scheme {name!r} appends channels: write it before other schemes that do')


def short_convolution(
    x: Float[Array, 'B T C'], taps: Float[Array, 'W C'], visible: Num[Array, '#B T']
) -> Float[Array, 'B T C']:
    """Causal convolution of each channel for itself: the last of the W taps meets the token itself, and one for s slots
    before it counts if the token sees more than s keys. So no tap reads padding or another document."""
    padded = jnp.pad(x, ((0, 0), (len(taps) - 1, 0), (0, 0)))
    total = jnp.zeros_like(x)
    for i, tap in enumerate(taps):
        seen = visible > len(taps) - 1 - i
        total += jnp.where(seen[..., None], padded[:, i : i + x.shape[1]] * tap[None, None], 0)
    return total


class OffsetBias(Position):
    """Base class of biases that depend on the offset D = p_i - p_j alone (query minus key: the past is D > 0)."""

    def offset_bias(self, offset: Num[Array, '*shape']) -> Float[Array, 'H *shape']:
        raise NotImplementedError

    def bias(self, q_pos: Num[Array, '#B Q'], k_pos: Num[Array, '#B P']) -> Float[Array, '#B H Q P']:
        return jnp.moveaxis(self.offset_bias(q_pos[:, :, None] - k_pos[:, None, :]), 0, 1)


class Rotary(Position):
    """Base class of schemes that turn pairs of channels (u, w) of q and k by the angles p f_m:

        (u, w) <- (u cos - w sin, u sin + w cos),   so that q . k depends on positions through p_i - p_j alone

    Subclasses set `self.frequencies`, `self.width // 2` of them. Only the first `fraction` of the channels turns.
    `layout` pairs channel m with m + width/2 ('half', as in GPT-NeoX and Llama) or 2m with 2m + 1 ('interleaved', as in
    the paper and GPT-J)."""

    directed = True
    amplitude = 1.0
    """Factor on the turned channels of both q and k."""

    def __init__(
        self, dims: Dims, fraction: float = 1.0, layout: Literal['half', 'interleaved'] = 'half', *, rngs: nnx.Rngs
    ):
        self.width, self.layout = round(fraction * dims.head_dim), layout
        if not 0 < fraction <= 1 or self.width % 2 or self.width == 0:
            raise ValueError(
                f'rotates pairs of channels: fraction={fraction} of head_dim={dims.head_dim} is {self.width} channels, '
                'but it must be an even number above 0'
            )
        self.frequencies: tuple[float, ...] = ()
        self.logit_scale = dims.head_dim**-0.5

    def qk(self, q, k, coords):
        return self.turn(q, coords.q_pos), self.turn(k, coords.k_pos)

    def turn(self, x: Float[Array, 'B T H K'], pos: Num[Array, '#B T']) -> Float[Array, 'B T H K']:
        """`x` with the channels of each head turned by the angles of its position."""
        return self.rotate(x, angles(pos, self.frequencies)[:, :, None])

    def turned_on(self, q, k, q_shift, k_shift, where: Bool[Array, '#B Q P']) -> Float[Array, 'B H Q P']:
        """Change of the logits if q and k, which are already turned, are turned further by `q_shift` and `k_shift` at
        the pairs in `where`."""
        q, k = (x[..., : self.width].astype(jnp.float32) for x in (q, k))
        before = jnp.einsum('bqhk,bphk->bhqp', q, k)
        after = jnp.einsum('bqhk,bphk->bhqp', self.turn(q, q_shift), self.turn(k, k_shift))
        return jnp.where(where[:, None], self.logit_scale * (after - before), 0.0)

    def rotate(self, x: Float[Array, 'B T H K'], angle: Float[Array, '#B #T #H F']) -> Float[Array, 'B T H K']:
        """`x` with its first channels turned by `angle`, computed in float32 whatever the compute type."""
        cos, sin = self.amplitude * jnp.cos(angle), self.amplitude * jnp.sin(angle)
        turning, rest = x[..., : self.width].astype(jnp.float32), x[..., self.width :]
        pairs = (2, -1) if self.layout == 'half' else (-1, 2)
        axis = -2 if self.layout == 'half' else -1
        u, w = jnp.moveaxis(turning.reshape(*x.shape[:-1], *pairs), axis, 0)
        turned = jnp.stack([u * cos - w * sin, u * sin + w * cos], axis).reshape(turning.shape)
        return jnp.concatenate([turned.astype(x.dtype), rest], axis=-1)
