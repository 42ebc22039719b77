"""Attention over tiles of the matrix, in O(T + S) memory: online softmax (Milakov and Gimelshein, 2018,
arXiv:1805.02867) forward, recomputation backward (Rabe and Staats, 2021, arXiv:2112.05682; Dao et al., 2022,
arXiv:2205.14135).

Tile after tile of one row of tiles, each query keeps a running maximum m, sum l and output o,

    m' = max(m, max_j s_ij),   l <- l e^(m - m') + sum_j e^(s_ij - m'),   o <- o e^(m - m') + sum_j e^(s_ij - m') v_j

and out = o / l. The backward pass computes e = e^(s - m) again, and with d = d_out / l

    dv_j = sum_i e_ij d_i,   ds_ij = e_ij (d_i . v_j - d_i . out_i)

m and l are stored separately, because m + ln l would lose l if m is large.

The hooks of a position scheme are evaluated in tiles. Their gradients are computed tile by tile; those of parameters
are summed over tiles. If coordinates are slot numbers, a bias that depends only on the offset is one vector over the
offsets. The code is plain jnp and runs on any device.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from mha.cores.base import PLAIN, Core, capped
from mha.nn.dropout import dropout
from mha.nn.masks import Mask
from mha.nn.products import accurate, finite
from mha.positions.base import OffsetBias, Position
from mha.spec import UserError

HIDDEN = -1e30
"""Logit of a hidden key."""
LOWEST = -0.5e30
"""Initial value of running maxima. It is far above `HIDDEN`, so that exp(HIDDEN - m) is 0 even in rows without visible
keys."""
SIDES = (512, 256, 128, 64, 32)
"""Possible sides of a tile, in slots."""
TILES = 2**24
"""Largest number of tiles, because a table has an entry for each."""
CPU_TILE_BYTES, TILE_BYTES = 8 * 2**20, 2**28
"""Largest size of the logits of one tile, over all examples and heads. On a CPU, they should fit into the cache. On
other devices, tiles should be large enough for the overhead to be small; that was not measured."""
WATCHER: contextvars.ContextVar[Callable[[int], None] | None] = contextvars.ContextVar('watcher', default=None)
"""Callback of `watched`."""
EDGE = 16
"""Fixed cost of a tile, expressed as additional slots on each side."""


@dataclasses.dataclass(frozen=True)
class Blockwise(Core):
    """Attention in tiles, for all masks, for schemes without hooks on whole rows, and for normalizers that are a
    softmax, perhaps with a sink, or pointwise. Dropout draws other numbers than in `dense`. Differentiable once, in
    reverse mode."""

    def attend(self, q, k, v, *, position, coords, mask, scale, variant=PLAIN, dropout_rate=0.0, rngs=None):
        variant.refuse_rows(position, 'blockwise')
        (batch, queries, heads, _), keys = q.shape, k.shape[1]
        grid = Grid.choose(mask, queries, keys, batch * heads)
        normalizer, level = variant.normalizer, variant.normalizer.level(coords)
        pointwise = normalizer.form == 'pointwise'
        level = lax.stop_gradient(level) if pointwise else level
        graphdef, state = nnx.split(position)
        leaves, tree = jax.tree.flatten(state)
        band = offset_bias(position, grid) if coords.contiguous and biased(position) else None
        learned = read_by_hooks(graphdef, tree, leaves, q, k, coords, bias=band is None)
        # Keys and values are transposed once, to channels before slots: in this order, a CPU is fast at the products of
        # tiles and the sums dk, dv, which take twice the time otherwise. Queries are transposed row by row of tiles.
        arguments = Arguments(
            padded(q, grid.padded_queries),
            jnp.moveaxis(padded(k, grid.padded_keys), 1, 3),
            jnp.moveaxis(padded(v, grid.padded_keys), 1, 3),
            [leaf for leaf, is_learned in zip(leaves, learned, strict=True) if is_learned],
            band if leaves else None,
            None if level is None else padded_level(level, q, grid.padded_queries),
        )
        tiles = Tiles(
            grid,
            graphdef,
            tree,
            learned,
            scale,
            dropout_rate,
            normalizer.weigh if pointwise else None,
            variant.softcap,
            others=[leaf for leaf, is_learned in zip(leaves, learned, strict=True) if not is_learned],
            q_pos=padded(coords.q_pos, grid.padded_queries, 'edge'),
            k_pos=padded(coords.k_pos, grid.padded_keys, 'edge'),
            mask=mask,
            key=rngs.dropout() if rngs is not None and dropout_rate > 0 else None,
            band=None if leaves else band,
        )
        fixed, structure = jax.tree.flatten(tiles)
        out: Any = tiled(structure, arguments, fixed)
        return out[:, :queries]


@contextlib.contextmanager
def watched(callback: Callable[[int], None]) -> Iterator[None]:
    """Context in which traced programs report progress: during a forward pass, they call `callback` with the number of
    queries, over all examples, that were just processed. Useful for long sequences, where a layer takes minutes."""
    token = WATCHER.set(callback)
    try:
        yield
    finally:
        WATCHER.reset(token)


def padded(x, length, mode='constant'):
    """`x` [B, T, ..] padded to `length` along T: with zeros, or with mode 'edge' by repeating the last entry, as
    coordinates require."""
    if x.shape[1] == length:
        return x
    return jnp.pad(x, [(0, length - x.shape[1] if axis == 1 else 0) for axis in range(x.ndim)], mode=mode)


def padded_level(level: Float[Array, '#B #T #H'], q: Float[Array, 'B T H W'], length: int) -> Float[Array, 'B H N']:
    """Numbers per query of a normalizer, in the order of the cores and padded to `length` queries."""
    return padded(jnp.broadcast_to(level, q.shape[:3]), length).swapaxes(1, 2)


def biased(position: Position) -> list[Any]:
    """Parts of a scheme that have a bias."""
    return [part for part in getattr(position, 'parts', [position]) if part.overrides('bias')]


def offset_bias(position: Any, grid: 'Grid') -> Float[Array, 'H L'] | None:
    """Bias at every offset between slots, from the largest to the smallest; None if the bias does not depend on the
    offset alone."""
    if not all(isinstance(part, OffsetBias) for part in biased(position)):
        return None
    offsets = jnp.arange(grid.padded_queries - 1, -grid.padded_keys, -1)
    offsets = jnp.clip(offsets, 1 - grid.keys, grid.queries - 1)
    bias = position.bias(offsets[None], jnp.zeros((1, 1), offsets.dtype))
    return bias[0, :, :, 0]


def read_by_hooks(graphdef, tree, leaves, q, k, coords, bias) -> tuple[bool, ...]:
    """Which leaves of a scheme's state get gradients tile by tile: float arrays that the hooks of a tile read, and not,
    for example, tables of embeddings. `bias` says whether the bias is computed in tiles."""

    def hooks(leaves, q, k, weights):
        position = nnx.merge(graphdef, jax.tree.unflatten(tree, leaves))
        pos = coords.q_pos, coords.k_pos
        return position.bias(*pos) if bias else None, position.content(q, k, *pos), position.values(weights, *pos)

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    weights = jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1], k.shape[1]), jnp.float32)
    jaxpr = jax.make_jaxpr(hooks)(shapes, q, k, weights).jaxpr
    read = {id(var) for eqn in jaxpr.eqns for var in eqn.invars} | {id(var) for var in jaxpr.outvars}
    return tuple(
        id(var) in read and jnp.issubdtype(leaf.dtype, jnp.floating)
        for var, leaf in zip(jaxpr.invars, leaves, strict=False)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Division of the matrix of queries and keys into tiles, and the tiles to compute."""

    queries: int
    keys: int
    height: int
    """Number of queries in a tile."""
    width: int
    """Number of keys in a tile."""
    active: np.ndarray
    """Mask [rows, columns] of tiles that may have visible pairs."""

    @classmethod
    def choose(cls, mask: Mask, queries: int, keys: int, matrices: int) -> 'Grid':
        """Cheapest grid for a mask among those with tiles that fit into memory. Small tiles are cheaper if more of them
        are empty. `matrices` is the number of examples times heads."""
        limit = CPU_TILE_BYTES if jax.default_backend() == 'cpu' else TILE_BYTES
        few = [side for side in SIDES if math.ceil(queries / side) * math.ceil(keys / side) <= TILES]
        if not few:
            raise UserError(
                f'{queries:,} queries and {keys:,} keys are too many for attention - choose shorter lengths'
            )
        fitting = [side for side in few if 4 * matrices * side**2 <= limit]
        grids = [cls.cut(mask, queries, keys, side) for side in fitting or few[-1:]]
        return min(grids, key=lambda grid: grid.active.sum() * (grid.height + EDGE) * (grid.width + EDGE))

    @classmethod
    def cut(cls, mask: Mask, queries: int, keys: int, side: int) -> 'Grid':
        """Grid with tiles of about `side` x `side`, of equal size up to rounding to multiples of 8 slots."""
        height, width = (8 * math.ceil(n / math.ceil(n / side) / 8) for n in (queries, keys))
        q, k = np.arange(0, queries, height)[:, None], np.arange(0, keys, width)[None]
        active = mask.block(q, np.minimum(q + height, queries), k, np.minimum(k + width, keys))
        return cls(queries, keys, height, width, np.broadcast_to(active, (q.size, k.size)))

    @property
    def padded_queries(self) -> int:
        return self.active.shape[0] * self.height

    @property
    def padded_keys(self) -> int:
        return self.active.shape[1] * self.width

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Number of tiles to compute in each row."""
        return self.active.sum(1, dtype=np.int32)

    @functools.cached_property
    def visits(self) -> np.ndarray:
        """Columns of the tiles to compute in each row, [rows, largest count]. Entries beyond the count of a row are
        meaningless."""
        return np.argsort(~self.active, axis=1, kind='stable')[:, : max(self.counts.max(), 1)].astype(np.int32)


class Arguments(NamedTuple):
    """Arrays that get gradients, padded to whole tiles."""

    q: Float[Array, 'B T H W']
    k: Float[Array, 'B H W S']
    v: Float[Array, 'B H V S']
    learned: list[Array]
    """Leaves of the scheme's state."""
    band: Float[Array, 'H L'] | None
    """Result of `offset_bias`; None also if the scheme has no parameters."""
    level: Float[Array, 'B H T'] | None
    """Numbers per query of the normalizer."""


STATIC = {'static': True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiles:
    """Arrays without gradients, constants, and the computation of tile (i, j): row i of queries, column j of keys, both
    traced."""

    grid: Grid = dataclasses.field(metadata=STATIC)
    graphdef: Any = dataclasses.field(metadata=STATIC)
    tree: Any = dataclasses.field(metadata=STATIC)
    learned: tuple[bool, ...] = dataclasses.field(metadata=STATIC)
    """Whether each leaf of the scheme's state is in `Arguments.learned` (true) or in `others`."""
    scale: float = dataclasses.field(metadata=STATIC)
    dropout_rate: float = dataclasses.field(metadata=STATIC)
    weigh: Callable[[Array], Array] | None = dataclasses.field(metadata=STATIC)
    """Weights of a pointwise normalizer; None for the softmax."""
    softcap: float = dataclasses.field(metadata=STATIC)
    others: list[Any]
    q_pos: Num[Array, '#B T']
    k_pos: Num[Array, '#B S']
    mask: Mask
    key: PRNGKeyArray | None
    band: Float[Array, 'H L'] | None
    """Bias of a scheme without parameters. Its gradient is not needed and would take a tenth of the time at 2,048
    tokens."""

    def position(self, learned: list[Array]) -> Position:
        learned_, others = iter(learned), iter(self.others)
        leaves = [next(learned_ if is_learned else others) for is_learned in self.learned]
        return nnx.merge(self.graphdef, jax.tree.unflatten(self.tree, leaves))

    def at(self, i, j):
        """Coordinates of the queries and of the keys of a tile."""
        return self.rows(self.q_pos, i, 1), self.columns(self.k_pos, j, 1)

    def rows(self, x, i, axis):
        return lax.dynamic_slice_in_dim(x, i * self.grid.height, self.grid.height, axis)

    def columns(self, x, j, axis):
        return lax.dynamic_slice_in_dim(x, j * self.grid.width, self.grid.width, axis)

    def strip(self, band, i, j):
        """Part [H, Q + P - 1] of the band that a tile needs."""
        if band is None:
            return None
        strip = lax.dynamic_slice_in_dim(band, self.strip_start(i, j), self.grid.height + self.grid.width - 1, 1)
        return lax.optimization_barrier(strip)  # otherwise XLA looks up each entry of a tile in the whole band

    def strip_start(self, i, j):
        return self.grid.padded_queries - (i + 1) * self.grid.height + j * self.grid.width

    def allowed(self, i, j) -> Bool[Array, '#B #H Q P']:
        q = i * self.grid.height + jnp.arange(self.grid.height)
        k = j * self.grid.width + jnp.arange(self.grid.width)
        seen = self.mask.tile(jnp.minimum(q, self.grid.queries - 1), jnp.minimum(k, self.grid.keys - 1))
        return seen if self.grid.keys == self.grid.padded_keys else seen & (k < self.grid.keys)[None, None, None]

    def kept(self, i, j, shape) -> Float[Array, 'B H Q P']:
        """Factors of dropout: 0 for dropped weights, the scale for others; the same in forward and backward pass."""
        if self.key is None:
            return jnp.ones((1, 1, 1, 1), jnp.float32)
        key = jax.random.fold_in(self.key, i * self.grid.active.shape[1] + j)
        return dropout(jnp.ones(shape, jnp.float32), self.dropout_rate, nnx.Rngs(dropout=key))

    def scores(self, learned, strip, q, k, i, j) -> Float[Array, 'B H Q P']:
        """Logits of a tile, before the mask."""
        s = self.scale * products(q, k)
        position = self.position(learned)
        pos = self.at(i, j)
        bias = position.bias(*pos) if strip is None else diagonals(strip, self.grid.height)[None]
        for term in bias, position.content(q.swapaxes(1, 2), jnp.moveaxis(finite(k), 3, 1), *pos):
            if term is not None:
                s = s + term.astype(s.dtype)
        return capped(s, self.softcap)

    def start(self, level, zeros: Float[Array, 'B H Q']) -> tuple[Float[Array, 'B H Q'], Float[Array, 'B H Q']]:
        """Initial maximum and sum of every query of a row of tiles: those of the sink, if there is one."""
        if self.weigh is not None:
            return zeros, zeros
        return (zeros + LOWEST, zeros) if level is None else (zeros + level, zeros + 1)

    def weights(self, s, allowed, top, level) -> Float[Array, 'B H Q P']:
        """Weights of a tile before their division by the sum."""
        if self.weigh is None:
            return jnp.exp(jnp.where(allowed, s, HIDDEN) - top[..., None])
        return jnp.where(allowed, self.weigh(jnp.where(allowed, s + level[..., None], 0)), 0)

    def slopes(self, s, e, allowed, top, level, d) -> Float[Array, 'B H Q P']:
        """Gradient of the logits of a tile, given its weights and their gradient."""
        if self.weigh is None:
            return e * d
        return jax.vjp(lambda s: self.weights(s, allowed, top, level), s)[1](d)[0]

    def read(self, learned, v, weights, i, j) -> Float[Array, 'B H Q V']:
        """Contribution of a tile to the output: weights v + values(weights)."""
        out = mixed(weights, v)
        gain = self.position(learned).values(weights, *self.at(i, j))
        return out if gain is None else out + gain.swapaxes(1, 2).astype(out.dtype)

    def over_row(self, i, visit, state):
        """Final state of the loop `state = visit(j, state)` over all active columns j of row i."""
        counts, visits = jnp.asarray(self.grid.counts), jnp.asarray(self.grid.visits)
        return lax.fori_loop(0, counts[i], lambda n, state: visit(visits[i, n], state), state)

    def unless_empty(self, allowed, compute, otherwise):
        """Result of `compute()`, or `otherwise` if the data of the mask, such as padding, hide the whole tile."""
        if not jax.tree.leaves(self.mask):
            return compute()
        return lax.cond(allowed.any(), compute, lambda: otherwise)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def tiled(structure: Any, arguments: Arguments, fixed: list[Any]) -> Float[Array, 'B T H V']:
    """Attention over `Tiles`, which is passed as a tree structure and leaves, because `custom_vjp` would rebuild it
    without arrays."""
    return forward(structure, arguments, fixed)[0]


def forward(structure, arguments, fixed):
    """Output of attention, and the residuals of the backward pass."""
    tiles = jax.tree.unflatten(structure, fixed)
    q, k, v, learned, band, level = arguments
    grid, (batch, length, heads, _) = tiles.grid, q.shape
    zeros, watcher = functools.partial(jnp.zeros, dtype=accurate(q, v)), WATCHER.get()

    def row(i, carry):
        out, tops, totals = carry
        q_i = tiles.rows(q, i, 1).swapaxes(1, 2)
        level_i = None if level is None else tiles.rows(level, i, 2)

        def visit(j, state):
            allowed = tiles.allowed(i, j)

            def compute():
                top, total, o = state
                strip = tiles.strip(band if tiles.band is None else tiles.band, i, j)
                s = tiles.scores(learned, strip, q_i, tiles.columns(k, j, 3), i, j)
                if tiles.weigh is not None:
                    e = tiles.weights(s, allowed, top, level_i)
                    kept = tiles.kept(i, j, e.shape)
                    return top, total, o + tiles.read(learned, tiles.columns(v, j, 3), kept * e, i, j)
                s = jnp.where(allowed, s, HIDDEN)
                new_top = jnp.maximum(top, s.max(-1))
                fade, e = jnp.exp(top - new_top), jnp.exp(s - new_top[..., None])
                gain = tiles.read(learned, tiles.columns(v, j, 3), tiles.kept(i, j, e.shape) * e, i, j)
                return new_top, fade * total + e.sum(-1), fade[..., None] * o + gain

            return tiles.unless_empty(allowed, compute, state)

        per_query = (batch, heads, grid.height)
        start = *tiles.start(level_i, zeros(per_query)), zeros((*per_query, v.shape[2]))
        top, total, o = tiles.over_row(i, visit, start)
        total = jnp.where(total > 0, total, 1)  # rows without a visible key stay zero
        o = (o / total[..., None]).swapaxes(1, 2)
        if watcher is not None:
            jax.debug.callback(functools.partial(watcher, batch * grid.height))
        return (
            put(out, o, i * grid.height, 1),
            put(tops, top, i * grid.height, 2),
            put(totals, total, i * grid.height, 2),
        )

    per_query = zeros((batch, heads, length))
    start = zeros((batch, length, heads, v.shape[2])), per_query, per_query
    out, tops, totals = lax.fori_loop(0, grid.active.shape[0], row, start)
    # The backward pass needs `out` in float32: it subtracts two sums that nearly cancel if attention is peaked.
    return out.astype(v.dtype), (arguments, fixed, out, tops, totals)


def backward(structure, residuals, d_out):
    """Gradients of `arguments`, computed row by row of tiles."""
    arguments, fixed, out, tops, totals = residuals
    tiles = jax.tree.unflatten(structure, fixed)
    q, k, v, learned, band, level = arguments
    grid, sums_of = tiles.grid, functools.partial(accurate, q, v)

    def row(i, carry):
        dq, *rest = carry
        q_i, d_i, out_i = (tiles.rows(x, i, 1).swapaxes(1, 2) for x in (q, d_out, out))
        top, total = (tiles.rows(x, i, 2) for x in (tops, totals))
        level_i = None if level is None else tiles.rows(level, i, 2)
        d_i = d_i.astype(total.dtype) / total[..., None]
        along = (d_i * out_i).sum(-1, keepdims=True) if tiles.weigh is None else 0

        def visit(j, state):
            dq_i, dk, dv, d_learned, d_band = state
            allowed = tiles.allowed(i, j)
            k_j, v_j = tiles.columns(k, j, 3), tiles.columns(v, j, 3)
            strip, constant = tiles.strip(band, i, j), tiles.strip(tiles.band, i, j)

            def compute():
                def scores(learned, strip, q, k):
                    return tiles.scores(learned, strip if constant is None else constant, q, k, i, j)

                s, pull_scores = jax.vjp(scores, learned, strip, q_i, k_j)
                e = tiles.weights(s, allowed, top, level_i)
                kept = tiles.kept(i, j, e.shape)
                _, pull_read = jax.vjp(lambda *x: tiles.read(*x, i, j), learned, v_j, kept * e)
                d_read, dv_j, de = pull_read(d_i)
                d_scores, d_strip, dq_ij, dk_j = pull_scores(
                    tiles.slopes(s, e, allowed, top, level_i, kept * de - along)
                )
                return dq_ij, dk_j, dv_j, jax.tree.map(jnp.add, d_read, d_scores), d_strip

            nothing = jax.tree.map(jnp.zeros_like, (q_i, k_j, v_j, learned, strip))
            dq_ij, dk_j, dv_j, d_learned_ij, d_strip = tiles.unless_empty(allowed, compute, nothing)
            dk, dv = add(dk, dk_j, j * grid.width, 3), add(dv, dv_j, j * grid.width, 3)
            d_band = None if band is None else add(d_band, d_strip, tiles.strip_start(i, j), 1)
            return dq_i + dq_ij, dk, dv, jax.tree.map(jnp.add, d_learned, d_learned_ij), d_band

        dq_i, *rest = tiles.over_row(i, visit, (jnp.zeros(q_i.shape, sums_of(q)), *rest))
        dq_i = dq_i.astype(q.dtype).swapaxes(1, 2)
        return put(dq, dq_i, i * grid.height, 1), *rest

    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, sums_of(x)), (k, v, learned, band))
    dq, *sums = lax.fori_loop(0, grid.active.shape[0], row, (jnp.zeros_like(q), *sums))
    sums = jax.tree.map(lambda total, x: total.astype(x.dtype), tuple(sums), (k, v, learned, band))
    dk, dv, d_learned, d_band = sums
    return Arguments(dq, dk, dv, d_learned, d_band, _of_sinks(level, tops, totals, out, d_out)), None


def _of_sinks(level, tops, totals, out, d_out):
    """Gradient of the logits of sinks. The weight of a sink is e^(level - top) / total and its value 0."""
    if level is None:
        return None
    along = jnp.einsum('bthv,bthv->bht', d_out.astype(out.dtype), out)
    return (-jnp.exp(level - tops) / totals * along).astype(level.dtype)


tiled.defvjp(forward, backward)


@jax.custom_vjp
def products(q: Float[Array, 'B H Q W'], k: Float[Array, 'B H W P']) -> Float[Array, 'B H Q P']:
    """Product q k, in float32 or better. With XLA's own derivative, dk would be computed transposed, which takes twice
    the time on a CPU."""
    return jnp.einsum('bhqw,bhwp->bhqp', q, k, preferred_element_type=accurate(q, k))


def products_pullback(residuals, ds):
    q, k = residuals
    dq, dk = jnp.einsum('bhqp,bhwp->bhqw', ds, finite(k)), jnp.einsum('bhqw,bhqp->bhwp', q, ds)
    return dq.astype(q.dtype), dk.astype(k.dtype)


products.defvjp(lambda q, k: (products(q, k), (q, k)), products_pullback)


@jax.custom_vjp
def mixed(weights: Float[Array, 'B H Q P'], v: Float[Array, 'B H V P']) -> Float[Array, 'B H Q V']:
    """Product of weights and v, in float32 or better. The custom derivative also keeps the gradient of the weights in
    that type, whatever the type of v."""
    return jnp.einsum('bhqp,bhvp->bhqv', weights.astype(v.dtype), v, preferred_element_type=accurate(weights, v))


def mixed_pullback(residuals, d_out):
    weights, v = residuals
    d_weights = jnp.einsum('bhqv,bhvp->bhqp', d_out, v, preferred_element_type=accurate(weights, v))
    return d_weights, jnp.einsum('bhqv,bhqp->bhvp', d_out, weights).astype(v.dtype)


mixed.defvjp(lambda weights, v: (mixed(weights, v), (weights, v)), mixed_pullback)


put = lax.dynamic_update_slice_in_dim


def add(total, part, start, axis):
    """`total` with `part` added along `axis`, beginning at index `start`."""
    old = lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
    return put(total, old + part.astype(total.dtype), start, axis)


def diagonals(strip: Float[Array, 'H L'], height: int) -> Float[Array, 'H Q P']:
    """Tile [.., Q, P] that is constant along diagonals, from a strip [.., L = Q + P - 1]: row r is the part of the
    strip that begins at Q - 1 - r."""
    heads, length = strip.shape
    width = length - height + 1
    starts = length * jnp.arange(heads)[:, None] + height - 1 - jnp.arange(height)[None]
    # Slices of whole rows: gathering single entries takes ten times as long on a CPU, forward and backward.
    rows = jax.vmap(lambda start: lax.dynamic_slice_in_dim(strip.reshape(-1), start, width))(starts.reshape(-1))
    return rows.reshape(heads, height, width)
