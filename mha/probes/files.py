"""Arrays of a probe, `probe.npz`: the maps of all heads in one or more recordings, which the page of
`mha.views.probe` shows.

The entry `about` is JSON: the recordings with the labels of their tokens, the attentions of each, the stacks whose
heads are compared, statistics of heads and ablations. The arrays of an attention are named
`<recording>/<stack>.<layer>/<name>`:

    weights, content, position [H, T, S]    attention weights, and the two parts of the logits
    visible [#H, T, S]                      mask of the keys that a query may see
    value_norms [H, S]                      norms of projected values; times the weights, contributions
    contributions [H, T, S]                 instead of `value_norms`, where queries have gates
    q [T, H, K], k [S, H, K]                queries and keys whose products are logits, if there are at most
                                            `MOST_CHANNEL_TOKENS` of each; those of the first of two maps

Those of the n heads of a stack, whose similarities are in `mha.probes.similarity`, are named
`<recording>/similarity.<stack>/<name>`:

    divergence, cka [n, n]

If all maps together have more than `MOST_CELLS` cells, they are averaged over groups of tokens, [H, P, R], and
`contributions` [H, P, R] take the place of `value_norms`. Weights and contributions are sums over the keys of a group
and means over its queries; logits are means over visible cells. `strongest` and `strongest_weights` [H, T, n] are then
the keys of the largest weights of every query, and these weights.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mha.probes.recording import Attention, Recording
from mha.probes.similarity import similarity_of
from mha.probes.statistics import COLUMNS, Side, attentions, statistics_of

MOST_CELLS = 2_500_000
"""Largest number of cells of all maps of one kind that are kept one by one."""
POOLED_BYTES = 1_200_000
"""Size in bytes of maps that are averaged, with the strongest keys, in the page: one byte per cell, four per key."""
SIDES = (128, 96, 64, 48, 32, 24, 16)
"""Numbers of groups of tokens that an averaged map may have."""
MOST_STRONGEST = 8
MOST_CHANNEL_TOKENS = 128
MOST_COMPARED = 2**30
"""Largest number of pairs of weights of all pairs of heads that are compared: a minute of two CPU cores."""
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Probed:
    """Recording of one example, with the names that tell it from others."""

    recording: Recording
    run: str
    position: str
    length: int | None = None
    """Length of the example; None for a text."""
    step: int | None = None
    """Step of the checkpoint."""
    trained: int | None = None
    """Longest trained sequence, in tokens."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """Tokens that are the rows or the columns of maps: real ones, by their slots."""

    name: str
    slots: np.ndarray
    labels: list[str]


def write(path: Path, probed: Sequence[Probed], **about: Any) -> Path:
    """Writes the arrays of recordings. `about` is added to what the file says about them, such as the `command` and
    rows of `ablations`. A crash leaves either the old file or the new one."""
    arrays, recordings, statistics = {}, [], []
    for index, one in enumerate(probed):
        described, found = describe(one, len(probed))
        described['similarity'], compared = similarities(one)
        found |= compared
        recordings.append(described)
        arrays |= {f'{index}/{name}': array for name, array in found.items()}
        statistics += [{'recording': index, **row} for row in head_statistics(one)]
    told = {name for row in statistics for name in row} - {'stack', 'layer', 'head', 'length'}
    numbers = {name: column.title for name, column in COLUMNS.items() if name in told}
    about = {'version': 1, 'recordings': recordings, 'statistics': statistics, 'numbers': numbers, **about}
    temporary = path.with_suffix('.tmp')
    with temporary.open('wb') as file:
        np.savez_compressed(file, about=np.array(json.dumps(about, default=list)), **arrays)
    os.replace(temporary, path)
    return path


def describe(probed: Probed, share: int = 1) -> tuple[dict[str, Any], Arrays]:
    """Description of a recording, one of `share` that share a page, and its arrays."""
    places = list(_places(probed.recording))
    cells = sum(one.shape[1] * len(queries.slots) * len(keys.slots) for _, one, queries, keys in places)
    heads = sum(one.shape[1] for _, one, _, _ in places)
    longest = max(len(axis.slots) for place in places for axis in place[2:])
    pool = _plan(heads, longest, POOLED_BYTES // share) if cells * share > MOST_CELLS else None
    described, arrays, axes = [], {}, {}
    for stack, one, queries, keys in places:
        name = f'{stack}.{one.layer}'
        axes |= {axis.name: axis.labels for axis in (queries, keys)}
        sizes = None
        if pool is None:
            found = _whole(one, queries, keys)
        else:
            side, strongest = pool
            sizes = [math.ceil(len(axis.slots) / side) for axis in (queries, keys)]
            found = _pooled(one, queries, keys, sizes, strongest)
        arrays |= {f'{name}/{kind}': array for kind, array in found.items()}
        described.append(
            {
                'name': name,
                'stack': stack,
                'layer': one.layer,
                'heads': one.heads,
                'queries': queries.name,
                'keys': keys.name,
                'groups': sizes,
            }
        )
    names = {field.name: getattr(probed, field.name) for field in dataclasses.fields(probed)}
    del names['recording']
    return {**names, 'tokens': axes, 'attentions': described}, arrays


def similarities(probed: Probed) -> tuple[list[dict[str, Any]], Arrays]:
    """Description of the similarity of heads in every stack, and its arrays; nothing if it would take long."""
    sizes: dict[str, list[int]] = {}
    for one, *_ in attentions(probed.recording):
        _, heads, queries, keys = one.shape
        sizes.setdefault(one.stack, []).extend([queries * keys] * heads)
    if sum(len(each) * sum(each) for each in sizes.values()) > MOST_COMPARED:
        return [], {}
    described, arrays = [], {}
    for one in similarity_of(probed.recording):
        described.append({'stack': one.stack, 'heads': one.heads, 'order': one.order})
        for name in ('divergence', 'cka'):
            arrays[f'similarity.{one.stack}/{name}'] = getattr(one, name).astype(np.float32)
    return described, arrays


def head_statistics(probed: Probed) -> list[dict[str, Any]]:
    """Rows of the statistics of every head (`COLUMNS`), without those that it does not have. Of two sequences side by
    side, an encoder has the same statistics in both."""
    rows = statistics_of(probed.recording, trained=probed.trained).rows
    rows = [{name: x for name, x in row.items() if not isinstance(x, float) or math.isfinite(x)} for row in rows]
    rows = [{**row, 'length': probed.length} for row in rows]
    if any(stack == 'second' for stack, *_ in _places(probed.recording)):
        rows += [{**row, 'stack': 'second'} for row in rows]
    return rows


def _places(seen: Recording) -> Iterator[tuple[str, Attention, Axis, Axis]]:
    """Attentions with their stacks, their queries and their keys in the first example. Of two sequences side by side,
    an encoder reads the second one after the first: as the stack 'second'."""
    labels = seen.labels[0] if seen.labels else [str(token) for token in np.asarray(seen.tokens)[0]]

    def axis(side: Side) -> Axis:
        slots = np.flatnonzero(np.asarray(side.valid[0]))
        first = len(labels) // 2 if side.name == 'target' else 0
        return Axis(side.name, slots, [labels[first + slot] for slot in slots])

    for one, *sides in attentions(seen):
        queries, keys = map(axis, sides)
        yield 'second' if one.stack == 'encoder' and queries.name == 'target' else one.stack, one, queries, keys


def _rows(
    attention: Attention, queries: Axis, keys: Axis, maps: Callable[[Attention, int, int], tuple[Any, ...]]
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Maps of the first example in blocks of rows, without padding, and the numbers of these rows."""
    for start, count in attention.blocks():
        inside = np.flatnonzero((queries.slots >= start) & (queries.slots < start + count))
        picked = np.ix_(queries.slots[inside] - start, keys.slots)
        if inside.size:
            yield [np.asarray(each)[0][(slice(None), *picked)] for each in maps(attention, start, count)], inside


def _maps(attention: Attention, start: int, rows: int) -> tuple[Any, ...]:
    content, position, _ = attention.logits(start, rows)
    gated = () if attention.gate is None else (attention.contributions(start, rows),)
    return attention.weights(start, rows), content, position, attention.visible(start, rows), *gated


def _whole(attention: Attention, queries: Axis, keys: Axis) -> Arrays:
    names = ('weights', 'content', 'position', 'visible', 'contributions')
    blocks = [maps for maps, _ in _rows(attention, queries, keys, _maps)]
    found = {name: np.concatenate(parts, axis=1) for name, parts in zip(names, zip(*blocks, strict=True), strict=False)}
    found = {name: array if name == 'visible' else array.astype(np.float32) for name, array in found.items()}
    if 'contributions' not in found:
        found['value_norms'] = np.asarray(attention.value_norms, np.float32)[0][:, keys.slots]
    if max(len(queries.slots), len(keys.slots)) <= MOST_CHANNEL_TOKENS:
        q, k = (np.asarray(each, np.float32)[0] for each in attention.turned[0])
        found |= {'q': q[queries.slots] * attention.scale, 'k': k[keys.slots]}
    return found


def _plan(heads: int, tokens: int, size: int) -> tuple[int, int]:
    """Number of groups of tokens along a side of an averaged map, and number of strongest keys, for pages of `size`
    bytes: half of it at most for four kinds of maps."""
    side = next((side for side in SIDES if 4 * heads * side**2 <= size // 2), SIDES[-1])
    left = size - 4 * heads * side**2
    return side, int(np.clip(left // (4 * heads * tokens), 0, MOST_STRONGEST))


def _pooled(attention: Attention, queries: Axis, keys: Axis, sizes: Sequence[int], strongest: int) -> Arrays:
    groups = [math.ceil(len(axis.slots) / size) for axis, size in zip((queries, keys), sizes, strict=True)]
    firsts = np.arange(groups[1]) * sizes[1]
    heads = attention.shape[1]
    sums = {
        name: np.zeros((groups[0], heads, groups[1])) for name in ('weights', 'contributions', 'content', 'position')
    }
    visible = np.zeros((groups[0], heads, groups[1]))
    norms = np.asarray(attention.value_norms)[0][:, None, keys.slots]
    best, values = [], []
    for (weights, content, position, seen, *gated), rows in _rows(attention, queries, keys, _maps):
        seen = np.broadcast_to(seen, weights.shape)
        maps: Mapping[str, np.ndarray] = {
            'weights': weights,
            'contributions': gated[0] if gated else weights * norms,
            'content': np.where(seen, content, 0),
            'position': np.where(seen, position, 0),
        }
        for total, each in (*((sums[name], each) for name, each in maps.items()), (visible, seen)):
            summed = np.add.reduceat(each, firsts, axis=2, dtype=np.float64)
            np.add.at(total, rows // sizes[0], summed.swapaxes(0, 1))
        if strongest:
            top = np.argpartition(-weights, strongest, axis=2)[:, :, :strongest]
            top = np.take_along_axis(top, np.argsort(-np.take_along_axis(weights, top, 2), axis=2), 2)
            best.append(top.astype(np.uint16))
            values.append(np.take_along_axis(weights, top, 2).astype(np.float32))
    counts = np.bincount(np.arange(len(queries.slots)) // sizes[0])[:, None, None]
    found: Arrays = {
        name: (total / (counts if name in ('weights', 'contributions') else np.maximum(visible, 1))).swapaxes(0, 1)
        for name, total in sums.items()
    }
    found = {name: array.astype(np.float32) for name, array in found.items()}
    found['visible'] = (visible > 0).swapaxes(0, 1)
    if strongest:
        found |= {'strongest': np.concatenate(best, 1), 'strongest_weights': np.concatenate(values, 1)}
    return found
