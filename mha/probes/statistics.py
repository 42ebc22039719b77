"""Statistics of attention heads: how wide they look, where to, and on which pattern of tokens.

Sums over rows (queries) of the maps, from which all statistics follow:

    entropy         -sum_j A_ij ln A_ij
    distance        sum_j A_ij |i - j|
    confidence      max_j A_ij                                       Voita et al. (2019, arXiv:1905.09418)
    weight on a set sum_j A_ij [j in set(i)]                         over rows that see a key of the set
    profile         A_ij at the relative offset j - i                over rows that see a key there

A row counts if its query is a token, not padding, and sees a key. The sets are the token itself, the one before, the
one after, the first, separators; the token after an earlier occurrence of the query's token (induction heads: Olsson et
al., 2022, arXiv:2209.11895), that occurrence itself, and keys beyond the trained length. Maps are computed in blocks of
rows, so that long sequences fit.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mha.arguments import Seed, at_least, checked
from mha.model.heads import STACKS, layers
from mha.probes.recording import Attention, Recording, record
from mha.run.finished import Finished
from mha.spec import lengths as parse_lengths

BLOCK = 2**22
"""Number of attention weights that are measured at a time."""
PAIRS = 2**22
"""Largest number of pairs of tokens in a batch."""
Row = dict[str, Any]


class Column(NamedTuple):
    """Column of the rows, for pages and tables."""

    title: str
    description: str


COLUMNS = {
    'stack': Column('stack', "'encoder', or 'decoder' and 'cross' for the two attentions of a decoder"),
    'layer': Column('layer', 'layer, from 0'),
    'head': Column('head', 'head, from 0'),
    'length': Column('length', 'length of the examples; of a text, its number of tokens'),
    'entropy': Column('entropy', 'mean entropy of the attention weights, in nats'),
    'relative_entropy': Column(
        'relative entropy', 'entropy divided by that of uniform attention, over rows that see two keys or more'
    ),
    'distance': Column('distance', 'mean distance |i - j| from query to key, in tokens'),
    'confidence': Column('confidence', 'mean of the largest weight of a row (Voita et al., 2019)'),
    'self': Column('self', 'weight on the token itself'),
    'previous': Column('previous', 'weight on the token before'),
    'next': Column('next', 'weight on the token after'),
    'first': Column('first', 'weight on the first token'),
    'separators': Column('separators', 'weight on the tokens that were named as separators'),
    'offset': Column(
        'best offset',
        'relative offset j - i with the largest mean weight, of those that are visible at least half as often as any',
    ),
    'offset_weight': Column('weight there', 'weight on the key at the best offset'),
    'offset_argmax': Column(
        'largest there',
        'share of rows whose largest weight is at the best offset; a head is positional if it is adjacent and this is '
        'at least 0.9 (Voita et al., 2019)',
    ),
    'induction': Column(
        'induction', 'weight on tokens after an earlier occurrence of the same token (Olsson et al., 2022)'
    ),
    'induction_uniform': Column('induction, uniform', 'what uniform attention would have there'),
    'duplicate': Column('duplicate', 'weight on earlier occurrences of the same token'),
    'duplicate_uniform': Column('duplicate, uniform', 'what uniform attention would have there'),
    'beyond': Column('beyond', 'weight on keys that are further away than any in training'),
    'beyond_uniform': Column('beyond, uniform', 'what uniform attention would have there'),
}
"""Columns of the rows. NaN means that no row has such a key. Weights on keys are means over the rows that see one."""


def _above_uniform(name: str) -> Callable[[Row], bool]:
    return lambda row: row[name] - row[f'{name}_uniform'] >= (1 - row[f'{name}_uniform']) / 2


ROLES: dict[str, Callable[[Row], bool]] = {
    'positional': lambda row: abs(row['offset']) == 1 and row['offset_argmax'] >= 0.9,
    'self': lambda row: row['self'] >= 0.5,
    'previous': lambda row: row['previous'] >= 0.5,
    'next': lambda row: row['next'] >= 0.5,
    'first': lambda row: row['first'] >= 0.5,
    'separators': lambda row: row['separators'] >= 0.5,
    'induction': _above_uniform('induction'),
    'duplicate': _above_uniform('duplicate'),
    'uniform': lambda row: row['relative_entropy'] >= 0.99,
}
"""Roles of heads: conditions on a row. Half of the weight is on such keys; of what uniform attention leaves, for tokens
that occur again."""


@checked
def roles(row: Row) -> list[str]:
    """Roles of the head that a row of statistics describes; most heads have none."""
    return [name for name, holds in ROLES.items() if holds(row)]


class Side(NamedTuple):
    """Sequence of the queries or of the keys of an attention."""

    tokens: Int[Array, 'B T']
    valid: Bool[Array, 'B T']
    name: str = 'tokens'
    """'tokens' or, of two sequences that are stored side by side, 'source' and 'target'."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of all heads of a model on examples of one length."""

    rows: list[Row]
    """One per head: `COLUMNS`."""
    profiles: dict[str, Float[np.ndarray, 'L H O']]
    """Mean weight at every relative offset, by stack; NaN where no row sees a key, and for heads that were removed."""
    offsets: dict[str, Int[np.ndarray, 'O']]
    """Relative offsets j - i of the profiles, in ascending order, by stack."""


@checked
def head_statistics(
    run: Finished,
    *,
    lengths: str | Iterable[int] | None = None,
    examples: Annotated[int, at_least(1)] = 64,
    seed: Seed = 0,
    separators: Iterable[str] = (),
) -> list[Row]:
    """Statistics of every head of a run on held-out examples: one row per length, stack, layer and head, with the
    columns of `COLUMNS`. `lengths` are text ('20,40') or numbers, by default the longest of training and the longest of
    the evaluation. `separators` are symbols of the task."""
    lengths = run.experiment.ends if lengths is None else lengths
    text = lengths if isinstance(lengths, str) else ','.join(map(str, lengths))
    options: dict[str, Any] = dict(examples=examples, seed=seed, separators=tuple(separators))
    return [row for length in parse_lengths(text) for row in statistics_at(run, length, **options).rows]


@checked
def statistics_at(
    run: Finished,
    length: Annotated[int, at_least(1)],
    *,
    examples: Annotated[int, at_least(1)] = 64,
    seed: Seed = 0,
    separators: Iterable[str] = (),
) -> Statistics:
    """Statistics of every head and its profile of offsets, on held-out examples of one length; see `head_statistics`.
    The examples are those of `probe` with the same seed."""
    task, trained = run.task, run.experiment.train_lengths[-1]
    fits = max(1, PAIRS // task.num_tokens(length) ** 2)
    size = max(size for size in range(1, examples + 1) if examples % size == 0 and size <= fits)
    found = _totals_of_examples(
        *nnx.split(run.model),
        task,
        jax.random.split(jax.random.key(seed), examples).reshape(-1, size),
        jnp.int32(length),
        max_length=length,
        trained=run.model.context(task.num_tokens(trained)),
        separators=tuple(sorted({token for symbol in separators for token in task.tokenize(symbol)})),
    )
    return _finished(found, {layer[:2]: layer.attention.kept for layer in layers(run.model)}, length)


@checked
def statistics_of(
    seen: Recording, *, trained: int | None = None, separators: Iterable[int] = (), length: int | None = None
) -> Statistics:
    """Statistics of the heads in a recording, such as that of a text. `trained` is the number of tokens in training;
    without it, no key is beyond. `separators` are tokens. `length` labels the rows, by default the number of tokens."""
    found = _totals(seen, trained, tuple(separators))
    numbers = {(one.stack, one.layer): one.heads for one in seen.attentions}
    return _finished(found, numbers, seen.tokens.shape[1] if length is None else length)


def attentions(seen: Recording) -> Iterator[tuple[Attention, Side, Side]]:
    """Attentions that have heads, with the sequences of their queries and of their keys. Where two sequences are stored
    side by side, these are halves of the tokens."""
    valid = jnp.ones_like(seen.tokens, bool) if seen.valid is None else jnp.broadcast_to(seen.valid, seen.tokens.shape)
    met = set()
    for one in (one for one in seen.attentions if one.heads):
        length, place = one.shape[2], (one.stack, one.layer)
        names = ('tokens', 'tokens') if length == seen.tokens.shape[1] else ('source', 'target')
        parts = zip((slice(length), slice(-length, None)), names, strict=True)
        first, second = (Side(seen.tokens[:, part], valid[:, part], name) for part, name in parts)
        if one.stack == 'cross':
            yield one, second, first
        elif one.stack == 'decoder' or place in met:  # of a pair of sequences, the second is read after the first
            yield one, second, second
        else:
            yield one, first, first
        met.add(place)


# --- sums over rows --------------------------------------------------------------------------------------------------

Totals = dict[str, tuple[Array, Array]]
"""Sums over rows, and the numbers of rows that they are over: [H] each, or [H, O] by offset."""
Place = tuple[str, int]
"""Stack and layer."""


@functools.partial(jax.jit, static_argnames=('graphdef', 'max_length', 'trained', 'separators'))
def _totals_of_examples(graphdef, state, task, keys, length, *, max_length, trained, separators) -> dict[Place, Totals]:
    """Totals over the examples of keys [N, B], N batches one after the other. `length` is traced, so that the
    compiler does not evaluate masks itself, which is slow."""

    def of_batch(keys):
        batch = task.examples(keys, length, max_length)
        valid = batch.valid if task.ragged else batch.valid[:1]
        seen = record(nnx.merge(graphdef, state), batch.tokens, valid=valid, position_key=keys, **batch.extra)
        return _totals(seen, trained, separators)

    return jax.tree.map(lambda x: x.sum(0), jax.lax.map(of_batch, keys))


def _totals(seen: Recording, trained: int | None, separators: tuple[int, ...]) -> dict[Place, Totals]:
    found: dict[Place, Totals] = {}
    for attention, query, key in attentions(seen):
        totals = _over_blocks(attention, query, key, trained, separators)
        place = attention.stack, attention.layer
        found[place] = jax.tree.map(jnp.add, found[place], totals) if place in found else totals
    return found


def _over_blocks(attention, query, key, trained, separators) -> Totals:
    batch, heads, queries, keys = attention.shape
    whole = attention.relates_rows  # every block would compute all rows
    size = queries if whole else min(queries, max(1, BLOCK // (batch * heads * keys)))

    def of_block(first):
        start = jnp.minimum(first, queries - size)  # the last block begins earlier, with rows that count already
        slot = start + jnp.arange(size)
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size, axis=1)
        rows = query._replace(tokens=cut(query.tokens), valid=cut(query.valid))
        counts = rows.valid & (slot >= first)[None]
        seen = attention.visible(start, size) & counts[:, None, :, None]
        weights = jnp.where(seen, attention.weights(start, size), 0)
        ahead = jnp.arange(keys)[None] - slot[:, None]
        sets = _sets(ahead, rows, key, attention.stack, trained, separators)
        return {**_of_rows(weights, seen, ahead, sets), **_by_offset(weights, seen, start, queries)}

    def add(totals, first):
        return jax.tree.map(jnp.add, totals, of_block(first)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_block, jnp.int32(0)))
    return jax.lax.scan(add, zeros, jnp.arange(0, queries, size))[0]


def _sets(
    ahead: Int[Array, 'R S'], query: Side, key: Side, stack: str, trained: int | None, separators: tuple[int, ...]
) -> dict[str, Bool[Array, '#B #R S']]:
    """Keys of every set, for rows and keys at these relative offsets. Sets that are empty for all rows are left out."""
    sets = {'first': (jnp.arange(ahead.shape[1])[None] == key.valid.argmax(1)[:, None])[:, None]}
    if separators:
        sets['separators'] = jnp.isin(key.tokens, jnp.array(separators))[:, None]
    if trained is not None and trained < ahead.shape[1]:
        sets['beyond'] = (abs(ahead) >= trained)[None]
    if stack != 'cross':
        same = query.tokens[:, :, None] == key.tokens[:, None]
        sets['duplicate'] = same & (ahead < 0)[None] & key.valid[:, None]
        sets['induction'] = jnp.pad(sets['duplicate'], ((0, 0), (0, 0), (1, 0)))[..., :-1]
    return sets


def _of_rows(
    weights: Float[Array, 'B H R S'], seen: Bool[Array, 'B #H R S'], ahead: Int[Array, 'R S'], sets: dict[str, Array]
) -> Totals:
    """Totals of the statistics of whole rows."""
    number, rows = seen.sum(-1), seen.any(-1)
    entropy = jax.scipy.special.entr(abs(weights)).sum(-1)  # mixed heads may have negative weights
    values = {
        'entropy': (entropy, rows),
        'relative_entropy': (entropy / jnp.log(jnp.maximum(number, 2)), number > 1),
        'distance': ((weights * abs(ahead)[None, None]).sum(-1), rows),
        'confidence': (weights.max(-1), rows),
    }
    for name, keys in sets.items():
        keys = seen & keys[:, None]
        values[name] = (weights * keys).sum(-1), keys.any(-1)
        if f'{name}_uniform' in COLUMNS:
            values[f'{name}_uniform'] = keys.sum(-1) / jnp.maximum(number, 1), keys.any(-1)

    def total(value, counts):
        value, counts = (jnp.broadcast_to(x, weights.shape[:3]) for x in (value, counts))
        return jnp.where(counts, value, 0).sum((0, 2)), counts.sum((0, 2))

    return {name: total(*value) for name, value in values.items()}


def _by_offset(weights: Float[Array, 'B H R S'], seen: Bool[Array, 'B #H R S'], start, queries: int) -> Totals:
    """Totals of the weights, and of the largest weights of rows, at every relative offset."""
    size, keys = weights.shape[2:]
    largest = (jnp.arange(keys)[None, None, None] == weights.argmax(-1)[..., None]) & seen

    def diagonals(x):
        """Sums over the diagonals of the rows [H, R, S], each moved to the right by the number of rows below it."""
        x = jnp.broadcast_to(x.astype(jnp.float32).sum(0), weights.shape[1:])[:, ::-1]
        width = size + keys - 1
        x = jnp.pad(x, ((0, 0), (0, 0), (0, size))).reshape(len(x), -1)[:, : size * width]
        found = x.reshape(len(x), size, width).sum(1)
        return jax.lax.dynamic_update_slice(jnp.zeros((len(x), queries + keys - 1)), found, (0, queries - size - start))

    visible = diagonals(seen)
    return {'profile': (diagonals(weights), visible), 'largest': (diagonals(largest), visible)}


# --- statistics from sums --------------------------------------------------------------------------------------------


def _finished(found: dict[Place, Totals], heads: dict[Place, tuple[int, ...]], length: int) -> Statistics:
    """Statistics from totals; `heads` are the numbers of the heads of every layer."""
    rows, profiles = [], {}
    in_order = sorted(found, key=lambda place: (STACKS.index(place[0]), place[1]))
    for (stack, layer), totals in ((place, jax.device_get(found[place])) for place in in_order):
        with np.errstate(invalid='ignore'):
            means = {name: np.float64(total) / count for name, (total, count) in totals.items()}
        profile, largest, visible = means.pop('profile'), means.pop('largest'), totals['profile'][1]
        profiles.setdefault(stack, []).append((layer, heads[stack, layer], profile))
        offsets = _offsets(profile)
        often = visible >= visible.max(1, keepdims=True) / 2
        best = np.where(often, profile, -1).argmax(1)[:, None]
        means['offset'] = offsets[best[:, 0]]
        means['offset_weight'], means['offset_argmax'] = (
            np.take_along_axis(x, best, 1)[:, 0] for x in (profile, largest)
        )
        for name, offset in (('self', 0), ('previous', -1), ('next', 1)):
            at = offsets == offset
            means[name] = profile[:, at][:, 0] if at.any() else np.full(len(profile), np.nan)
        for index, head in enumerate(heads[stack, layer]):
            place = dict(stack=stack, layer=layer, head=head, length=length)
            row = {**place, **{name: float(value[index]) for name, value in means.items()}}
            rows.append({name: row.get(name, float('nan')) for name in COLUMNS})
    profiles = {stack: _by_number(layers) for stack, layers in profiles.items()}
    return Statistics(rows, profiles, {stack: _offsets(profile) for stack, profile in profiles.items()})


def _by_number(found: list[tuple[int, tuple[int, ...], np.ndarray]]) -> np.ndarray:
    """Arrays [H, O] of layers as one array, by the numbers of layers and heads; NaN for those without."""
    layers, heads = found[-1][0] + 1, max(heads[-1] for _, heads, _ in found) + 1
    whole = np.full((layers, heads, found[0][2].shape[-1]), np.nan)
    for layer, numbers, array in found:
        whole[layer, list(numbers)] = array
    return whole


def _offsets(profile: np.ndarray) -> np.ndarray:
    """Relative offsets of a profile of as many queries as keys."""
    return np.arange(profile.shape[-1]) - profile.shape[-1] // 2
