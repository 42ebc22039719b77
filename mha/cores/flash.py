"""Flash attention (Dao et al., 2022, arXiv:2205.14135; Dao, 2023, arXiv:2307.08691) as a GPU kernel that adds a bias of
the offset and learns it, in O((T + S) block) memory.

    logits[i, j] = scale q_i . k_j + b[h, i - j]

The bias is constant along diagonals. So all [block, block] tiles with the same d = i // block - j // block are equal:

    tiles[h, d, r, c] = b[h, d block + r - c]

The tiles are computed before the kernels run, so that a kernel only reads the tile with its number. In the backward
pass, one program per example, head and block diagonal sums dS over that diagonal. There are no atomic additions, so the
result is deterministic. Automatic differentiation of the tiles gives db[h, i - j], and that of the scheme gives the
gradients of its parameters.

The maximum m and the sum l of a row are stored separately, because beside biases of -1e29, m + ln l would be rounded to
m. The backward pass first scales do by 1 / l, and its kernels recompute e = exp(s - m):

    dv = e^T do / l,   dS = e (do v^T - do . o) / l,   dq = scale dS k,   dk = scale dS^T q,   dtiles = sum dS

The kernels use Pallas for Triton, deprecated since jax 0.11.0 (docs.jax.dev/en/latest/pallas/CHANGELOG.html).
If Pallas for Triton is missing or does not compile, or the kernels do not support a case, `blockwise` runs instead.
Tested in the interpreter of Pallas and lowered for CUDA; not measured on a GPU yet.
"""

import dataclasses
import functools
import logging
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

from mha.arguments import Bound
from mha.cores.base import PLAIN, Core, Variant
from mha.cores.blockwise import HIDDEN, LOWEST, Blockwise, biased, padded_level
from mha.nn import masks
from mha.nn.masks import Mask
from mha.positions.base import WHOLE, Coords, OffsetBias, Position

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton: Any = None

SIDES = (64, 32)
"""Sides of a tile, in slots. Wide heads need the smaller one, because operands must fit into the GPU's shared
memory."""
WIDEST = 256
"""Largest number of channels of a head, including those that a position scheme appends."""
TILE = Bound('a power of two from 16 to 1,024', lambda side: side in (16, 32, 64, 128, 256, 512, 1024))
"""Limit of the side of a tile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flash(Core):
    """Attention in GPU kernels, or in `blockwise` if `refusal` gives a reason, which is logged once. Differentiable
    once, in reverse mode. The precision of float32 products follows `jax_default_matmul_precision`."""

    block: Annotated[int, TILE] | None = None
    """Side of a tile."""
    interpret: bool | None = None
    """True: interpret the kernels on any device; False: compile them, whatever the device."""

    def attend(self, q, k, v, *, position, coords, mask, scale, variant=PLAIN, dropout_rate=0.0, rngs=None):
        variant.refuse_rows(position, 'flash')
        call: dict[str, Any] = dict(position=position, coords=coords, mask=mask, dropout_rate=dropout_rate, rngs=rngs)
        call['variant'] = variant
        reason = refusal(q, k, v, **call, interpret=self.interpret)
        if reason is not None:
            log_once(f'core=flash cannot run: {reason}. core=blockwise runs instead.')
            return Blockwise().attend(q, k, v, scale=scale, **call)

        seen: Any = band(mask)
        (low, high, valid), biases = seen, bool(biased(position))
        block = self.block or SIDES[0]
        if self.block is None and self.interpret is None:
            block = probe(lanes(q), lanes(v), q.dtype, v.dtype, biases)[0]
        plan = Plan.cut(q.shape[1], k.shape[1], low, high, block, scale, bool(self.interpret))
        hidden = plan.columns * block - plan.keys
        if valid is not None or hidden:
            valid = jnp.ones((1, plan.keys), bool) if valid is None else valid
            valid = jnp.pad(valid, ((0, 0), (0, hidden)))
        tiles = plan.tiles(position) if biases else None
        operands = padded(q, plan.rows * block), padded(k, plan.columns * block), padded(v, plan.columns * block)
        level = variant.normalizer.level(coords)
        level = None if level is None else padded_level(level, q, plan.rows * block)
        return flash(plan, *operands, tiles, valid, level)[:, : plan.queries, :, : v.shape[-1]]


def refusal(
    q,
    k,
    v,
    *,
    position: Position,
    coords: Coords,
    mask: Mask,
    variant: Variant = PLAIN,
    dropout_rate=0.0,
    rngs=None,
    interpret=None,
) -> str | None:
    """Reason why the kernels cannot compute an attention, or None if they can. Arguments as in `attend`."""
    if variant.softcap:
        return 'logits are capped'
    if variant.normalizer.form != 'softmax':
        return f'weights are not a softmax, but {variant.normalizer.name!r}'
    for hook in (*WHOLE, 'content', 'values'):
        if position.overrides(hook):
            return f'the position scheme has a {hook!r} hook'
    if not all(isinstance(part, OffsetBias) for part in biased(position)):
        return "the position scheme's bias is not one of the offset alone"
    if biased(position) and not coords.contiguous:
        return 'the position scheme has a bias, and coordinates are not known to be the slot numbers'
    if band(mask) is None:
        return 'the mask is not an intersection of causal, window and padding'
    if dropout_rate > 0 and rngs is not None:
        return 'attention weights are dropped out'
    if q.dtype != k.dtype or q.dtype.itemsize > 4 or v.dtype.itemsize > 4:
        return f'queries, keys and values are {q.dtype}, {k.dtype} and {v.dtype}'
    if max(lanes(q), lanes(v)) > WIDEST:
        return f'heads are wider than {WIDEST} channels, with those that positions take'
    if interpret is not None:
        return None
    return probe(lanes(q), lanes(v), q.dtype, v.dtype, bool(biased(position)))[1]


def band(mask: Mask) -> tuple[int | float, int | float, Bool[Array, '#B S'] | None] | None:
    """Triple (low, high, valid) of a mask that shows valid keys at offsets low <= i - j <= high; None for other
    masks."""
    match mask:
        case masks.full():
            return -math.inf, math.inf, None
        case masks.causal():
            return 0, math.inf, None
        case masks.window(left=left, right=right):
            return -(right or 0), left, None
        case masks.padding(valid=valid):
            return -math.inf, math.inf, valid
        case masks.And(first=first, second=second):
            one, two = band(first), band(second)
            if one is None or two is None:
                return None
            valid = two[2] if one[2] is None else one[2] if two[2] is None else one[2] & two[2]
            return max(one[0], two[0]), min(one[1], two[1]), valid
    return None


@functools.cache
def probe(width: int, v_width: int, dtype: Any, v_dtype: Any, bias: bool) -> tuple[int, str | None]:
    """Side of tiles for which the kernels compile on this machine, forward and backward, and None; or any side and the
    reason why none compiles."""
    if triton is None or jax.default_backend() != 'gpu':
        return SIDES[0], "it takes a GPU and Pallas' Triton backend"

    def compiles(block):
        plan = Plan.cut(block, block, -math.inf, math.inf, block, 1.0, interpret=False)
        q, v = (jax.ShapeDtypeStruct((1, block, 1, w), t) for w, t in ((width, dtype), (v_width, v_dtype)))
        tiles = jax.ShapeDtypeStruct((1, plan.diagonals, block, block), jnp.float32) if bias else None
        step = lambda do, *operands: jax.vjp(functools.partial(flash, plan), *operands)[1](do)  # noqa: E731
        jax.jit(step).lower(v, q, q, v, tiles, None, None).compile()

    reason = None
    for block in SIDES:
        try:
            compiles(block)
            return block, None
        except Exception as error:  # Pallas, Triton and the driver raise different exceptions
            reason = f'the kernels do not compile ({type(error).__name__}: {str(error).splitlines()[0]})'
    return SIDES[0], reason


@functools.cache
def log_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)


def lanes(x: Array) -> int:
    """Number of channels of x after padding. Triton multiplies tiles whose sides are powers of two, at least 16."""
    return max(16, pl.next_power_of_2(x.shape[-1]))


def padded(x: Float[Array, 'B L H W'], length: int) -> Float[Array, 'B N H X']:
    """`x` padded with zeros to `length` slots and `lanes(x)` channels."""
    return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, lanes(x) - x.shape[-1])))


def skewed(chunks: Float[Array, 'H N Q']) -> Float[Array, 'H D Q P']:
    """Tiles that are constant along diagonals. Tile d has chunk d above its diagonal, and chunk d + 1 on and below it.
    Each row of a tile is the previous row shifted by one. Rows of 2 block - 1 numbers, cut from copies of 2 block
    numbers, have this shift. Unlike a gather, this has a pullback that is a sum instead of a scatter."""
    heads, diagonals, block = chunks.shape[0], chunks.shape[1] - 1, chunks.shape[2]
    spans = jnp.concatenate([chunks[:, :-1], chunks[:, 1:]], axis=-1)[:, :, None, ::-1]
    copies = jnp.broadcast_to(spans, (heads, diagonals, block, 2 * block)).reshape(heads, diagonals, 2 * block**2)
    rows = copies[:, :, : block * (2 * block - 1)].reshape(heads, diagonals, block, 2 * block - 1)
    return rows[..., block - 1 :]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Constants of the kernels: a query i sees keys j with low <= i - j <= high; both are divided into blocks."""

    queries: int
    keys: int
    low: int
    high: int
    block: int
    scale: float
    interpret: bool
    rows: int
    columns: int
    first: int
    """Lowest block diagonal i // block - j // block with a visible pair."""
    diagonals: int
    """Number of consecutive block diagonals with a visible pair."""

    @classmethod
    def cut(cls, queries, keys, low, high, block, scale, interpret) -> 'Plan':
        """Plan for given sizes, with low <= 0 <= high. Block diagonal d has the offsets from (d - 1) block + 1 to (d +
        1) block - 1."""
        rows, columns = pl.cdiv(queries, block), pl.cdiv(keys, block)
        low, high = int(max(low, 1 - keys)), int(min(high, queries - 1))
        first, last = max(low // block, 1 - columns), min(pl.cdiv(high, block), rows - 1)
        return cls(queries, keys, low, high, block, scale, interpret, rows, columns, first, last - first + 1)

    def tiles(self, position: Position) -> Float[Array, 'H D Q P']:
        """Tiles of the bias of a scheme."""
        ends = (self.first - 1) * self.block, (self.first + self.diagonals) * self.block
        # Offsets beyond those of all pairs are clipped, because a scheme may not support them.
        offsets = np.clip(np.arange(*ends, dtype=np.int32), 1 - self.keys, self.queries - 1)
        bias: Any = position.bias(jnp.asarray(offsets)[None], jnp.zeros((1, 1), jnp.int32))
        return skewed(bias[0, :, :, 0].astype(jnp.float32).reshape(-1, self.diagonals + 1, self.block))

    def over_columns(self, i, visit, start):
        """Loop over the blocks of keys that block i of queries sees."""
        stop = i - self.first + 1
        return lax.fori_loop(jnp.maximum(0, stop - self.diagonals), jnp.minimum(self.columns, stop), visit, start)

    def over_rows(self, j, visit, start):
        """Loop over the blocks of queries that see block j of keys."""
        begin = j + self.first
        return lax.fori_loop(jnp.maximum(0, begin), jnp.minimum(self.rows, begin + self.diagonals), visit, start)

    def slots(self, n):
        """Slots of block n."""
        return pl.ds(n * self.block, self.block)

    def logits(self, d, q, k, tile, valid):
        """Tile of logits on diagonal d, from blocks of queries and keys."""
        s = self.scale * dot(q, k.T)
        s = s if tile is None else s + tile
        row, column = (lax.broadcasted_iota(jnp.int32, s.shape, axis) for axis in (0, 1))
        offset = d * self.block + row - column
        if self.low > 1 - self.keys:
            s = jnp.where(offset >= self.low, s, HIDDEN)
        if self.high < self.queries - 1:
            s = jnp.where(offset <= self.high, s, HIDDEN)
        return s if valid is None else jnp.where(valid[None, :], s, HIDDEN)

    def pullback(self, d, q, k, v, tile, valid, do, top, delta):
        """Arrays e and dS of a tile. `do` and `delta` = do . o have been divided by l."""
        e = jnp.exp(self.logits(d, q, k, tile, valid) - top[:, None])
        return e, e * (dot(do, v.T) - delta[:, None])

    def call(self, kernel, count, in_specs, out_specs, out_shape, arguments):
        """Result of running a kernel as one program for each n < count, head and example."""
        (batch, _, heads, width), size = arguments[0].shape, arguments[0].dtype.itemsize
        options: dict[str, Any] = dict(grid=(count, heads, batch), interpret=self.interpret)
        if not self.interpret:
            warps = 8 if width * size > 128 else 4  # with wide heads, four run out of registers
            options['compiler_params'] = triton.CompilerParams(num_warps=warps, num_stages=2)
        kernel = functools.partial(kernel, self)
        return pl.pallas_call(kernel, out_shape, in_specs=in_specs, out_specs=out_specs, **options)(*arguments)


# --- kernels ---------------------------------------------------------------------------------------------------------

dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32)
zeros = functools.partial(jnp.zeros, dtype=jnp.float32)


def at(ref, *index):
    return None if ref is None else ref[index]


def forward_kernel(plan, q_ref, k_ref, v_ref, tiles_ref, valid_ref, out_ref, top_ref, total_ref):
    i, q = pl.program_id(0), q_ref[...]

    def visit(j, carry):
        keys, (top, total, out) = plan.slots(j), carry
        s = plan.logits(i - j, q, k_ref[keys, :], at(tiles_ref, i - j - plan.first), at(valid_ref, keys))
        higher = jnp.maximum(top, s.max(1))
        e, shrink = jnp.exp(s - higher[:, None]), jnp.exp(top - higher)
        out = shrink[:, None] * out + dot(e.astype(v_ref.dtype), v_ref[keys, :])
        return higher, shrink * total + e.sum(1), out

    start = zeros(plan.block) + LOWEST, zeros(plan.block), zeros(out_ref.shape)
    top, total, out = plan.over_columns(i, visit, start)
    total = jnp.maximum(total, 1.0)  # at least exp(0), unless the query sees no key: then `out` is 0
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    top_ref[...], total_ref[...] = top, total


def dq_kernel(plan, q_ref, k_ref, v_ref, tiles_ref, valid_ref, do_ref, top_ref, delta_ref, dq_ref):
    i, q, do, top, delta = pl.program_id(0), q_ref[...], do_ref[...], top_ref[...], delta_ref[...]

    def visit(j, dq):
        keys = plan.slots(j)
        k, tile = k_ref[keys, :], at(tiles_ref, i - j - plan.first)
        _, ds = plan.pullback(i - j, q, k, v_ref[keys, :], tile, at(valid_ref, keys), do, top, delta)
        finite = jnp.where(jnp.abs(k) < jnp.inf, k, 0)  # a hidden key may be NaN
        return dq + dot(ds.astype(k.dtype), finite)

    dq = plan.over_columns(i, visit, zeros(q.shape))
    dq_ref[...] = (plan.scale * dq).astype(dq_ref.dtype)


def dkv_kernel(plan, q_ref, k_ref, v_ref, tiles_ref, valid_ref, do_ref, top_ref, delta_ref, dk_ref, dv_ref):
    j, k, v = pl.program_id(0), k_ref[...], v_ref[...]
    valid = at(valid_ref, plan.slots(j))

    def visit(i, carry):
        rows, (dk, dv) = plan.slots(i), carry
        q, do, tile = q_ref[rows, :], do_ref[rows, :], at(tiles_ref, i - j - plan.first)
        e, ds = plan.pullback(i - j, q, k, v, tile, valid, do, top_ref[rows], delta_ref[rows])
        return dk + dot(ds.astype(q.dtype).T, q), dv + dot(e.astype(do.dtype).T, do)

    dk, dv = plan.over_rows(j, visit, (zeros(k.shape), zeros(v.shape)))
    dk_ref[...], dv_ref[...] = (plan.scale * dk).astype(dk_ref.dtype), dv.astype(dv_ref.dtype)


def dtiles_kernel(plan, q_ref, k_ref, v_ref, tile_ref, valid_ref, do_ref, top_ref, delta_ref, dtile_ref):
    d, tile = pl.program_id(0) + plan.first, tile_ref[...]

    def visit(i, dtile):
        rows, keys = plan.slots(i), plan.slots(i - d)
        arguments = q_ref[rows, :], k_ref[keys, :], v_ref[keys, :], tile, at(valid_ref, keys), do_ref[rows, :]
        return dtile + plan.pullback(d, *arguments, top_ref[rows], delta_ref[rows])[1]

    first, stop = jnp.maximum(0, d), jnp.minimum(plan.rows, plan.columns + d)
    dtile_ref[...] = lax.fori_loop(first, stop, visit, zeros(tile.shape))


def seen(x, block=None):
    """Block specification of x [B, L, H, W] or [B, H, L]: a program gets its own head and example, and either all slots
    or only the block with its number."""
    step = 0 if block is None else 1
    if x.ndim == 3:
        return pl.BlockSpec((None, None, block or x.shape[2]), lambda n, h, b: (b, h, step * n))
    return pl.BlockSpec((None, block or x.shape[1], None, x.shape[3]), lambda n, h, b: (b, step * n, h, 0))


def shared(tiles, valid):
    """Block specifications of the tiles (those of the head) and of the valid keys (those of the example)."""
    head, one = lambda n, h, b: (h, 0, 0, 0), valid is None or valid.shape[0] == 1
    tiles = None if tiles is None else pl.BlockSpec((None, *tiles.shape[1:]), head)
    return tiles, None if valid is None else pl.BlockSpec((None, valid.shape[1]), lambda n, h, b: (0 if one else b, 0))


def attention(plan, q, k, v, tiles, valid, level):
    """Attention of q [B, T, H, W], k [B, S, H, W] and v [B, S, H, V], all padded to whole blocks and lanes. `tiles` [H,
    D, Q, P] hold the bias, `valid` [#B, S] the valid keys, `level` [B, H, T] the logits of sinks; each may be None."""
    return forward(plan, q, k, v, tiles, valid, level)[0]


def forward(plan, q, k, v, tiles, valid, level):
    row = jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), jnp.float32)
    out = jax.ShapeDtypeStruct((*q.shape[:3], v.shape[-1]), v.dtype)
    inputs = [seen(q, plan.block), seen(k), seen(v), *shared(tiles, valid)]
    outputs = [seen(x, plan.block) for x in (out, row, row)]
    out, top, total = plan.call(forward_kernel, plan.rows, inputs, outputs, [out, row, row], (q, k, v, tiles, valid))
    if level is not None:  # a key with this logit and the value 0
        higher = jnp.maximum(top, level)
        share = total * jnp.exp(top - higher)
        top, total = higher, share + jnp.exp(level - higher)
        out = (out * (share / total).swapaxes(1, 2)[..., None]).astype(out.dtype)
    return out, (q, k, v, tiles, valid, level, out, top, total)


def backward(plan, residuals, do):
    q, k, v, tiles, valid, level, out, top, total = residuals
    do = do / total.swapaxes(1, 2)[..., None]
    delta = (do * out).sum(-1).swapaxes(1, 2)
    arguments = (q, k, v, tiles, valid, do.astype(v.dtype), top, delta)
    d_level = None if level is None else -jnp.exp(level - top) * delta
    of_query, of_key = ([seen(x, block) for x in (do, top, delta)] for block in (plan.block, None))

    inputs = [seen(q, plan.block), seen(k), seen(v), *shared(tiles, valid), *of_query]
    dq = plan.call(dq_kernel, plan.rows, inputs, seen(q, plan.block), q, arguments)

    own = [seen(k, plan.block), seen(v, plan.block)]
    inputs = [seen(q), *own, *shared(tiles, valid), *of_key]
    dk, dv = plan.call(dkv_kernel, plan.columns, inputs, own, [k, v], arguments)
    if tiles is None:
        return dq, dk, dv, None, None, d_level

    side = (plan.block, plan.block)
    tile = pl.BlockSpec((None, None, *side), lambda d, h, b: (h, d, 0, 0))
    inputs = [seen(q), seen(k), seen(v), tile, shared(tiles, valid)[1], *of_key]
    each = pl.BlockSpec((None, None, None, *side), lambda d, h, b: (b, h, d, 0, 0))
    dtiles = jax.ShapeDtypeStruct((q.shape[0], *tiles.shape), jnp.float32)
    dtiles = plan.call(dtiles_kernel, plan.diagonals, inputs, each, dtiles, arguments)
    return dq, dk, dv, dtiles.sum(0), None, d_level


flash = jax.custom_vjp(attention, nondiff_argnums=(0,))
flash.defvjp(forward, backward)
