"""Masks: which keys each query may see. Masks are composable objects that are evaluated in tiles, from slot indices.

A mask depends on slots of the array, never on coordinates, which may be random, packed or interpolated. `causal() &
padding(valid)` shows the keys that both masks show, `window(64) | global_(2)` those that either shows; as a spec, the
latter is `make('window(64)|global(2)')`. No mask depends on the length of the sequence: in a longer sequence, a query
sees the same keys and possibly more.
"""

import dataclasses
import functools
import operator
from typing import Annotated, Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, Shaped

from mha import arguments, spec

Slots = int | np.integer | np.ndarray
"""Slots that are known when a program is traced: one, or an array of them."""
Slot = Annotated[int, arguments.at_least(0), arguments.at_most(arguments.REACH)]
"""Number of slots in a pattern."""
Stride = Annotated[int, arguments.at_least(1), arguments.at_most(arguments.REACH)]
"""Number of slots in a pattern, at least one."""
CHUNK = 2**20
"""Number of pairs of slots that `Mask.count` evaluates at a time."""


@dataclass_transform(frozen_default=True)
def _mask(cls):
    made = dataclasses.dataclass(frozen=True)(cls)
    static = {field.name for field in dataclasses.fields(made) if 'static' in field.metadata}
    made.__init__ = arguments.checked(made.__init__, static)  # arrays may be anything inside jax
    return jax.tree_util.register_dataclass(made)


def _static(**options) -> Any:
    return dataclasses.field(metadata={'static': True}, **options)


class Mask:
    """Base class of masks. Subclasses define `tile` and, if they can tell empty tiles, `block`. Their arrays may be
    traced."""

    @property
    def reach(self) -> int | None:
        """Number of slots before a query beyond which it sees no key; None if there is no such limit."""
        return None

    def tile(self, q: Int[Array, 'Q'], k: Int[Array, 'P']) -> Bool[Array, '#B #H Q P']:
        """Tile of the mask: true if the query in slot q[i] may see the key in slot k[j]."""
        raise NotImplementedError

    def block(self, q_start: Slots, q_stop: Slots, k_start: Slots, k_stop: Slots) -> np.ndarray:
        """False only if no query in [q_start, q_stop) sees a key in [k_start, k_stop), so that the tile may be skipped.
        No range may be empty; bounds broadcast. Always true for masks that depend on traced data."""
        return np.ones(np.broadcast_shapes(*map(np.shape, (q_start, q_stop, k_start, k_stop))), bool)

    def check(self, queries: int | None, keys: int) -> None:
        """Raises `ValueError` if an array of the mask is made for another number of queries or keys. (Indexing past its
        end would repeat its last entry.) `queries` is None if the queries do not begin in slot 0."""

    def present(self, queries: int, keys: int) -> Bool[Array, '#B S']:
        """Keys that are tokens of the sequence instead of padding, even if a pattern hides them from a query."""
        return jnp.ones((1, keys), bool)

    def dense(self, queries: int, keys: int) -> Bool[Array, '#B #H T S']:
        """Whole mask as an array."""
        self.check(queries, keys)
        return self.tile(jnp.arange(queries), jnp.arange(keys))

    def count(self, queries: int, keys: int) -> Int[Array, '#B T'] | Int[Array, '#B T H']:
        """Number of keys that each query sees, per head if the mask differs between heads. Computed without an array of
        all pairs."""
        self.check(queries, keys)

        def row(q):
            return self.tile(q[None], jnp.arange(keys))[:, :, 0].sum(-1)

        found = jax.lax.map(row, jnp.arange(queries), batch_size=max(1, CHUNK // max(1, keys)))
        return found[:, :, 0].T if found.shape[2] == 1 else found.swapaxes(0, 1)

    def __and__(self, other: 'Mask') -> 'Mask':
        return And(self, other) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: 'Mask') -> 'Mask':
        return Or(self, other) if isinstance(other, Mask) else NotImplemented


@_mask
class And(Mask):
    """Intersection of two masks. `block` may be true for an empty tile in which both masks show something, but nothing
    in common. It is exact if one is `causal` and the other depends only on the offset (`causal`, `window`, `dilated`,
    `strided`)."""

    first: Mask
    second: Mask

    @property
    def reach(self):
        return min((mask.reach for mask in (self.first, self.second) if mask.reach is not None), default=None)

    def tile(self, q, k):
        return self.first.tile(q, k) & self.second.tile(q, k)

    def present(self, queries, keys):
        return self.first.present(queries, keys) & self.second.present(queries, keys)

    def block(self, q_start, q_stop, k_start, k_stop):
        bounds = (q_start, q_stop, k_start, k_stop)
        return self.first.block(*bounds) & self.second.block(*bounds)

    def check(self, queries, keys):
        self.first.check(queries, keys)
        self.second.check(queries, keys)


@_mask
class Or(Mask):
    """Union of two masks. `block` is exact if it is exact for both."""

    first: Mask
    second: Mask

    @property
    def reach(self):
        first, second = self.first.reach, self.second.reach
        return None if first is None or second is None else max(first, second)

    def tile(self, q, k):
        return self.first.tile(q, k) | self.second.tile(q, k)

    def present(self, queries, keys):
        return self.first.present(queries, keys) | self.second.present(queries, keys)

    def block(self, q_start, q_stop, k_start, k_stop):
        bounds = (q_start, q_stop, k_start, k_stop)
        return self.first.block(*bounds) | self.second.block(*bounds)

    def check(self, queries, keys):
        self.first.check(queries, keys)
        self.second.check(queries, keys)


@_mask
class full(Mask):
    """Mask under which every query sees every key."""

    def tile(self, q, k):
        return jnp.ones((1, 1, q.size, k.size), bool)


@_mask
class later(Mask):
    """`mask` in a step of decoding a sequence of up to `length` tokens: queries are in slots `start`, start + 1, ..,
    keys in slots `first`, first + 1, .., of which a negative one holds no key."""

    mask: Mask
    start: Int[Array, '']
    first: Int[Array, ''] | int
    length: int = _static()

    def tile(self, q, k):
        return self.mask.tile(q + self.start, k + self.first) & (k + self.first >= 0)[None, None, None]

    def present(self, queries, keys):
        """Tokens of the whole sequence [#B, length], even those whose keys are not kept."""
        return self.mask.present(queries, self.length) & (jnp.arange(self.length) < self.start + queries)[None]

    def check(self, queries, keys):
        self.mask.check(None, self.length)


@_mask
class padding(Mask):
    """Mask that hides padding: only keys with `valid` [#B, S] are seen."""

    valid: Bool[Array, '#B S']

    def tile(self, q, k):
        seen = self.valid[:, k][:, None, None, :]
        return jnp.broadcast_to(seen, (seen.shape[0], 1, q.size, k.size))

    def present(self, queries, keys):
        return self.valid

    def check(self, queries, keys):
        _serves('padding', self.valid.shape[1], keys, 'keys')


@_mask
class segments(Mask):
    """Mask for packed sequences: a query sees the keys with the same segment number in `ids` [#B, T]."""

    ids: Int[Array, '#B T']

    def tile(self, q, k):
        return (self.ids[:, q][:, :, None] == self.ids[:, k][:, None, :])[:, None]

    def check(self, queries, keys):
        longest = max(queries or 0, keys)  # queries and keys count slots of the same sequence
        _serves('segments', self.ids.shape[1], longest if longest > self.ids.shape[1] else None, 'tokens')


@_mask
class explicit(Mask):
    """Mask given as a boolean array [#B, #H, #T, #S]."""

    allowed: Bool[Array, '#B #H #T #S']

    def tile(self, q, k):
        rows, columns = self.allowed.shape[2:]
        q, k = (q if rows > 1 else q * 0), (k if columns > 1 else k * 0)  # an axis of size 1 is broadcast
        return self.allowed[:, :, q][:, :, :, k]

    def present(self, queries, keys):
        some = self.allowed.any((1, 2))
        return jnp.broadcast_to(some, (len(some), keys))

    def check(self, queries, keys):
        for has, asked, of in zip(self.allowed.shape[2:], (queries, keys), ('queries', 'keys'), strict=True):
            if has != 1:
                _serves('a boolean array', has, asked, of)


# --- patterns, which specs may name ---------------------------------------------------------------------------------


class OffsetMask(Mask):
    """Base class of masks that depend only on the offset j - i, positive for keys after the query. `block` is exact."""

    def sees(self, ahead: Array) -> Array:
        """Whether a query sees the key that is `ahead` slots after it."""
        raise NotImplementedError

    def meets(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Whether a query sees any of the offsets low, low + 1, .., high."""
        raise NotImplementedError

    def tile(self, q, k):
        return self.sees(k[None, :] - q[:, None])[None, None]

    def block(self, q_start, q_stop, k_start, k_stop):
        return self.meets(np.asarray(k_start) - q_stop + 1, np.asarray(k_stop) - 1 - q_start)


@_mask
class causal(OffsetMask):
    """Mask under which a query sees its own slot and earlier ones."""

    def sees(self, ahead):
        return ahead <= 0

    def meets(self, low, high):
        return np.broadcast_arrays(low <= 0, high)[0]


@_mask
class window(OffsetMask):
    """Sliding window: a query sees `left` slots before it, itself, and `right` slots after it, by default as many
    (Longformer; Beltagy et al., 2020, arXiv:2004.05150)."""

    left: Slot = _static()
    right: Slot | None = _static(default=None)

    def __post_init__(self):
        object.__setattr__(self, 'right', self.left if self.right is None else self.right)

    @property
    def reach(self):
        return self.left

    def sees(self, ahead):
        return (ahead >= -self.left) & (ahead <= self.right)  # pyright: ignore[reportOperatorIssue] - set above

    def meets(self, low, high):
        return (high >= -self.left) & (low <= self.right)


@_mask
class dilated(OffsetMask):
    """Dilated sliding window: a query sees itself and `window` slots on each side, `step` slots apart (Longformer;
    Beltagy et al., 2020, arXiv:2004.05150). `dilated(n, 1)` is `window(n)`."""

    window: Slot = _static()
    step: Stride = _static()

    @property
    def reach(self):
        return min(self.window * self.step, arguments.REACH)  # a 32-bit number, and no sequence is longer

    def sees(self, ahead):
        return (jnp.abs(ahead) <= self.reach) & (ahead % self.step == 0)

    def meets(self, low, high):
        reach = self.reach
        return np.minimum(high, reach) // self.step * self.step >= np.maximum(low, -reach)


@_mask
class strided(OffsetMask):
    """Strided attention of the Sparse Transformer (Child et al., 2019, arXiv:1904.10509), with both of its patterns in
    one head: a query sees the `stride` slots before and after it and, at any distance, every `stride`-th slot. Under a
    causal mask this is the published pattern, j >= i - l or (i - j) mod l = 0 for j <= i. Otherwise its mirror image is
    added."""

    stride: Stride = _static()

    def sees(self, ahead):
        return (jnp.abs(ahead) <= self.stride) | (ahead % self.stride == 0)

    def meets(self, low, high):
        near = (high >= -self.stride) & (low <= self.stride)
        return near | (high // self.stride * self.stride >= low)


@_mask
class by_head(OffsetMask):
    """Windows that differ between heads: head h sees the `reaches[h]` slots on each side of the query, or all slots if
    the number is negative. Specs name two kinds, `hard_alibi` and `local`."""

    reaches: tuple[int, ...] = _static()

    @property
    def reach(self):
        return None if min(self.reaches) < 0 else max(self.reaches)

    def tile(self, q, k):
        reaches = jnp.array(self.reaches)[:, None, None]
        return ((reaches < 0) | (jnp.abs(k[None, :] - q[:, None])[None] <= reaches))[None]

    def meets(self, low, high):
        reach = self.reach
        return (high >= -reach) & (low <= reach) if reach is not None else np.ones(np.broadcast(low, high).shape, bool)


@_mask
class prefix(Mask):
    """Prefix mask: the first `length` slots see each other in both directions, the rest is causal (prefix LM; Raffel et
    al., 2020, arXiv:1910.10683). `block` is exact unless `length` is an array."""

    length: Slot | Int[Array, '']

    def __post_init__(self):
        if isinstance(self.length, int | float | str):
            arguments.check('prefix: length', self.length, Slot)

    def tile(self, q, k):
        return ((q[:, None] >= k[None, :]) | (k[None, :] < self.length))[None, None]

    def block(self, q_start, q_stop, k_start, k_stop):
        if not isinstance(self.length, int | np.integer):
            return super().block(q_start, q_stop, k_start, k_stop)
        return causal().block(q_start, q_stop, k_start, k_stop) | np.less(k_start, self.length)


@_mask
class global_(Mask):
    """Global attention: the first `tokens` slots see all slots and are seen by all (Longformer; Beltagy et al., 2020,
    arXiv:2004.05150; BigBird; Zaheer et al., 2020, arXiv:2007.14062). Called `global` in specs. `block` is exact."""

    tokens: Slot = _static()

    def tile(self, q, k):
        return ((q[:, None] < self.tokens) | (k[None, :] < self.tokens))[None, None]

    def block(self, q_start, q_stop, k_start, k_stop):
        some = np.less(q_start, self.tokens) | np.less(k_start, self.tokens)
        return some & super().block(q_start, q_stop, k_start, k_stop)


@_mask
class random(Mask):
    """Random attention of BigBird (Zaheer et al., 2020, arXiv:2007.14062) on blocks of `size` slots. Each block sees
    itself and `draws` random blocks before it, or all of them if there are fewer, and those blocks see it. BigBird
    draws from the whole sequence; here draws depend only on `seed`, not on the length of the sequence. `block` is
    exact."""

    size: Stride = _static()
    draws: Annotated[int, arguments.at_least(0), arguments.at_most(32)] = _static(default=3)
    seed: arguments.Seed = _static(default=0)

    def tile(self, q, k):
        a, b = (q // self.size)[:, None], (k // self.size)[None, :]
        seen = a == b
        for before_a, before_b in zip(self.drawn(a, jnp.where), self.drawn(b, jnp.where), strict=True):
            seen |= (before_a == b) | (a == before_b)
        return seen[None, None]

    def block(self, q_start, q_stop, k_start, k_stop):
        low = [np.asarray(start) // self.size for start in (q_start, k_start)]
        high = [(np.asarray(stop) - 1) // self.size + 1 for stop in (q_stop, k_stop)]
        blocks = np.arange(max(x.max() for x in high))
        a = np.concatenate([blocks] * (1 + self.draws))
        b = np.concatenate([blocks, *self.drawn(blocks, np.where)])
        a, b = a[b >= 0], b[b >= 0]
        # All bounds form a grid. Visible pairs of blocks are counted per cell, and the counts are summed in rectangles.
        edges = [np.unique(np.append(np.ravel(x), np.ravel(y))) for x, y in zip(low, high, strict=True)]
        cells = np.zeros([len(edge) + 1 for edge in edges], int)
        for pairs in ((a, b), (b, a)):
            np.add.at(cells, tuple(np.searchsorted(edge, x, 'right') for edge, x in zip(edges, pairs, strict=True)), 1)
        cells = cells.cumsum(0).cumsum(1)

        def below(q, k):
            return cells[np.searchsorted(edges[0], q), np.searchsorted(edges[1], k)]

        return below(high[0], high[1]) - below(low[0], high[1]) > below(high[0], low[1]) - below(low[0], low[1])

    def drawn(self, blocks, where):
        """Drawn blocks: `draws` arrays like `blocks`, of distinct earlier blocks, or -1 if none is left (Floyd's
        algorithm). `where` is that of jnp or, for numpy arrays, that of np."""
        picks = []
        for i in range(self.draws):
            last = blocks - self.draws + i  # drawn from 0 .. last
            pick = _hash(blocks, self.seed * self.draws + i) % where(last < 0, 1, last + 1)
            for other in tuple(picks):
                pick = where(pick == other, last, pick)  # earlier draws are below `last`
            picks.append(where(last < 0, -1, pick))
        return picks


def _hash(x, salt: int):
    """Random numbers from 0 to 2^31 - 1, one for each `x` and `salt`: the finaliser of MurmurHash3 (Appleby, 2011)."""
    x = x.astype(np.uint32) * np.uint32(0x9E3779B1) + np.uint32(salt * 0x85EBCA77 % 2**32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return ((x ^ (x >> np.uint32(16))) >> np.uint32(1)).astype(np.int32)


def _serves(mask: str, has: int, asked: int | None, of: str):
    if asked not in (None, has):
        raise ValueError(f'the mask ({mask}) is for {has} {of}, but there are {asked}')


def hard_alibi(total: arguments.Count, heads: arguments.Count | None = None) -> by_head:
    """Hard-ALiBi (Jelassi et al., 2024, arXiv:2402.01032): head h of the first `heads`, by default half of all, sees
    the h slots before the query and itself, so that head 0 sees itself only. The others see all slots. Causal in the
    paper; without a causal mask, as many slots after the query are seen."""
    heads = _first(total, heads)
    return by_head((*range(heads), *[-1] * (total - heads)))


def local(total: arguments.Count, window: Slot, heads: arguments.Count | None = None) -> by_head:
    """Local and global heads: the first `heads`, by default half of all, see the `window` slots on each side of the
    query. The others see all slots."""
    heads = _first(total, heads)
    return by_head((*[window] * heads, *[-1] * (total - heads)))


def _first(total: int, heads: int | None) -> int:
    """Number of the first heads, by default half of all."""
    if heads is not None and heads > total:
        raise spec.UserError(f'heads must be at most {total}, the number of all heads, not {heads}')
    return total // 2 if heads is None else heads


OF_ALL = {kind.__name__.rstrip('_'): kind for kind in (full, window, dilated, strided, prefix, global_, random)}
OF_HEADS = {kind.__name__: kind for kind in (hard_alibi, local)}
PATTERNS: dict[str, Any] = {**OF_ALL, **OF_HEADS}
"""Masks that specs may name: the same for all heads, and those that need their number."""


@arguments.checked
def make(text: str, heads: arguments.Count | None = None) -> Mask:
    """Mask that a spec describes, such as `'window(64)|global(2)'`; `|` is the union. Patterns that differ between
    heads need the number of all `heads`. Mistakes raise `UserError`."""
    what, parts = 'attention pattern', []
    for call in spec.parse(text):
        kind = PATTERNS[spec.choose(call.name, PATTERNS, what)]
        if call.name in OF_HEADS and heads is None:
            raise spec.UserError(f'{what} {call.name!r} needs the number of heads: masks.make({text!r}, heads=8)')
        parts.append(arguments.build(kind, call, what, *[heads] * (call.name in OF_HEADS)))
    return functools.reduce(operator.or_, parts)


def of_heads(mask: Mask, kept: tuple[int, ...], heads: int) -> Mask:
    """Mask for the `kept` of `heads` heads."""
    if isinstance(mask, And | Or):
        return type(mask)(of_heads(mask.first, kept, heads), of_heads(mask.second, kept, heads))
    if isinstance(mask, by_head):
        return by_head(tuple(mask.reaches[head] for head in kept))
    if isinstance(mask, explicit) and mask.allowed.shape[1] == heads > 1:
        return explicit(mask.allowed[:, np.array(kept)])
    return mask


MaskLike = Mask | Shaped[Array, '#B #H #T #S'] | Shaped[np.ndarray, '#B #H #T #S'] | None
"""Types that `as_mask` accepts."""


def as_mask(mask: MaskLike) -> Mask:
    """`Mask` from any accepted type. None shows all keys. An array shows keys where it is True or 1, as in flax. Raises
    `ValueError` for other numbers; if they are traced, only 1 shows a key."""
    if mask is None:
        return full()
    if isinstance(mask, Mask):
        return mask
    try:
        mask = jnp.asarray(mask)
    except TypeError:
        mask = None
    if mask is None or mask.ndim != 4:
        raise spec.UserError('a mask is one of mha.masks, or an array [batch, heads, queries, keys]')
    if mask.dtype == bool:
        return explicit(mask)
    if not isinstance(mask, Tracer) and not np.isin(np.asarray(mask), (0, 1)).all():
        raise spec.UserError(
            'a mask holds True where a key is seen and False elsewhere, or 1 and 0; this one has other numbers - if '
            'they are to be added to logits, pass `mask == 0` instead'
        )
    return explicit(mask == 1)
