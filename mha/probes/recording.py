"""Recording of a forward pass: the queries, keys and values of every attention, from which its maps are computed.

A recording is of size O(n). Maps [T, S] are computed a block of rows at a time, so that long sequences fit, by the
functions of the `dense` core, so that they are those of the model under every position scheme and mask.
"""

import dataclasses
import functools
import numbers
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mha.arguments import Seed, at_least, checked
from mha.cores import Variant, dense
from mha.mixing import Mixing
from mha.model.heads import fold_gates, layers
from mha.model.seq2seq import Model
from mha.nn.masks import Mask, later
from mha.nn.products import accurate, hideable, inner, mix
from mha.positions.base import Coords, Position
from mha.run.finished import Finished
from mha.spec import UserError

BLOCK = 2**24
"""Number of attention weights that are computed at a time."""


class Logits(NamedTuple):
    """Logits and their two parts, [B, H, T, S] each."""

    content: Float[Array, 'B H T S']
    """Products of queries and keys without positions."""
    position: Float[Array, 'B H T S']
    """Terms that the position scheme adds to them."""
    total: Float[Array, 'B H T S']


@dataclasses.dataclass(frozen=True)
class Attention:
    """Attention of one layer in one forward pass. Its methods take the first row (query) of the maps and the number of
    rows, by default all that follow. Hidden keys have the weight 0."""

    stack: str
    layer: int
    q: Float[Array, 'B T H K']
    """Queries before the position scheme changes them."""
    k: Float[Array, 'B S H K']
    """Keys of every head, before the position scheme changes them."""
    v: Float[Array, 'B S H K']
    position: Position
    """Position scheme, with its random draws."""
    coords: Coords
    mask: Mask
    variant: Variant
    mixing: Mixing
    gate: Float[Array, 'B T H #K'] | None
    """Factors of the outputs of heads or channels; None if there are none."""
    out: Float[Array, 'H K D']
    """Weights of the output projection, times the gates and the mask of the heads."""
    heads: tuple[int, ...]
    """Numbers of the heads, as those of the model when it was made: it may have lost some."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all maps, [B, H, T, S]."""
        (batch, queries, heads, _), keys = self.q.shape, self.k.shape[1]
        return batch, heads, queries, keys

    @property
    def scale(self) -> float:
        """Factor of the products of queries and keys."""
        return (self.q.shape[-1] // self.mixing.maps) ** -0.5

    @property
    def relates_rows(self) -> bool:
        """Whether rows of the maps depend on each other, so that all of them must be computed."""
        return self.position.whole_rows or not self.mixing.cacheable

    @property
    def turned(self) -> list[tuple[Array, Array]]:
        """Queries and keys of each map of the heads, as they meet in products."""
        maps = (self.position.qk(*qk, self.coords) for qk in self.mixing.split(self.q, self.k))
        return [(q, hideable(k, self.v)[0]) for q, k in maps]

    @functools.cached_property
    def value_norms(self) -> Float[Array, 'B H S']:
        """Norms of projected values."""
        v = self.v.astype(accurate(self.v))
        gram = jnp.einsum('hkd,hld->hkl', self.out, self.out)
        return jnp.sqrt(jnp.maximum(jnp.einsum('bshk,hkl,bshl->bhs', v, gram, v), 0))

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First rows and numbers of rows of blocks that cover the maps and hold at most `BLOCK` weights each."""
        batch, heads, queries, keys = self.shape
        size = max(1, BLOCK // max(1, batch * heads * keys))
        return ((start, min(size, queries - start)) for start in range(0, queries, size))

    def weights(self, start: int | Int[Array, ''] = 0, rows: int | None = None) -> Float[Array, 'B H T S']:
        """Attention weights. Under the softmax, rows sum to one, or to zero if the mask hides every key."""
        rows = self._rows(start, rows)
        if rows is not None and self.relates_rows:
            return jax.lax.dynamic_slice_in_dim(self.weights(), start, rows, axis=2)
        call: dict[str, Any] = dict(
            position=self.position, coords=self._coords(start, rows), scale=self.scale, variant=self.variant
        )
        turned = [(self._cut(q, start, rows), k) for q, k in self.turned]
        return self.mixing.combine([dense.weights(q, k, mask=self._mask(start), **call) for q, k in turned])

    def logits(self, start: int | Int[Array, ''] = 0, rows: int | None = None) -> Logits:
        """Logits of all keys, hidden ones included. What works on whole rows of them (`cope`) or bounds them acts on
        the total, and what it does there is no part of `position`. Of heads with two maps, those of the first."""
        rows = self._rows(start, rows)
        if rows is not None and self.position.overrides('product'):
            return Logits(*(jax.lax.dynamic_slice_in_dim(x, start, rows, axis=2) for x in self.logits()))
        (plain, plain_k), (q, k) = self.mixing.split(self.q, self.k)[0], self.turned[0]
        q, coords = self._cut(q, start, rows), self._coords(start, rows)
        total = dense.logits(q, k, position=self.position, coords=coords, scale=self.scale)
        plain = self._cut(plain, start, rows) * self.scale
        content = inner(plain.swapaxes(1, 2), plain_k.swapaxes(1, 2)).astype(total.dtype)
        return Logits(content, total - content, total)

    def visible(self, start: int | Int[Array, ''] = 0, rows: int | None = None) -> Bool[Array, '#B #H T S']:
        """Mask of the keys that each query may see."""
        rows = self._rows(start, rows)
        return self._mask(start).dense(self.shape[2] if rows is None else rows, self.shape[3])

    def contributions(self, start: int | Int[Array, ''] = 0, rows: int | None = None) -> Float[Array, 'B H T S']:
        """Norms of what each key adds to the output of a query: weight times the norm of its projected value
        (Kobayashi et al., 2020, arXiv:2004.10102), through the gate of the query. The norm of `differential` is left
        out."""
        rows = self._rows(start, rows)
        weights = self.weights(start, rows)
        if self.gate is None:
            return weights * self.value_norms[:, :, None]
        gate = self._cut(self.gate, start, rows).swapaxes(1, 2)
        if gate.shape[-1] == 1:
            return weights * self.value_norms[:, :, None] * gate
        v = self.v.astype(accurate(self.v)).swapaxes(1, 2)
        gram = jnp.einsum('hkd,hld->hkl', self.out, self.out)
        return weights * jnp.sqrt(jnp.maximum(jnp.einsum('bhtk,bhsk,hkl,bhsl,bhtl->bhts', gate, v, gram, v, gate), 0))

    def outputs(self, start: int | Int[Array, ''] = 0, rows: int | None = None) -> Float[Array, 'B T H K']:
        """Outputs of the heads, before gates and the projection."""
        rows = self._rows(start, rows)
        weights = self.weights(start, rows)
        out = mix(weights, hideable(self.k, self.v)[1].swapaxes(1, 2)).swapaxes(1, 2)
        gain = self.position.values(weights, self._cut(self.coords.q_pos, start, rows), self.coords.k_pos)
        return self.mixing.finish(out if gain is None else out + gain.astype(out.dtype))

    def _rows(self, start: int | Int[Array, ''], rows: int | None) -> int | None:
        """Number of rows from `start` on; None for whole maps. A traced `start` needs a number."""
        if not isinstance(start, numbers.Integral):
            return rows
        queries = self.shape[2]
        last = queries if rows is None else int(start) + rows
        if not 0 <= start < last <= queries:
            raise UserError(f'maps have rows 0 to {queries - 1}, not {start} to {last - 1}')
        return None if (start, last) == (0, queries) else last - int(start)

    def _coords(self, start, rows) -> Coords:
        """Coordinates of the queries of some rows, and of all keys."""
        of_queries = {name: self._cut(getattr(self.coords, name), start, rows) for name in ('q_pos', 'visible', 'x')}
        return dataclasses.replace(self.coords, **of_queries, contiguous=False)

    def _mask(self, start) -> Mask:
        """Mask of the queries from `start` on."""
        return later(self.mask, jnp.int32(start), 0, self.shape[3])

    def _cut(self, x: Array, start, rows) -> Array:
        """Rows of an array [#B, T, ..]."""
        return x if rows is None else jax.lax.dynamic_slice_in_dim(x, start, rows, axis=1)


@dataclasses.dataclass(frozen=True)
class Recording:
    """Forward pass of a model: its attentions in the order of their computation, and its logits."""

    tokens: Int[Array, 'B T']
    attentions: list[Attention]
    logits: Float[Array, '...']
    labels: list[list[str]] = dataclasses.field(default_factory=list)
    """Printed form of the tokens, if they are those of a task."""
    valid: Bool[Array, '#B T'] | None = None
    """Mask of real tokens; None if all are real."""

    def weights(self) -> Float[Array, 'L B H T T']:
        """Attention weights of all layers; for models whose maps are of one size."""
        return jnp.stack([attention.weights() for attention in self.attentions])


@checked
def record(
    model: Model,
    tokens: Int[Array, 'B T'],
    *,
    head_mask: Float[Array, 'L H'] | Sequence[Float[Array, 'H']] | None = None,
    **options: Any,
) -> Recording:
    """Forward pass of a model with its attentions; also inside jit. `head_mask` multiplies the output of every head, in
    the order of `layers`; 0 removes a head. `options` are passed to the model. Schemes that average over random
    draws are recorded with a single draw. Raises `UserError` for attention without a map (`core='linear'`)."""
    model = fold_gates(nnx.clone(model))  # a merge of a split would share the parameters
    found: list[Attention] = []
    places = layers(model)
    masks: Sequence[Any] = [None] * len(places) if head_mask is None else [*head_mask]
    if len(masks) != len(places):
        raise UserError(f'head_mask has {len(masks)} rows, but the model has {len(places)} layers of attention')
    for (stack, number, layer), mask in zip(places, masks, strict=True):
        if not layer.core.has_map:
            raise UserError(f'core={layer.core} forms no attention weights')
        if mask is not None:
            if (shape := jnp.shape(mask)) != (layer.num_heads,):
                raise UserError(f'head_mask of {stack}.{number} must be of shape {(layer.num_heads,)}, not {shape}')
            layer.head_mask = mask
        layer.probe = functools.partial(_keep, found, stack, number, layer)
    logits = model(tokens, sow_weights=True, **options)
    return Recording(tokens, found, logits, valid=options.get('valid'))


def _keep(found, stack, number, layer, q, k, v, *, position, coords, mask):
    gate = None if layer.output_gate is None else layer.opened(coords.x)
    out = layer.out.kernel[...]
    if layer.head_mask is not None:
        out = out * layer.head_mask[:, None, None].astype(out.dtype)
    found.append(
        Attention(stack, number, q, k, v, position, coords, mask, layer.variant, layer.mixing, gate, out, layer.kept)
    )


@checked
def probe(
    run: Finished,
    text: str | None = None,
    *,
    length: Annotated[int, at_least(1)] | None = None,
    examples: Annotated[int, at_least(1)] = 1,
    seed: Seed = 0,
) -> Recording:
    """Recording of a run's model on a text, or on `examples` of its task of one length, by default the longest trained
    one. A model that translates reads the text and its own translation."""
    task, position = run.task, jax.random.key(seed)
    if text is not None and length is not None:
        raise UserError('a probe reads a text or examples of a length - choose one')
    if text is not None:
        tokens, valid = _read(run, text)
        options: dict[str, Any] = dict(valid=valid)
    else:
        length = run.experiment.train_lengths[-1] if length is None else length
        batch = task.batch(jax.random.key(seed), examples, length, length)
        tokens, options = batch.tokens, dict(valid=batch.valid) | batch.extra
    seen = record(run.model, tokens, position_key=position, **options)
    labels = [[task.vocabulary[token] for token in row] for row in tokens.tolist()]
    return dataclasses.replace(seen, labels=labels)


def _read(run: Finished, text: str) -> tuple[Int[Array, '1 T'], Bool[Array, '1 T']]:
    """Tokens of a text, and which of them are real."""
    parts = [run.task.tokenize(text)]
    if not parts[0]:
        raise UserError('the text of a probe is empty')
    if run.task.has_source:
        (made,) = run.continuations([text])
        parts = [run.task.encode(text), [run.task.begin, *made.tokens]]
    elif run.task.halves:
        raise UserError('the task reads pairs of sequences, not one text - probe examples of a length')
    size = max(map(len, parts))
    tokens = [token for part in parts for token in (*part, *[0] * (size - len(part)))]
    valid = [slot < len(part) for part in parts for slot in range(size)]
    return jnp.array([tokens]), jnp.array([valid])
