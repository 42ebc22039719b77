"""Page of a probe, `probe.html`, which shows the arrays of a `probe.npz` and needs no other file.

Maps are written as whole numbers of one byte, or two if they are few, between the smallest and the largest value of
each head, compressed and in base64. Queries and keys, from which the page computes what each channel adds to a logit,
are left out of a page that would become too large. Pictures of positions are SVG in the colours of the page.

The scripts are ours, in plain JavaScript without a build: `maps.js` (colours, small maps, the large map), `lines.js`,
`channels.js` (channels, ablations), `alike.js` (similarity of heads), `files.js` (what is saved) and `probe.js` (state,
controls). Every view is an SVG, which a file can hold as it is; the cells of a map are one image in it.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np

from mha.machine import files
from mha.views import pages

TEMPLATES = Path(__file__).with_name('templates')
FEW_CELLS = 250_000
"""Largest number of cells of one kind of maps that are written with two bytes each."""
MOST_BYTES = 9_500_000
"""Size up to which a page also has queries and keys."""
SCRIPTS = ('maps.js', 'lines.js', 'channels.js', 'alike.js', 'files.js', 'probe.js')
Packed = dict[str, Any]
Pictures = Sequence[tuple[str, Sequence[markupsafe.Markup]]]


def write(path: Path, positions: Pictures = ()) -> Path:
    """Writes the page of the arrays in `path` beside them, and returns its path. `positions` are titles
    and pictures of encodings, SVG in the colours of the page."""
    page = path.with_suffix('.html')
    files.write(page, as_html(path, positions))
    return page


def as_html(path: Path, positions: Pictures = ()) -> str:
    with np.load(path) as arrays:
        about = json.loads(str(arrays['about']))
        data = page_data(about, arrays)
    runs = [*dict.fromkeys(recording['run'] for recording in about['recordings'])]
    return pages.template(TEMPLATES / 'probe.html').render(
        title=about.get('title') or ' and '.join(Path(run).name for run in runs),
        command=about.get('command', ''),
        positions=positions,
        css=pages.own(pages.SHARED / 'page.css', TEMPLATES / 'probe.css'),
        script=pages.own(pages.SHARED / 'elements.js', *(TEMPLATES / name for name in SCRIPTS)),
        data=pages.data(data),
    )


def page_data(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Everything that the script of the page shows."""
    found = [
        (attention, f'{index}/{attention["name"]}')
        for index, recording in enumerate(about['recordings'])
        for attention in recording['attentions']
    ]
    few = sum(arrays[f'{name}/weights'].size for _, name in found) <= FEW_CELLS
    written = 0
    for attention, name in found:
        own = {key.rpartition('/')[2]: arrays[key] for key in arrays if key.startswith(f'{name}/')}
        attention['maps'] = _maps(own, 16 if few else 8)
        written += sum(len(each['data']) for each in attention['maps'].values())
    for attention, name in found:
        if f'{name}/q' not in arrays:
            continue
        both = {each: packed(arrays[f'{name}/{each}'].swapaxes(0, 1), 16 if few else 8) for each in ('q', 'k')}
        written += sum(len(each['data']) for each in both.values())
        if written > MOST_BYTES:
            break
        attention |= both
    for index, recording in enumerate(about['recordings']):
        for one in recording.get('similarity', ()):
            for name in ('divergence', 'cka'):
                matrix = arrays[f'{index}/similarity.{one["stack"]}/{name}']
                one[name] = packed(matrix.clip(0, 1)[None], 16 if few else 8, limits=(0.0, 1.0))
    return {**about, 'statistics': _rounded(about['statistics']), 'ablations': _rounded(about.get('ablations') or [])}


def _maps(arrays: Mapping[str, np.ndarray], bits: int) -> dict[str, Packed]:
    visible = np.broadcast_to(arrays['visible'], arrays['weights'].shape)
    kinds = ('weights', 'contributions', 'content', 'position')
    maps = {kind: packed(arrays[kind], bits, visible) for kind in kinds if kind in arrays}
    if 'value_norms' in arrays:
        maps['value_norms'] = packed(arrays['value_norms'][:, None], 16)
    if 'strongest' in arrays:
        maps['strongest'] = packed(arrays['strongest'], 16, limits=(0.0, 2.0**16 - 2))
        maps['strongest_weights'] = packed(arrays['strongest_weights'], 16)
    return maps


def packed(
    array: np.ndarray, bits: int, visible: np.ndarray | None = None, limits: tuple[float, float] | None = None
) -> Packed:
    """Array [H, ..] as whole numbers: 0 stands for the smallest value of a head, the last number but one for its
    largest, and the last for a cell that is not visible."""
    last = 2**bits - 2
    shown = np.isfinite(array) if visible is None else visible & np.isfinite(array)
    if limits is None:
        parts = [values[inside] for values, inside in zip(array, shown, strict=True)]
        ends = [(float(part.min()), float(part.max())) if part.size else (0.0, 0.0) for part in parts]
    else:
        ends = [limits] * len(array)
    low, high = np.array(ends).T
    first, span = (each.reshape(-1, *[1] * (array.ndim - 1)) for each in (low, high - low))
    codes = np.rint((np.where(shown, array, first) - first) / np.where(span > 0, span, 1) * last)
    codes = np.where(shown, codes, last + 1).astype('<u2' if bits == 16 else 'u1')
    data = base64.b64encode(zlib.compress(codes.tobytes(), 9)).decode()
    return {'shape': array.shape, 'bits': bits, 'low': low.tolist(), 'high': high.tolist(), 'data': data}


def _rounded(rows: Any) -> list[dict[str, Any]]:
    """Rows with five digits; numbers that are not finite become null."""
    return [{name: _short(value) if isinstance(value, float) else value for name, value in row.items()} for row in rows]


def _short(value: float) -> float | None:
    return float(f'{value:.5g}') if math.isfinite(value) else None
